//! Statistics at the end of a run.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::common::Need::Kvm;
use crate::common::net::datagram;
use crate::common::{self, FD, Guest, Output, pass_fd, run, text, unikernel};
use crate::observe::{hypercalls, parse};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(every_end_has_its_statistics, Kvm),
        trial!(every_era_has_its_statistics, Kvm),
        trial!(devices_are_counted, Kvm),
        trial!(time_is_accounted_by_its_use, Kvm),
        trial!(statistics_on_standard_error_are_one_line, Kvm),
        trial!(a_file_that_cannot_be_written_is_refused, Kvm),
        trial!(a_start_that_fails_keeps_the_old_file, Kvm),
        trial!(a_full_disk_loses_only_the_statistics, Kvm),
    ]
}

/// Runs a command, made for the option, to its end; returns its output and statistics.
#[track_caller]
fn stats(make: impl FnOnce(&str) -> Command) -> (Output, Value) {
    let directory = common::directory();
    let path = directory.path().join("stats.json");
    let output = run(&mut make(&format!("--stats={}", text(&path))));
    (output, parse(&fs::read_to_string(path).unwrap()))
}

fn every_end_has_its_statistics() {
    let (output, document) = stats(|option| hypercalls(&[option], &["ok-storm", "30"]));
    output.exits(0).is_quiet();
    assert_eq!(document["end"]["cause"], "halt");
    assert_eq!(
        (&document["end"]["status"], &document["end"]["signal"]),
        (&0.into(), &Value::Null)
    );
    let calls = &document["hypercalls"];
    // Ten of each, and the guest's first line.
    assert_eq!(
        [
            &calls["WALLTIME"],
            &calls["PUTS"],
            &calls["POLL"],
            &calls["HALT"]
        ],
        [10, 11, 10, 1]
    );
    assert_eq!(
        (
            &document["exits"]["hypercall"],
            &document["memory"]["guest_bytes"]
        ),
        (&32.into(), &(4 << 20).into())
    );
    assert_eq!(document["console"]["written_bytes"], output.stdout.len());
    let unikernel = document["unikernel"].as_str().expect("a name");
    assert!(unikernel.ends_with("hypercalls.hvt"), "{unikernel}");

    let (output, document) = stats(|option| hypercalls(&[option], &["badptr"]));
    output.fails(&["hypercall"]);
    assert_eq!(
        (&document["end"]["cause"], &document["end"]["status"]),
        (&"guest".into(), &1.into())
    );
    assert!(
        output
            .stderr
            .contains(document["end"]["message"].as_str().expect("a text")),
        "{document:#}"
    );

    let (output, document) = stats(|option| hypercalls(&[option, "--timeout=1"], &["spin"]));
    output.fails(&["--timeout"]);
    assert_eq!(
        (&document["end"]["cause"], &document["end"]["status"]),
        (&"timeout".into(), &1.into())
    );
    assert!(
        document["exits"]["interruption"].as_u64() >= Some(1),
        "{document:#}"
    );

    let directory = common::directory();
    let path = directory.path().join("stats.json");
    let mut guest = Guest::start(&mut hypercalls(
        &["--stats", text(&path)],
        &["poll-forever"],
    ));
    guest.wait_for("poll-forever\n");
    assert_eq!(
        fs::metadata(&path).unwrap().len(),
        0,
        "it is empty while the guest runs"
    );
    guest.signal(libc::SIGINT);
    guest.end().dies_by(libc::SIGINT).is_quiet();
    let document = parse(&fs::read_to_string(path).unwrap());
    assert_eq!(
        (&document["end"]["cause"], &document["end"]["signal"]),
        (&"signal".into(), &libc::SIGINT.into())
    );
}

fn every_era_has_its_statistics() {
    for (name, era, calls) in [
        ("hello", "abi2", 8),
        ("hello-abi1", "abi1", 8),
        ("hello-e1", "legacy", 10),
    ] {
        let (output, document) = stats(|option| unikernel(name, &["--mem=4", option], &[]));
        output.exits(0);
        assert_eq!(document["era"], era);
        assert_eq!(document["engine"], common::engine());
        assert_eq!(
            document["hypercalls"].as_object().expect("an object").len(),
            calls,
            "{name}"
        );
        assert_eq!(document["hypercalls"]["HALT"], 1);
    }
}

/// One interface, a socket whose reader is slow, and one disk.
fn devices_are_counted() {
    let directory = common::directory();
    let disk = directory.path().join("disk.img");
    File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let option = format!("--disk={}", text(&disk));
    let (output, document) =
        stats(|stats| unikernel("block", &["--mem=4", stats, &option], &["fill"]));
    output.exits(0);
    let block = &document["blocks"][0];
    assert_eq!(
        (&block["name"], &block["path"]),
        (&"storage".into(), &text(&disk).into())
    );
    assert_eq!(
        (&block["writes"], &document["hypercalls"]["BLOCK_WRITE"]),
        (&5.into(), &5.into())
    );
    assert!(
        block["written_bytes"].as_u64() >= Some(5 * 512),
        "{block:#}"
    );

    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let [hello, quit] = [datagram(b"hello"), datagram(b"quit")];
    ours.send(&hello).unwrap();
    ours.send(&quit).unwrap();
    let net = format!("--net=@{FD}");
    let options = [
        "--net-mac=02:00:00:00:00:02",
        "--net-ring=off",
        "--mem=4",
        &net,
    ];
    let (output, document) = stats(|stats| {
        let options = [&options[..], &[stats]].concat();
        pass_fd(unikernel("net", &options, &["--ipv4=10.0.0.2/24"]), theirs)
    });
    output.exits(0);
    let net = &document["nets"][0];
    assert_eq!(
        (&net["name"], &net["received_frames"], &net["ring_frames"]),
        (&"service".into(), &2.into(), &0.into())
    );
    assert_eq!(net["received_bytes"], hello.len() + quit.len());
    // Its announcement, and an answer to each.
    assert_eq!(
        (&net["sent_frames"], &document["hypercalls"]["NET_WRITE"]),
        (&3.into(), &3.into())
    );
}

/// Sleeping time is the guest's, even while statistics are read; a spinning guest has the rest.
fn time_is_accounted_by_its_use() {
    let (output, document) =
        stats(|option| unikernel("clock", &["--mem=2", option], &["poll=200000000"]));
    output.exits(0);
    let part = |document: &Value, name: &str| {
        document["time_us"][name]
            .as_u64()
            .expect("it was asked for")
    };
    assert!(part(&document, "poll") >= 200_000, "{document:#}");
    let parts = ["guest", "poll", "tender"]
        .map(|name| part(&document, name))
        .iter()
        .sum::<u64>();
    let start: u64 = document["startup_us"]
        .as_object()
        .expect("phases")
        .values()
        .map(|us| us.as_u64().unwrap())
        .sum();
    let wall = part(&document, "wall");
    assert!(0 < start && parts <= wall && start <= wall, "{document:#}");
    let (_, document) = stats(|option| hypercalls(&[option, "--timeout=1"], &["spin"]));
    assert!(
        part(&document, "guest") > 500_000 && part(&document, "poll") == 0,
        "{document:#}"
    );
    let memory = &document["memory"];
    let resident = ["guest_resident_bytes", "resident_bytes"]
        .map(|name| memory[name].as_u64().expect("/proc has it"));
    assert!(
        0 < resident[0] && resident[0] <= 4 << 20 && resident[0] < resident[1],
        "{memory:#}"
    );
}

/// For every message format; it is the last line.
fn statistics_on_standard_error_are_one_line() {
    for format in ["text", "json", "journald"] {
        let output = run(&mut hypercalls(
            &["-v", "--stats=-", &format!("--log-format={format}")],
            &["ok-storm", "30"],
        ));
        output.exits(0);
        let document = parse(output.stderr.lines().next_back().expect("lines"));
        assert_eq!(document["type"], "tender.stats");
        assert_eq!(document["console"]["written_bytes"], output.stdout.len());
    }
}

fn a_file_that_cannot_be_written_is_refused() {
    let directory = common::directory();
    for (path, args) in [
        ("/nonexistent/stats", "No such file"),
        (text(directory.path()), "Is a directory"),
    ] {
        run(&mut hypercalls(&["--stats", path], &["ok-storm", "3"]))
            .is_refused(&["--stats=", path, args]);
    }
    let pipe = directory.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    run(&mut hypercalls(
        &["--stats", text(&pipe)],
        &["ok-storm", "3"],
    ))
    .is_refused(&["pipe", "No such device"]);
}

fn a_start_that_fails_keeps_the_old_file() {
    let directory = common::directory();
    let [stats, socket] = ["stats", "socket"].map(|name| directory.path().join(name));
    fs::write(&stats, "of the last run").unwrap();
    let metrics = format!("--metrics=unix:{}", text(&socket));
    let options = [
        "--mem=4",
        "--stats",
        text(&stats),
        &metrics,
        "--net=tender-no-such",
    ];
    run(&mut unikernel("net", &options, &[])).is_refused(&["tender-no-such"]);
    assert_eq!(fs::read(&stats).unwrap(), b"of the last run");
    assert!(!socket.exists());
    fs::remove_file(&stats).unwrap();
    run(&mut unikernel("net", &options, &[])).is_refused(&["tender-no-such"]);
    assert!(!stats.exists());
}

fn a_full_disk_loses_only_the_statistics() {
    let output = run(&mut hypercalls(&["--stats=/dev/full"], &["ok-storm", "3"]));
    output
        .exits(0)
        .complains("warn: --stats=/dev/full: cannot write: No space left on device");
}
