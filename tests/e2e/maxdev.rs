//! The most devices that a manifest can hold: 63.

use libtest_mimic::Trial;
use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::Need::{Kvm, Net};
use crate::common::net::{Tap, bring_up_loopback};
use crate::common::{self, rsp, run, unikernel};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(all_63_devices_work, Kvm, Net),
        trial!(the_largest_statistics_are_written, Kvm, Net),
        trial!(the_one_that_is_missing_is_named),
    ]
}

const NETWORKS: usize = 32;
const DISKS: usize = 31;

/// Options that attach everything, with disks in the directory.
fn attached(directory: &Path) -> Vec<String> {
    let mut options = vec!["--mem=4".to_owned()];
    for i in 0..NETWORKS {
        let name: &'static str = format!("tap{i}").leak();
        Tap::up(name, Ipv4Addr::new(10, 0, i as u8, 1));
        options.push(format!("--net:net{i}={name}"));
    }
    for i in 0..DISKS {
        let path = directory.join(format!("{i}.img"));
        File::create(&path)
            .unwrap()
            .set_len(4096 * (i as u64 + 1))
            .unwrap();
        options.push(format!("--block:block{i}={}", common::text(&path)));
    }
    options
}

fn command(options: &[String]) -> Command {
    unikernel(
        "maxdev",
        &options.iter().map(String::as_str).collect::<Vec<_>>(),
        &[],
    )
}

fn all_63_devices_work() {
    let directory = common::directory();
    let options = attached(directory.path());
    run(&mut command(&options))
        .exits(0)
        .is_quiet()
        .prints("maxdev: 32 networks, 31 disks\n");
}

/// Paths have the greatest length that Linux allows, of a character that takes six in JSON.
/// Statistics go to a file, to standard error and, while the guest runs, to metrics. The sandbox
/// forbids to grow a large heap block.
fn the_largest_statistics_are_written() {
    let directory = common::directory();
    let deep = deep(directory.path());
    let stats = directory.path().join("stats.json");
    let mut options = attached(&deep);
    for target in [common::text(&stats), "-"] {
        let option = format!("--stats={target}");
        options.push(option);
        let output = run(&mut command(&options));
        output.exits(0).prints("maxdev: 32 networks, 31 disks\n");
        let text = if target == "-" {
            output.stderr.clone()
        } else {
            std::fs::read_to_string(&stats).unwrap()
        };
        let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let blocks = document["blocks"].as_array().expect("blocks");
        assert_eq!(
            (blocks.len(), document["nets"].as_array().map(Vec::len)),
            (DISKS, Some(NETWORKS))
        );
        let path = blocks[DISKS - 1]["path"].as_str().expect("a path");
        assert_eq!(Path::new(path), deep.join(format!("{}.img", DISKS - 1)));
        assert!(text.len() > DISKS * 6 * 3500, "{}", text.len());
        options.pop();
    }
    let socket = directory.path().join("socket");
    options.push(format!("--metrics=unix:{}", common::text(&socket)));
    let options: Vec<_> = options.iter().skip(1).map(String::as_str).collect();
    bring_up_loopback();
    let (guest, mut debugger) = rsp::debug("maxdev", &options, &[]);
    debugger.program_counter();
    let ask = || {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        stream
    };
    // More than a socket's buffer holds: clients that do not read must not delay the one that does.
    let _slow: Vec<_> = (0..7).map(|_| ask()).collect();
    let mut stream = ask();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("\ntender_block_reads_total{").count(), DISKS);
    assert!(
        text.ends_with("\n") && text.len() > DISKS * 8 * 3500,
        "{}",
        text.len()
    );
    debugger.ends(0);
    guest.end().exits(0);
}

/// Makes a directory whose path is nearly as long as Linux allows. A longer path could not be
/// removed by its name.
fn deep(directory: &Path) -> PathBuf {
    let mut deep = directory.to_owned();
    loop {
        let left = 4095 - "/30.img".len() - deep.as_os_str().len();
        if left < 2 {
            return deep;
        }
        deep.push("\u{1}".repeat((left - 1).min(255)));
        std::fs::create_dir(&deep).unwrap();
    }
}

fn the_one_that_is_missing_is_named() {
    let networks = (0..NETWORKS).map(|i| format!("--net:net{i}=t{i}"));
    let disks = (0..DISKS)
        .filter(|i| *i != 17)
        .map(|i| format!("--block:block{i}=/nowhere/{i}"));
    let options: Vec<_> = networks.chain(disks).collect();
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    run(&mut unikernel("maxdev", &options, &[]))
        .is_refused(&["'block17' (BLOCK_BASIC)", "--block:block17="]);
}
