//! The plan, and devices on socket pairs and temporary files. These tests need no KVM, tap or root.

use crate::config::BlockSource;
use guest_abi::manifest::{BLOCK_BASIC, Entry, NET_BASIC};

use super::*;
use crate::config::NetSource;
use crate::config::{BlockOption, NetOption};
use crate::guest::manifest::Manifest;
use crate::guest::manifest::tests::manifest as content;

mod attached;
mod legacy;
mod plan;
mod poll;

/// Returns a manifest that declares these network and block devices, in this order.
fn manifest(nets: &[&str], blocks: &[&str]) -> Manifest {
    let nets = nets.iter().map(|name| Entry::declare(name, NET_BASIC));
    let entries: Vec<Entry> = nets
        .chain(blocks.iter().map(|name| Entry::declare(name, BLOCK_BASIC)))
        .collect();
    Manifest::parse(&content(&entries)).expect("a good manifest")
}

/// `--net:NAME=SOURCE`, or `--net=SOURCE` without a name.
fn net(name: impl Into<Option<&'static str>>, source: NetSource) -> NetOption {
    NetOption {
        name: name.into().map(String::from),
        option: "net",
        source: Some(source),
        ..NetOption::default()
    }
}

/// `--block:NAME=PATH`, or `--block=PATH` without a name.
fn block(
    name: impl Into<Option<&'static str>>,
    path: impl Into<std::path::PathBuf>,
) -> BlockOption {
    let source = Some(BlockSource::Path(path.into()));
    BlockOption {
        name: name.into().map(String::from),
        option: "block",
        source,
        ..BlockOption::default()
    }
}

fn tap(name: &str) -> NetSource {
    NetSource::Interface(name.into())
}
