//! A unikernel of any era runs as one of today: the same tests and the same output. The eras differ
//! only in their contract with the guest.

mod access;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::common::Need::{Kvm, Net};
use crate::common::net::{Tap, echo, ping};
use crate::common::{self, Guest, Output, run, text, trial, unikernel};
use libtest_mimic::Trial;

/// An era, and the suffix of its test unikernels.
#[derive(Clone, Copy)]
struct Era {
    name: &'static str,
    suffix: &'static str,
}

const LEGACY: Era = Era {
    name: "legacy",
    suffix: "-e1",
};
const ABI1: Era = Era {
    name: "abi1",
    suffix: "-abi1",
};
const ABI2: Era = Era {
    name: "abi2",
    suffix: "",
};
const ERAS: [Era; 3] = [LEGACY, ABI1, ABI2];

pub fn tests() -> Vec<Trial> {
    let mut tests = Vec::new();
    for era in ERAS {
        let name = |test: &str| format!("{}::{test}", era.name);
        tests.extend([
            trial(&name("boots")).needs(&[Kvm]).run(move || boots(era)),
            trial(&name("memory_is_exactly_what_was_asked_for"))
                .needs(&[Kvm])
                .run(move || memory_is_exact(era)),
            trial(&name("the_longest_command_line_arrives_whole"))
                .needs(&[Kvm])
                .run(move || longest_command_line(era)),
            trial(&name("clocks_are_the_hosts"))
                .needs(&[Kvm])
                .run(move || clocks_are_the_hosts(era)),
            trial(&name("a_disk_does_all_that_it_should"))
                .needs(&[Kvm])
                .run(move || a_disk_does_all_that_it_should(era)),
            trial(&name("datagrams_and_pings_are_answered"))
                .needs(&[Kvm, Net])
                .run(move || datagrams_and_pings_are_answered(era)),
            trial(&name("a_flood_is_sent_whole"))
                .needs(&[Kvm, Net])
                .run(move || a_flood_is_sent_whole(era)),
            trial(&name("a_missing_device_is_explained"))
                .needs(&[Kvm])
                .run(move || a_missing_device_is_explained(era)),
        ]);
    }
    tests.extend([
        trial("hello_prints_the_same")
            .needs(&[Kvm])
            .run(|| print_the_same("hello", &[], &["a  b", "--net=x"])),
        trial!(clock_prints_the_same, Kvm),
        trial!(block_prints_the_same, Kvm),
        trial!(net_prints_the_same, Kvm, Net),
        trial!(a_disk_goes_from_era_to_era, Kvm),
        trial("legacy::a_partial_last_sector_is_dropped")
            .needs(&[Kvm])
            .run(a_partial_last_sector_is_dropped),
        trial("abi1::a_partial_last_sector_is_kept")
            .needs(&[Kvm])
            .run(a_partial_last_sector_is_kept),
        trial("abi2::a_disk_with_a_partial_sector_is_refused")
            .needs(&[Kvm])
            .run(a_disk_with_a_partial_sector_is_refused),
    ]);
    tests.extend(legacy_tests());
    tests
}

fn legacy_tests() -> [Trial; 5] {
    [
        trial("legacy::names_of_devices_are_explained")
            .needs(&[Kvm])
            .run(names_are_explained),
        trial("legacy::devices_that_are_not_used_do_no_harm")
            .needs(&[Kvm])
            .run(unused_devices_do_no_harm),
        trial("low_memory_is_writable_as_it_was")
            .needs(&[Kvm])
            .run(access::low_memory_is_writable_as_it_was),
        trial("code_is_not_writable")
            .needs(&[Kvm])
            .run(access::code_is_not_writable),
        trial("heap_and_stack_are_not_executable")
            .needs(&[Kvm])
            .run(access::heap_and_stack_are_not_executable),
    ]
}

/// Runs `program` of this era with 4 MiB.
fn program(era: Era, name: &str, options: &[&str], arguments: &[&str]) -> Output {
    let options: Vec<_> = options.iter().copied().chain(["--mem=4"]).collect();
    run(&mut unikernel(
        &format!("{name}{}", era.suffix),
        &options,
        arguments,
    ))
}

/// Checks that all eras print the same.
fn print_the_same(name: &str, options: &[&str], arguments: &[&str]) {
    printed_alike(|era| {
        let output = program(era, name, options, arguments);
        output.exits(0).is_quiet();
        output.stdout
    });
}

#[track_caller]
fn printed_alike(printed: impl Fn(Era) -> String) {
    let [legacy, abi1, abi2] = ERAS.map(printed);
    assert!(!abi2.is_empty());
    assert_eq!(legacy, abi2);
    assert_eq!(abi1, abi2);
}

fn boots(era: Era) {
    let output = program(era, "hello", &[], &["Hello,", "world", "--mem=1"]);
    output.exits(0).is_quiet();
    assert_eq!(
        output.stdout,
        "hello: Hello, world --mem=1\nmemory: 4194304 bytes\n"
    );
    for status in [1, 7] {
        program(era, "hello", &[], &[&format!("exit={status}")])
            .exits(status)
            .is_quiet();
    }
    program(era, "hello", &[], &["exit=255"])
        .exits(255)
        .complains("the guest aborted (status 255)");
}

fn memory_is_exact(era: Era) {
    for (size, bytes) in [("2", 2 << 20), ("64M", 64 << 20), ("4G", 4u64 << 30)] {
        let name = format!("hello{}", era.suffix);
        let output = run(&mut unikernel(&name, &[&format!("--mem={size}")], &[]));
        output
            .exits(0)
            .is_quiet()
            .prints(&format!("memory: {bytes} bytes\n"));
    }
}

fn longest_command_line(era: Era) {
    let word = "0123456789abcde ".repeat(512);
    program(era, "hello", &[], &[&word[..8191]])
        .exits(0)
        .prints(&format!("hello: {}\n", &word[..8191]));
    program(era, "hello", &[], &[&word]).is_refused(&["8192 bytes", "8191"]);
}

fn clocks_are_the_hosts(era: Era) {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let before = now();
    let output = program(era, "clock", &[], &[]);
    let after = now();
    output.exits(0).is_quiet().prints("clock: ok");
    let line = output
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("clock: walltime "));
    let walltime = Duration::from_nanos(line.expect("it prints the time").parse().unwrap());
    assert!(
        before <= walltime && walltime <= after,
        "{before:?} <= {walltime:?} <= {after:?}"
    );
}

fn clock_prints_the_same() {
    printed_alike(|era| {
        let printed = program(era, "clock", &[], &[])
            .exits(0)
            .is_quiet()
            .stdout
            .clone();
        // Without the numbers; the frequency is the host's.
        let args = printed
            .split_whitespace()
            .filter(|word| word.parse::<u64>().is_err());
        args.collect::<Vec<_>>().join(" ")
    });
}

/// A disk image of so many zero bytes, in a new directory.
fn disk(size: u64) -> (tempfile::TempDir, PathBuf) {
    let directory = common::directory();
    let path = directory.path().join("disk.img");
    File::create(&path).unwrap().set_len(size).unwrap();
    (directory, path)
}

fn attach(path: &Path) -> String {
    format!("--disk={}", text(path))
}

fn a_disk_does_all_that_it_should(era: Era) {
    let (_directory, path) = disk(64 << 10);
    let output = program(era, "block", &[&attach(&path)], &[]);
    output
        .exits(0)
        .is_quiet()
        .prints(" 65536 bytes in sectors of 512\n")
        .prints("block: 8 sectors in one call\n");
    output.prints(" are refused\n").prints("block: ok");
    program(era, "block", &[&attach(&path)], &["fill"])
        .exits(0)
        .is_quiet();
    program(era, "block", &[&attach(&path)], &["verify"])
        .exits(0)
        .is_quiet();
    let mut bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 64 << 10);
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    program(era, "block", &[&attach(&path)], &["verify"])
        .exits(255)
        .prints("sector 127 is not what was written");
}

fn block_prints_the_same() {
    let (_directory, path) = disk(1 << 20);
    print_the_same("block", &[&attach(&path)], &["fill"]);
    print_the_same("block", &[&attach(&path)], &["verify"]);
}

/// Every era reads what another has written, and each leaves the same bytes.
fn a_disk_goes_from_era_to_era() {
    let mut images = Vec::new();
    for writer in ERAS {
        let (_directory, path) = disk(1 << 20);
        program(writer, "block", &[&attach(&path)], &["fill"])
            .exits(0)
            .is_quiet();
        for reader in ERAS {
            program(reader, "block", &[&attach(&path)], &["verify"])
                .exits(0)
                .is_quiet();
        }
        images.push(fs::read(&path).unwrap());
    }
    assert!(
        images[0] == images[2] && images[1] == images[2],
        "the eras write different images"
    );
}

const WHOLE: u64 = 64 << 10;

fn a_partial_last_sector_is_dropped() {
    let (_directory, path) = disk(WHOLE + 511);
    program(LEGACY, "block", &[&attach(&path)], &[])
        .exits(0)
        .is_quiet()
        .prints(" 65536 bytes in sectors of 512\n");
    let bytes = fs::read(&path).unwrap();
    assert_eq!(
        bytes[WHOLE as usize..],
        [0; 511],
        "the last part is untouched"
    );
}

fn a_partial_last_sector_is_kept() {
    let (_directory, path) = disk(WHOLE + 511);
    let output = program(ABI1, "block", &[&attach(&path)], &[]);
    output
        .exits(0)
        .prints(" 66047 bytes in sectors of 512\n")
        .complains("warn: ")
        .complains("has 66047 bytes, not a");
    output.complains("(0.7.4 and later refuse); 'truncate -s 66048 ");
    assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    assert_eq!(fs::metadata(&path).unwrap().len(), WHOLE + 511);
}

fn a_disk_with_a_partial_sector_is_refused() {
    let (_directory, path) = disk(WHOLE + 511);
    program(ABI2, "block", &[&attach(&path)], &[]).is_refused(&[
        "66047",
        "512",
        "truncate -s 66048",
    ]);
    assert_eq!(fs::metadata(&path).unwrap().len(), WHOLE + 511);
}

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn tap() -> Tap {
    Tap::up("tap0", Ipv4Addr::new(10, 0, 0, 1))
}

const NET: [&str; 3] = ["--net=tap0", "--net-mac=02:00:00:00:00:07", "--mem=4"];

/// Runs the echo unikernel with a few datagrams and pings. Returns its output without the frame
/// counts: the host also sends frames unasked, and may repeat an ARP request.
fn exchange_with(era: Era) -> String {
    let guest = Guest::start(&mut unikernel(
        &format!("net{}", era.suffix),
        &NET,
        &["--ipv4=10.0.0.2/24"],
    ));
    guest.wait_for("net: ready\n");
    for length in [1, 18, 500, 1472] {
        echo(GUEST, &vec![length as u8; length]);
    }
    assert!(ping(GUEST, &[0xa5; 1472], 20), "a ping is answered");
    echo(GUEST, b"quit");
    let output = guest.end();
    output
        .exits(0)
        .is_quiet()
        .prints("mac 02:00:00:00:00:07, ")
        .prints("net: ok");
    let counts = |line: &&str| line.contains(" frames in, ");
    // An address, five datagrams and a ping.
    let enough = |line: &str| {
        line.split(' ')
            .nth_back(1)
            .and_then(|count| count.parse().ok())
            >= Some(7)
    };
    assert_eq!(
        output.stdout.lines().filter(counts).map(enough).min(),
        Some(true),
        "{output:?}"
    );
    output.stdout.lines().filter(|line| !counts(line)).collect()
}

fn datagrams_and_pings_are_answered(era: Era) {
    let _tap = tap();
    exchange_with(era);
}

fn net_prints_the_same() {
    let _tap = tap();
    printed_alike(exchange_with);
}

fn a_flood_is_sent_whole(era: Era) {
    let tap = tap();
    for size in ["60", "1514"] {
        let before = tap.received();
        let output = program(
            era,
            "net",
            &NET[..2],
            &["flood=300", &format!("size={size}")],
        );
        output.exits(0).is_quiet().prints(&format!(
            "net: 300 frames of {size} bytes sent, 0 refused\n"
        ));
        assert_eq!(tap.received() - before, 300);
    }
}

/// With a manifest, before the guest runs; without one, when the guest uses the missing device.
fn a_missing_device_is_explained(era: Era) {
    let [disk, net] = [
        program(era, "block", &[], &[]),
        program(era, "net", &[], &["check"]),
    ];
    if era.name == LEGACY.name {
        disk.fails(&["none is attached", "add --disk=PATH", "pc 0x"]);
        net.fails(&["none is attached", "add --net=IFACE", "pc 0x"]);
    } else {
        disk.is_refused(&["'storage'", "not attached", "add --block:storage=PATH"]);
        net.is_refused(&["'service'", "not attached", "add --net:service=IFACE"]);
    }
}

/// The host is not touched, so nothing need exist there.
fn names_are_explained() {
    for option in ["--net:service=tap0", "--net-mac:service=02:00:00:00:00:07"] {
        program(LEGACY, "net", &[option], &[]).is_refused(&[
            "'service'",
            "no names",
            "--net=IFACE",
        ]);
    }
    for option in ["--block:storage=x.img", "--block-sector-size:storage=512"] {
        program(LEGACY, "block", &[option], &[]).is_refused(&[
            "'storage'",
            "no names",
            "--disk=PATH",
        ]);
    }
}

/// An image without manifest does not declare which devices it will use.
fn unused_devices_do_no_harm() {
    let (_directory, path) = disk(512);
    program(LEGACY, "hello", &[&attach(&path)], &["x"])
        .exits(0)
        .is_quiet()
        .prints("hello: x\n");
}
