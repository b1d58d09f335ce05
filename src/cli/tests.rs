use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use std::path::PathBuf;

use log::LevelFilter;

use super::*;
use crate::config::{
    BlockOption, BlockSource, Config, Engine, EngineChoice, HugePages, Memory, NetOption,
    NetSource, Verbosity,
};
use crate::report::message::Message;

mod debugging;
mod descriptors;
mod devices;
mod errors;
mod isolation;
mod limits;
mod machine;
mod output;
mod properties;

fn command(args: &[&str]) -> Result<Command, Error> {
    parse(
        std::iter::once("tender")
            .chain(args.iter().copied())
            .map(OsString::from),
    )
}

fn config(args: &[&str]) -> Config {
    match command(args) {
        Ok(Command::Run(config)) => config,
        other => panic!("{args:?}: {other:?}"),
    }
}

/// Returns the error of `args` before a unikernel.
fn error(args: &[&str]) -> String {
    match command(&[args, &["app.hvt"]].concat()) {
        Err(error) => Message::of(&error).to_string(),
        other => panic!("{args:?}: {other:?}"),
    }
}

fn net(name: Option<&str>, source: Option<NetSource>, mac: Option<[u8; 6]>) -> NetOption {
    let option = if source.is_some() { "net" } else { "net-mac" };
    NetOption {
        name: name.map(String::from),
        option,
        source,
        mac,
        in_file: None,
    }
}

fn block(name: Option<&str>, path: Option<&str>, sector_size: Option<u16>) -> BlockOption {
    let source = path.map(|path| BlockSource::Path(path.into()));
    let option = if path.is_some() {
        "block"
    } else {
        "block-sector-size"
    };
    BlockOption {
        name: name.map(String::from),
        option,
        source,
        sector_size,
        in_file: None,
    }
}

fn interface(name: &str) -> Option<NetSource> {
    Some(NetSource::Interface(name.into()))
}

#[test]
fn the_documented_command_line_is_parsed() {
    let config = config(&[
        "--net=tap100",
        "--mem=64M",
        "--",
        "presentation_server.hvt",
        "--ipv4=10.0.0.2/24",
    ]);
    assert_eq!(config.unikernel, PathBuf::from("presentation_server.hvt"));
    assert_eq!(config.arguments, ["--ipv4=10.0.0.2/24"]);
    assert_eq!(
        config.memory,
        Memory {
            asked: 64 << 20,
            given: 64 << 20
        }
    );
    assert_eq!(config.nets, [net(None, interface("tap100"), None)]);
    assert_eq!(config.blocks, []);
    assert_eq!(config.verbosity, Verbosity::Normal);
}

#[test]
fn values_follow_an_equals_sign_or_are_the_next_argument() {
    let joined = [
        "--mem=64",
        "--net:a=tap0",
        "--net-mac:a=02:00:00:00:00:01",
        "--block:d=x",
        "app",
    ];
    let apart = [
        "--mem",
        "64",
        "--net:a",
        "tap0",
        "--net-mac:a",
        "02:00:00:00:00:01",
        "--block:d",
        "x",
        "app",
    ];
    assert_eq!(config(&joined), config(&apart));
}

#[test]
fn every_argument_after_the_unikernel_is_the_guests() {
    let args = ["--help", "--", "-v", "--mem=1", "", "--net:x", "app", "--"];
    for start in [&["-v", "app"][..], &["-v", "--", "app"]] {
        assert_eq!(config(&[start, &args].concat()).arguments, args);
    }
    assert_eq!(
        config(&["--", "--mem=64", "x"]).unikernel,
        PathBuf::from("--mem=64")
    );
    assert_eq!(config(&["-", "x"]).unikernel, PathBuf::from("-"));
    assert_eq!(config(&["--", "--", "x"]).unikernel, PathBuf::from("--"));
}

#[test]
fn paths_are_bytes() {
    let path = OsStr::from_bytes(b"a\xff b,=c");
    let args = [
        OsStr::new("tender"),
        OsStr::new("--block:d"),
        path,
        path,
        path,
    ];
    let Ok(Command::Run(config)) = parse(args.map(OsStr::to_owned)) else {
        panic!()
    };
    assert_eq!(
        config.blocks[0].source,
        Some(BlockSource::Path(path.into()))
    );
    assert_eq!(config.unikernel, path);
    assert_eq!(config.arguments, [path]);
}

#[test]
fn verbosity() {
    let levels = [
        (&["app"][..], LevelFilter::Warn),
        (&["-q", "app"], LevelFilter::Error),
        (&["-qq", "app"], LevelFilter::Error),
        (&["-v", "app"], LevelFilter::Info),
        (&["-v", "--verbose", "app"], LevelFilter::Debug),
        (&["-vvv", "app"], LevelFilter::Trace),
        (&["-vvvvv", "app"], LevelFilter::Trace),
    ];
    for (args, level) in levels {
        assert_eq!(config(args).verbosity.level(), level, "{args:?}");
    }
}

#[test]
fn version_and_help_need_no_unikernel() {
    assert_eq!(
        command(&["--version"]),
        Ok(Command::Version { json: false })
    );
    assert_eq!(
        command(&["-V", "app"]),
        Ok(Command::Version { json: false })
    );
    assert!(matches!(command(&["-h"]), Ok(Command::Help(_))));
}

#[test]
fn help_names_every_option_and_fits_a_terminal() {
    let Ok(Command::Help(text)) = command(&["--mem=64", "--help"]) else {
        panic!()
    };
    for option in [
        "--mem=",
        "--net:NAME=",
        "--net-mac:NAME=",
        "--block:NAME=",
        "--block-sector-size:NAME=",
        "--disk=",
    ] {
        assert!(text.contains(option), "{option}");
    }
    for word in [
        "-v,",
        "-q,",
        "-h,",
        "-V,",
        "Memory:",
        "Network:",
        "Block:",
        "Output:",
        "Examples:",
        "Exit status:",
    ] {
        assert!(text.contains(word), "{word}");
    }
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
}
