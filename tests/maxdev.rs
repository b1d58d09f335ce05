//! As many devices as a manifest can hold: 63.

mod common;

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::ExitCode;

use common::net::Tap;
use common::{net_test, run, test, unikernel};

fn main() -> ExitCode {
    common::main(vec![
        net_test("all_63_devices_work", all_63_devices_work),
        test("the_one_that_is_missing_is_named", the_one_that_is_missing_is_named),
    ])
}

const NETWORKS: usize = 32;
const DISKS: usize = 31;

fn all_63_devices_work() {
    let directory = common::directory();
    let mut options = vec!["--mem=4".to_owned()];
    for i in 0..NETWORKS {
        let name: &'static str = format!("tap{i}").leak();
        Tap::up(name, Ipv4Addr::new(10, 0, i as u8, 1));
        options.push(format!("--net:net{i}={name}"));
    }
    for i in 0..DISKS {
        let path = directory.path().join(format!("{i}.img"));
        File::create(&path).unwrap().set_len(4096 * (i as u64 + 1)).unwrap();
        options.push(format!("--block:block{i}={}", common::text(&path)));
    }
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    run(&mut unikernel("maxdev", &options, &[])).exits(0).is_quiet().says("maxdev: 32 networks, 31 disks\n");
}

fn the_one_that_is_missing_is_named() {
    let networks = (0..NETWORKS).map(|i| format!("--net:net{i}=t{i}"));
    let disks = (0..DISKS).filter(|i| *i != 17).map(|i| format!("--block:block{i}=/nowhere/{i}"));
    let options: Vec<_> = networks.chain(disks).collect();
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    run(&mut unikernel("maxdev", &options, &[])).is_refused(&["'block17' (BLOCK_BASIC)", "--block:block17="]);
}
