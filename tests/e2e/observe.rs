//! Observing a run: statistics at its end and on demand, messages in other formats, and console
//! lines with timestamps.

mod statistics;

use std::fs;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::common::Need::{Kvm, Net};
use crate::common::net::Tap;
use crate::common::{self, Guest, LIMIT, full_pipe, run, schema, tender, text, unikernel};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        trial!(sigusr1_prints_statistics_and_the_guest_continues, Kvm),
        trial!(sigusr1_does_not_shorten_a_sleep, Kvm),
        trial!(sigusr1_prints_statistics_while_output_waits, Kvm),
        trial!(sigusr1_during_a_start_does_no_harm, Kvm),
        trial!(messages_are_json, Kvm),
        trial!(json_names_device_and_cause, Kvm),
        trial!(json_so_far_names_devices, Kvm, Net),
        trial!(a_run_has_a_name, Kvm),
        trial!(messages_have_priorities, Kvm),
        trial!(console_lines_have_timestamps, Kvm),
    ];
    tests.extend(statistics::tests());
    tests
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
        let engine = common::engine();
        ask_until(
            &mut guest,
            &format!("tender: info: so far: engine {engine}, {args}"),
        );
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
                .all(|line| line.starts_with("tender: info: so far: ")),
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
        let known = ["cause", "device", "level", "message", "name", "pid", "ts"];
        assert!(
            members.iter().all(|member| known.contains(member)),
            "{line}"
        );
        assert_eq!(line["name"], "hypercalls", "{line}");
        assert_eq!(line["pid"], lines[0]["pid"], "{line}");
    }
    assert!(
        lines.len() > 3 && lines[0]["level"] == "info",
        "{output:#?}"
    );
    for line in output.stderr.lines() {
        let places = [
            r#"{"ts": ""#,
            r#", "level": ""#,
            r#", "message": ""#,
            r#", "name": ""#,
        ]
        .map(|part| line.find(part));
        assert!(places[0] == Some(0) && places.is_sorted(), "{line}");
    }
    let last = &lines[lines.len() - 1];
    assert_eq!(last["cause"], "guest");
    assert_eq!(last["level"], "error");
    assert!(
        last["message"]
            .as_str()
            .expect("a text")
            .starts_with(text(&common::fixture("hypercalls"))),
        "{last}"
    );
}

/// Returns the JSON lines on stderr.
#[track_caller]
fn lines(output: &common::Output) -> Vec<Value> {
    let lines = output.stderr.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn json_names_device_and_cause() {
    let directory = common::directory();
    let image = directory.path().join("data.img");
    fs::write(&image, [0; 4096]).unwrap();
    let block = |path: &Path| {
        let option = format!("--block:storage={}", text(path));
        let options = ["-v", "--log-format=json", "--mem=4", &option];
        run(&mut common::unikernel("block", &options, &["nothing"]))
    };
    let lines_of_run = lines(&block(&image));
    let about = |beginning: &str| {
        let mut found = lines_of_run.iter().filter(|line| {
            let message = line["message"].as_str().unwrap();
            message.starts_with(beginning)
        });
        found
            .next()
            .unwrap_or_else(|| panic!("{beginning}: {lines_of_run:#?}"))
    };
    assert_eq!(about("device 'storage': ")["device"], "storage");
    assert_eq!(about(&format!("{}: ", text(&image)))["device"], "storage");
    assert!(about("sandbox: ")["device"].is_null());
    let failed = lines(&block(&directory.path().join("none")));
    let last = failed.last().unwrap();
    assert_eq!(
        (&last["level"], &last["device"], &last["cause"]),
        (&"error".into(), &"storage".into(), &"start".into()),
        "{last}"
    );
    let output = run(&mut tender(["--log-format=json", "x: device 'fake': .hvt"]));
    let last = lines(&output).pop().unwrap();
    assert_eq!(
        (&last["device"], &last["cause"]),
        (&Value::Null, &"start".into()),
        "{last}"
    );
    let output = run(&mut hypercalls(
        &["--console-rate=1K", "--log-format=json"],
        &["puts-flood", "500"],
    ));
    assert_eq!(lines(&output)[0]["cause"], "excess", "{output:#?}");
}

/// Of the lines of SIGUSR1, those about a device name it.
fn json_so_far_names_devices() {
    let directory = common::directory();
    let image = directory.path().join("data.img");
    fs::write(&image, [0; 4096]).unwrap();
    let _tap = Tap::up("tap0", Ipv4Addr::new(10, 0, 0, 1));
    for (program, device, source, arguments, first_line) in [
        (
            "block",
            "block:storage",
            text(&image),
            "numbered=1000000000",
            "wrote 1\n",
        ),
        ("net", "net:service", "tap0", "--ipv4=10.0.0.2/24", "net: "),
    ] {
        let option = format!("--{device}={source}");
        let options = ["-q", "--log-format=json", "--mem=4", &option];
        let mut guest = Guest::start(&mut common::unikernel(program, &options, &[arguments]));
        guest.wait_for(first_line);
        let beginning = format!("so far: {source}: ");
        ask_until(&mut guest, &beginning);
        guest.signal(libc::SIGKILL);
        let (_, name) = device.split_once(':').unwrap();
        for line in lines(&guest.end()) {
            let is_about_it = line["message"].as_str().unwrap().starts_with(&beginning);
            assert_eq!(
                line["device"].as_str(),
                is_about_it.then_some(name),
                "{line}"
            );
        }
    }
}

/// Its first 15 bytes are the process title.
fn a_run_has_a_name() {
    let name = "the \"web\" of 2026";
    for (option, expected, title) in [
        (Some(name), name, "the \"web\" of 20"),
        (None, "hypercalls", "tender"),
    ] {
        let option = option.map(|name| format!("--name={name}"));
        let options: Vec<&str> = ["-v", "--log-format=json", "--stats=-"]
            .into_iter()
            .chain(option.as_deref())
            .collect();
        let mut guest = started(&options, "poll-forever");
        let comm = fs::read_to_string(format!("/proc/{}/comm", guest.pid())).unwrap();
        assert_eq!(comm.trim_end(), title);
        guest.signal(libc::SIGTERM);
        let output = guest.end();
        for line in lines(&output) {
            assert_eq!(line["name"], expected, "{line}");
        }
    }
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
