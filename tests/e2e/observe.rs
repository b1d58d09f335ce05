//! Observing a run: statistics at its end and on demand, messages in other formats, and console
//! lines with timestamps.

use crate::common::Need::Kvm;
use crate::common::{
    self, FD, Guest, LIMIT, Output, full_pipe, pass_fd, run, schema, tender, text, unikernel,
};
use libtest_mimic::Trial;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::net::datagram;
use serde_json::Value;

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
        trial!(sigusr1_prints_statistics_and_the_guest_continues, Kvm),
        trial!(sigusr1_does_not_shorten_a_sleep, Kvm),
        trial!(sigusr1_prints_statistics_while_output_waits, Kvm),
        trial!(sigusr1_during_a_start_does_no_harm, Kvm),
        trial!(messages_are_json, Kvm),
        trial!(messages_have_priorities, Kvm),
        trial!(console_lines_have_timestamps, Kvm),
    ]
}

fn hypercalls(options: &[&str], arguments: &[&str]) -> Command {
    unikernel("hypercalls", &[&["--mem=4"], options].concat(), arguments)
}

/// Parses statistics and checks them against the schema.
#[track_caller]
fn parse(json: &str) -> Value {
    let schema = serde_json::from_str(include_str!("../../docs/stats.schema.json"))
        .expect("the schema is JSON");
    let document = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
    schema::check(&schema, &document);
    document
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

fn started(options: &[&str], kind: &str) -> Guest {
    let guest = Guest::start(&mut hypercalls(options, &[kind]));
    guest.wait_for(&format!("hypercalls: {kind}\n"));
    guest
}

/// Sends SIGUSR1 until `tender` has logged `args`: the guest may not have got that far yet.
#[track_caller]
fn ask_until(guest: &mut Guest, args: &str) {
    let deadline = Instant::now() + LIMIT;
    while !guest.messages().contains(args) {
        assert!(
            Instant::now() < deadline,
            "no {args:?}: {}",
            guest.messages()
        );
        guest.signal(libc::SIGUSR1);
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn sigusr1_prints_statistics_and_the_guest_continues() {
    for (kind, args) in [
        ("spin", "1 hypercall (1 PUTS), 0 kicks"),
        ("poll-forever", "2 hypercalls (1 PUTS, 1 POLL)"),
    ] {
        // Also with -q, as the operator asked for it.
        let mut guest = started(&["-q"], kind);
        ask_until(&mut guest, &format!("tender: info: {args}"));
        ask_until(
            &mut guest,
            &format!(
                "console: {} bytes written",
                "hypercalls: \n".len() + kind.len()
            ),
        );
        assert!(guest.is_running());
        guest.signal(libc::SIGTERM);
        let output = guest.end();
        output.dies_by(libc::SIGTERM);
        assert!(
            output
                .stderr
                .lines()
                .all(|line| line.starts_with("tender: info: ")),
            "{output:#?}"
        );
    }
}

/// Any number of signals: a sleep of a second stays one second, and counts as one.
fn sigusr1_does_not_shorten_a_sleep() {
    let since = Instant::now();
    let mut guest = Guest::start(&mut unikernel(
        "clock",
        &["--mem=2", "-v"],
        &["poll=1000000000"],
    ));
    guest.wait_for("Hz\n");
    for _ in 0..20 {
        if guest.is_running() {
            guest.signal(libc::SIGUSR1);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = guest.end();
    output
        .exits(0)
        .prints("clock: poll 1000000000 ns took")
        .complains("1 POLL");
    assert!(
        since.elapsed() >= Duration::from_secs(1),
        "{:?}",
        since.elapsed()
    );
    let (_, took) = output.stdout.split_once("ns took ").expect("a duration");
    let took: u64 = took
        .split(' ')
        .next()
        .unwrap()
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("{output:#?}"));
    assert!(took >= 1_000_000_000, "{took}");
}

/// A write that waits for its reader does not prevent it, and continues.
fn sigusr1_prints_statistics_while_output_waits() {
    let (mut reader, writer) = full_pipe();
    let mut guest = Guest::spawn(hypercalls(&["-v"], &["puts-flood", "10"]).stdout(writer));
    guest.wait_for_complaint("sandbox: ");
    ask_until(&mut guest, "1 hypercall (1 PUTS)");
    let all = std::thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).map(|_| all)
    });
    guest.end().exits(0);
    let all = all.join().unwrap().unwrap();
    let flood: String = (0..10).map(|i| format!("flood {i}\n")).collect();
    assert!(String::from_utf8_lossy(&all).ends_with(&format!("hypercalls: puts-flood\n{flood}")));
}

fn sigusr1_during_a_start_does_no_harm() {
    for _ in 0..10 {
        let mut guest = Guest::start(&mut hypercalls(&["-v"], &["poll-forever"]));
        guest.wait_for_complaint("MiB of memory");
        guest.signal(libc::SIGUSR1);
        guest.wait_for("poll-forever\n");
        guest.signal(libc::SIGTERM);
        guest.end().dies_by(libc::SIGTERM);
    }
}

/// Every line, including the error that ends the run.
fn messages_are_json() {
    for options in [
        &["--log-format=json", "--bad"][..],
        &["--bad", "--log-format", "json"],
    ] {
        let output = run(&mut hypercalls(options, &["badptr"]));
        let line: Value =
            serde_json::from_str(&output.exits(1).stderr).expect("a usage error is JSON too");
        assert!(
            line["message"].as_str().expect("a text").contains("--bad"),
            "{line}"
        );
    }
    let output = run(&mut tender(["--mem", "--log-format=json", "x.hvt"]));
    let line: Value = serde_json::from_str(&output.exits(1).stderr)
        .expect("a missing value does not hide the form");
    assert_eq!(line["message"], "option '--mem' needs a value: --mem=SIZE");
    let output = run(&mut hypercalls(&["-v", "--log-format=json"], &["badptr"]));
    output.exits(1);
    let lines: Vec<Value> = output
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    for line in &lines {
        let members: Vec<_> = line
            .as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(members, ["level", "message", "ts"], "{line}");
    }
    assert!(
        lines.len() > 3 && lines[0]["level"] == "info",
        "{output:#?}"
    );
    let last = &lines[lines.len() - 1];
    assert_eq!(last["level"], "error");
    assert!(
        last["message"]
            .as_str()
            .expect("a text")
            .starts_with(text(&common::fixture("hypercalls"))),
        "{last}"
    );
}

fn messages_have_priorities() {
    let output = run(&mut hypercalls(
        &["-v", "--console-rate=1K", "--log-format=journald"],
        &["puts-flood", "500"],
    ));
    output
        .exits(0)
        .complains("<4>tender: warn: console: ")
        .complains("<6>tender: info: ");
    assert!(
        output
            .stderr
            .lines()
            .all(|line| line.starts_with("<4>") || line.starts_with("<6>")),
        "{output:#?}"
    );
    let output = run(&mut hypercalls(&["--log-format=journald"], &["badptr"]));
    output.exits(1);
    assert!(
        output.stderr.starts_with("<3>tender: ") && output.stderr.lines().count() == 1,
        "{output:#?}"
    );
}

fn console_lines_have_timestamps() {
    let plain = run(&mut hypercalls(&[], &["puts-flood", "20"]));
    let stamped = run(&mut hypercalls(
        &["--console-timestamps"],
        &["puts-flood", "20"],
    ));
    stamped.exits(0).is_quiet();
    let text: String = stamped
        .stdout
        .split_inclusive('\n')
        .map(|line| {
            let (stamp, text) = line
                .split_at_checked("2026-11-25T16:17:26.123456Z ".len())
                .expect("a stamp");
            assert!(stamp.starts_with("20") && stamp.ends_with("Z "), "{line:?}");
            text
        })
        .collect();
    assert_eq!(text, plain.stdout);
}
