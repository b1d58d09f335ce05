//! What a run tells of itself: statistics at its end, figures on demand and for Prometheus, messages in other forms, and
//! console lines with the time.

mod common;
#[path = "common/prometheus.rs"]
mod prometheus;
#[path = "common/schema.rs"]
mod schema;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use common::net::datagram;
use common::{FD, Guest, LIMIT, Output, full_pipe, hand_over, kvm_test, kvm_test_if_possible, run, text, unikernel};
use prometheus::Scrape;
use serde_json::Value;

fn main() -> ExitCode {
    common::main(vec![
        kvm_test("every_end_has_its_statistics", every_end_has_its_statistics),
        kvm_test("every_era_has_its_statistics", every_era_has_its_statistics),
        kvm_test("devices_are_counted", devices_are_counted),
        kvm_test("time_is_told_where_it_went", time_is_told_where_it_went),
        kvm_test("statistics_on_standard_error_are_one_line", statistics_on_standard_error_are_one_line),
        kvm_test("a_file_that_cannot_be_written_is_refused", a_file_that_cannot_be_written_is_refused),
        kvm_test("a_start_that_fails_leaves_what_was_there", a_start_that_fails_leaves_what_was_there),
        kvm_test("a_full_disk_costs_the_statistics_only", a_full_disk_costs_the_statistics_only),
        kvm_test("sigusr1_tells_and_the_guest_goes_on", sigusr1_tells_and_the_guest_goes_on),
        kvm_test("sigusr1_does_not_shorten_a_sleep", sigusr1_does_not_shorten_a_sleep),
        kvm_test("sigusr1_tells_while_output_waits", sigusr1_tells_while_output_waits),
        kvm_test("sigusr1_during_a_start_does_no_harm", sigusr1_during_a_start_does_no_harm),
        kvm_test("metrics_are_served_while_the_guest_runs", metrics_are_served_while_the_guest_runs),
        kvm_test("metrics_are_served_by_name", metrics_are_served_by_name),
        kvm_test("whoever_does_not_ask_for_metrics_is_told", whoever_does_not_ask_for_metrics_is_told),
        kvm_test("a_stuck_client_holds_up_nobody_for_long", a_stuck_client_holds_up_nobody_for_long),
        kvm_test("a_stuck_client_does_not_hold_up_the_end", a_stuck_client_does_not_hold_up_the_end),
        kvm_test("a_socket_that_was_left_is_replaced", a_socket_that_was_left_is_replaced),
        kvm_test("without_a_sandbox_the_socket_goes", without_a_sandbox_the_socket_goes),
        kvm_test_if_possible("curl_gets_the_metrics", curl_gets_the_metrics),
        kvm_test("the_dashboard_asks_for_what_there_is", the_dashboard_asks_for_what_there_is),
        kvm_test("messages_come_as_json", messages_come_as_json),
        kvm_test("messages_come_with_priorities", messages_come_with_priorities),
        kvm_test("console_lines_have_the_time", console_lines_have_the_time),
    ])
}

fn hypercalls(options: &[&str], arguments: &[&str]) -> Command {
    unikernel("hypercalls", &[&["--mem=4"], options].concat(), arguments)
}

/// Statistics, which keep to the schema whatever they say.
#[track_caller]
fn parse(json: &str) -> Value {
    let schema = serde_json::from_str(include_str!("../docs/stats.schema.json")).expect("the schema is JSON");
    let document = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
    schema::check(&schema, &document);
    document
}

/// Runs a command, made for the option, to its end; its output and statistics.
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
    assert_eq!((&document["end"]["status"], &document["end"]["signal"]), (&0.into(), &Value::Null));
    let calls = &document["hypercalls"];
    // Ten of each, and the line that it begins with.
    assert_eq!([&calls["WALLTIME"], &calls["PUTS"], &calls["POLL"], &calls["HALT"]], [10, 11, 10, 1]);
    assert_eq!((&document["exits"]["hypercall"], &document["memory"]["guest_bytes"]), (&32.into(), &(4 << 20).into()));
    assert_eq!(document["console"]["written_bytes"], output.stdout.len());
    let unikernel = document["unikernel"].as_str().expect("a name");
    assert!(unikernel.ends_with("hypercalls.hvt"), "{unikernel}");

    let (output, document) = stats(|option| hypercalls(&[option], &["badptr"]));
    output.fails(&["hypercall"]);
    assert_eq!((&document["end"]["cause"], &document["end"]["status"]), (&"guest".into(), &1.into()));
    assert!(output.stderr.contains(document["end"]["message"].as_str().expect("words")), "{document:#}");

    let (output, document) = stats(|option| hypercalls(&[option, "--timeout=1"], &["spin"]));
    output.fails(&["--timeout"]);
    assert_eq!((&document["end"]["cause"], &document["end"]["status"]), (&"timeout".into(), &1.into()));
    assert!(document["exits"]["interruption"].as_u64() >= Some(1), "{document:#}");

    let directory = common::directory();
    let path = directory.path().join("stats.json");
    let mut guest = Guest::start(&mut hypercalls(&["--stats", text(&path)], &["poll-forever"]));
    guest.wait_for("poll-forever\n");
    assert_eq!(fs::metadata(&path).unwrap().len(), 0, "it is empty while the guest runs");
    guest.signal(libc::SIGINT);
    guest.end().dies_by(libc::SIGINT).is_quiet();
    let document = parse(&fs::read_to_string(path).unwrap());
    assert_eq!((&document["end"]["cause"], &document["end"]["signal"]), (&"signal".into(), &libc::SIGINT.into()));
}

fn every_era_has_its_statistics() {
    for (name, era, calls) in [("hello", "abi2", 8), ("hello-abi1", "abi1", 8), ("hello-e1", "legacy", 10)] {
        let (output, document) = stats(|option| unikernel(name, &["--mem=4", option], &[]));
        output.exits(0);
        assert_eq!(document["era"], era);
        assert_eq!(document["hypercalls"].as_object().expect("an object").len(), calls, "{name}");
        assert_eq!(document["hypercalls"]["HALT"], 1);
    }
}

/// One interface, a socket that nobody reads for long, and one disk.
fn devices_are_counted() {
    let directory = common::directory();
    let disk = directory.path().join("disk.img");
    File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let option = format!("--disk={}", text(&disk));
    let (output, document) = stats(|stats| unikernel("block", &["--mem=4", stats, &option], &["fill"]));
    output.exits(0);
    let block = &document["blocks"][0];
    assert_eq!((&block["name"], &block["path"]), (&"storage".into(), &text(&disk).into()));
    assert_eq!((&block["writes"], &document["hypercalls"]["BLOCK_WRITE"]), (&5.into(), &5.into()));
    assert!(block["written_bytes"].as_u64() >= Some(5 * 512), "{block:#}");

    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let [hello, quit] = [datagram(b"hello"), datagram(b"quit")];
    ours.send(&hello).unwrap();
    ours.send(&quit).unwrap();
    let net = format!("--net=@{FD}");
    let options = ["--net-mac=02:00:00:00:00:02", "--net-ring=off", "--mem=4", &net];
    let (output, document) = stats(|stats| {
        let options = [&options[..], &[stats]].concat();
        hand_over(unikernel("net", &options, &["--ipv4=10.0.0.2/24"]), theirs)
    });
    output.exits(0);
    let net = &document["nets"][0];
    assert_eq!((&net["name"], &net["received_frames"], &net["ring_frames"]), (&"service".into(), &2.into(), &0.into()));
    assert_eq!(net["received_bytes"], hello.len() + quit.len());
    // Its announcement, and an answer to each.
    assert_eq!((&net["sent_frames"], &document["hypercalls"]["NET_WRITE"]), (&3.into(), &3.into()));
}

/// A sleep is the guest's, whether somebody looks or not; a spinning guest has the rest.
fn time_is_told_where_it_went() {
    let (output, document) = stats(|option| unikernel("clock", &["--mem=2", option], &["poll=200000000"]));
    output.exits(0);
    let part = |document: &Value, name: &str| document["time_us"][name].as_u64().expect("it was asked for");
    assert!(part(&document, "poll") >= 200_000, "{document:#}");
    let parts = ["guest", "poll", "tender"].map(|name| part(&document, name)).iter().sum::<u64>();
    let start: u64 = document["startup_us"].as_object().expect("phases").values().map(|us| us.as_u64().unwrap()).sum();
    let wall = part(&document, "wall");
    assert!(0 < start && parts <= wall && start <= wall, "{document:#}");
    let (_, document) = stats(|option| hypercalls(&[option, "--timeout=1"], &["spin"]));
    assert!(part(&document, "guest") > 500_000 && part(&document, "poll") == 0, "{document:#}");
    let memory = &document["memory"];
    let resident = ["guest_resident_bytes", "resident_bytes"].map(|name| memory[name].as_u64().expect("/proc tells"));
    assert!(0 < resident[0] && resident[0] <= 4 << 20 && resident[0] < resident[1], "{memory:#}");
}

/// Whatever form messages have; and it is the last line.
fn statistics_on_standard_error_are_one_line() {
    for format in ["text", "json", "journald"] {
        let output = run(&mut hypercalls(&["-v", "--stats=-", &format!("--log-format={format}")], &["ok-storm", "30"]));
        output.exits(0);
        let document = parse(output.stderr.lines().next_back().expect("lines"));
        assert_eq!(document["type"], "tender.stats");
        assert_eq!(document["console"]["written_bytes"], output.stdout.len());
    }
}

fn a_file_that_cannot_be_written_is_refused() {
    let directory = common::directory();
    for (path, words) in [("/nonexistent/stats", "No such file"), (text(directory.path()), "Is a directory")] {
        run(&mut hypercalls(&["--stats", path], &["ok-storm", "3"])).is_refused(&["--stats=", path, words]);
    }
    let pipe = directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    run(&mut hypercalls(&["--stats", text(&pipe)], &["ok-storm", "3"])).is_refused(&["pipe", "No such device"]);
}

fn a_start_that_fails_leaves_what_was_there() {
    let directory = common::directory();
    let [stats, socket] = ["stats", "socket"].map(|name| directory.path().join(name));
    fs::write(&stats, "of the last run").unwrap();
    let metrics = format!("--metrics=unix:{}", text(&socket));
    let options = ["--mem=4", "--stats", text(&stats), &metrics, "--net=tender-no-such"];
    run(&mut unikernel("net", &options, &[])).is_refused(&["tender-no-such"]);
    assert_eq!(fs::read(&stats).unwrap(), b"of the last run");
    assert!(!socket.exists());
}

fn a_full_disk_costs_the_statistics_only() {
    let output = run(&mut hypercalls(&["--stats=/dev/full"], &["ok-storm", "3"]));
    output.exits(0).complains("warn: --stats=/dev/full: cannot write: No space left on device");
}

fn started(options: &[&str], kind: &str) -> Guest {
    let guest = Guest::start(&mut hypercalls(options, &[kind]));
    guest.wait_for(&format!("hypercalls: {kind}\n"));
    guest
}

fn sigusr1_tells_and_the_guest_goes_on() {
    for (kind, words) in [("spin", "1 hypercalls (1 PUTS), 0 kicks"), ("poll-forever", "2 hypercalls (1 PUTS, 1 POLL)")]
    {
        // Also with -q: it was asked for.
        let mut guest = started(&["-q"], kind);
        // Into its sleep.
        std::thread::sleep(Duration::from_millis(50));
        guest.signal(libc::SIGUSR1);
        guest.wait_for_complaint("console: ");
        guest.signal(libc::SIGUSR1);
        std::thread::sleep(Duration::from_millis(50));
        assert!(guest.is_running());
        guest.signal(libc::SIGTERM);
        let output = guest.end();
        output.dies_by(libc::SIGTERM);
        assert_eq!(output.stderr.matches(&format!("tender: info: {words}")).count(), 2, "{output:#?}");
        assert_eq!(output.stderr.lines().count(), 4, "{output:#?}");
    }
}

/// However often it comes, a sleep of a second is one, and the guest sleeps once.
fn sigusr1_does_not_shorten_a_sleep() {
    let mut guest = Guest::start(&mut unikernel("clock", &["--mem=2", "-v"], &["poll=1000000000"]));
    guest.wait_for("Hz\n");
    let since = Instant::now();
    for _ in 0..20 {
        if guest.is_running() {
            guest.signal(libc::SIGUSR1);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = guest.end();
    output.exits(0).says("clock: poll 1000000000 ns took").complains("1 POLL");
    assert!(since.elapsed() >= Duration::from_millis(900), "{:?}", since.elapsed());
    let (_, took) = output.stdout.split_once("ns took ").expect("it says");
    let took: u64 = took.split(' ').next().unwrap().trim().parse().unwrap_or_else(|_| panic!("{output:#?}"));
    assert!(took >= 1_000_000_000, "{took}");
}

/// A write that waits for its reader is no obstacle, and goes on.
fn sigusr1_tells_while_output_waits() {
    let (mut reader, writer) = full_pipe();
    let mut guest = Guest::spawn(hypercalls(&[], &["puts-flood", "10"]).stdout(writer));
    // Into the write: a moment before, it says the same.
    std::thread::sleep(Duration::from_millis(200));
    guest.signal(libc::SIGUSR1);
    guest.wait_for_complaint("1 hypercalls (1 PUTS)");
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

/// Asks for `/metrics` at the path.
#[track_caller]
fn scrape(path: &Path) -> Scrape {
    let response = request(UnixStream::connect(path).unwrap(), "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    Scrape::parse(body(&response))
}

fn request(mut stream: UnixStream, request: &str) -> String {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// The body of a good answer, as long as its header says.
#[track_caller]
fn body(response: &str) -> &str {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{response:?}"));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    body
}

/// A guest whose metrics are served at `socket` in the directory.
fn served(directory: &Path, options: &[&str], kind: &str) -> Guest {
    let metrics = format!("--metrics=unix:{}", text(&directory.join("socket")));
    started(&[&[&*metrics], options].concat(), kind)
}

fn metrics_are_served_while_the_guest_runs() {
    let directory = common::directory();
    let socket = directory.path().join("socket");
    let mut guest = served(directory.path(), &[], "poll-forever");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let first = scrape(&socket);
    assert_eq!(first.value("tender_hypercalls_total", &[("call", "PUTS")]), 1.0);
    assert_eq!(first.value("tender_guest_memory_bytes", &[]), f64::from(4 << 20));
    assert_eq!(first.value("tender_console_written_bytes_total", &[]), 25.0);
    let resident = first.value("tender_guest_resident_bytes", &[]);
    assert!(resident > 0.0 && resident < first.value("tender_resident_bytes", &[]), "{resident}");
    let info = first.labels("tender_info");
    assert_eq!((info["era"].as_str(), info["architecture"].as_str()), ("abi2", std::env::consts::ARCH));
    std::thread::sleep(Duration::from_millis(100));
    let second = scrape(&socket);
    let asleep = |scrape: &Scrape| scrape.value("tender_time_seconds_total", &[("in", "poll")]);
    assert!(asleep(&second) >= asleep(&first) + 0.1, "a sleep is counted while it lasts");
    second.is_no_less_than(&first);
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
}

/// A name without a file, in this network namespace.
fn metrics_are_served_by_name() {
    let name = format!("tender-observe-{}", std::process::id());
    let mut guest = started(&[&format!("--metrics=unix:@{name}")], "spin");
    let stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let scrape = Scrape::parse(body(&request(stream, "GET /metrics HTTP/1.0\r\n\r\n")));
    assert!(scrape.value("tender_time_seconds_total", &[("in", "guest")]) > 0.0);
    run(&mut hypercalls(&[&format!("--metrics=unix:@{name}")], &["spin"])).is_refused(&["somebody listens there"]);
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
}

fn whoever_does_not_ask_for_metrics_is_told() {
    let directory = common::directory();
    let socket = directory.path().join("socket");
    let mut guest = served(directory.path(), &[], "spin");
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(30_000));
    for (question, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("nonsense\r\n\r\n", "400 Bad Request"),
        (&long, "431 Request Header Fields Too Large"),
    ] {
        let response = request(UnixStream::connect(&socket).unwrap(), question);
        assert!(response.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{response}");
    }
    let head = request(UnixStream::connect(&socket).unwrap(), "HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    // Those who say nothing, and those who do not listen.
    for _ in 0..50 {
        drop(UnixStream::connect(&socket).unwrap());
        let mut stream = UnixStream::connect(&socket).unwrap();
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
        let _ = stream.shutdown(Shutdown::Read);
    }
    assert!(scrape(&socket).value("tender_info", &[]) == 1.0);
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
}

/// One that says half of what it wants is told that it is too late; the next is answered, and the guest went on.
fn a_stuck_client_holds_up_nobody_for_long() {
    let directory = common::directory();
    let socket = directory.path().join("socket");
    let metrics = format!("--metrics=unix:{}", text(&socket));
    let mut guest = Guest::start(&mut hypercalls(&[&metrics], &["ok-storm", "1000000000"]));
    guest.wait_for("ok-storm");
    let before = scrape(&socket);
    let mut stuck = UnixStream::connect(&socket).unwrap();
    stuck.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    let after = scrape(&socket);
    let calls = |scrape: &Scrape| scrape.value("tender_exits_total", &[("kind", "hypercall")]);
    assert!(calls(&after) > calls(&before));
    let mut response = String::new();
    stuck.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{response}");
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM);
}

/// Neither one that says nothing nor those that wait behind it; they get no answer.
fn a_stuck_client_does_not_hold_up_the_end() {
    let directory = common::directory();
    let socket = directory.path().join("socket");
    let mut guest = served(directory.path(), &["--stats=-"], "poll-forever");
    let mut stuck = [(); 3].map(|()| UnixStream::connect(&socket).unwrap());
    std::thread::sleep(Duration::from_millis(50));
    guest.signal(libc::SIGTERM);
    let output = guest.end();
    output.dies_by(libc::SIGTERM);
    assert_eq!(parse(&output.stderr)["end"]["cause"], "signal");
    for stream in &mut stuck {
        // Nothing, or an end by force.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty());
    }
}

fn a_socket_that_was_left_is_replaced() {
    let directory = common::directory();
    let socket = directory.path().join("socket");
    for _ in 0..2 {
        let mut guest = served(directory.path(), &[], "spin");
        let metrics = format!("--metrics=unix:{}", text(&socket));
        run(&mut hypercalls(&[&metrics], &["spin"])).is_refused(&[text(&socket), "somebody listens there"]);
        assert_eq!(scrape(&socket).value("tender_info", &[]), 1.0);
        guest.signal(libc::SIGKILL);
        guest.end().dies_by(libc::SIGKILL);
        assert!(socket.exists());
    }
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "mine").unwrap();
    let metrics = format!("--metrics=unix:{}", text(&socket));
    run(&mut hypercalls(&[&metrics], &["spin"])).is_refused(&[text(&socket), "this is a file"]);
    assert_eq!(fs::read(&socket).unwrap(), b"mine");
    fs::remove_file(&socket).unwrap();
    let _theirs = UnixListener::bind(&socket).unwrap();
    run(&mut hypercalls(&[&metrics], &["spin"])).is_refused(&["somebody listens there"]);
}

fn without_a_sandbox_the_socket_goes() {
    let directory = common::directory();
    for (mode, left) in [("best-effort", true), ("off", false)] {
        let mut guest = served(directory.path(), &[&format!("--sandbox={mode}")], "spin");
        guest.signal(libc::SIGTERM);
        guest.end().dies_by(libc::SIGTERM).is_quiet();
        assert_eq!(directory.path().join("socket").exists(), left, "{mode}");
    }
}

fn curl_gets_the_metrics() -> Result<(), String> {
    let curl = |socket: &Path| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "30", "--unix-socket"]);
        curl.arg(socket).arg("http://localhost/metrics").output()
    };
    let directory = common::directory();
    let mut guest = served(directory.path(), &[], "poll-forever");
    let output = curl(&directory.path().join("socket")).map_err(|error| format!("no curl: {error}"))?;
    assert!(output.status.success(), "{output:?}");
    let scrape = Scrape::parse(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(scrape.value("tender_hypercalls_total", &[("call", "POLL")]), 1.0);
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
    Ok(())
}

/// Every name in the dashboard is one that is served, and every panel asks for something.
fn the_dashboard_asks_for_what_there_is() {
    let dashboard: Value = serde_json::from_str(include_str!("../packaging/grafana/tender.json")).expect("JSON");
    let directory = common::directory();
    let mut guest = served(directory.path(), &[], "poll-forever");
    let scrape = scrape(&directory.path().join("socket"));
    let names: Vec<_> = scrape.names().collect();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let targets = panel["targets"].as_array().unwrap_or_else(|| panic!("{panel:#}"));
        assert!(!targets.is_empty(), "{panel:#}");
        queries.extend(targets.iter().map(|target| target["expr"].as_str().expect("a query")));
    }
    let variables = dashboard["templating"]["list"].as_array().expect("variables").iter();
    queries.extend(variables.filter_map(|variable| variable["definition"].as_str()));
    let mut asked = 0;
    for query in queries {
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("tender_")) {
            assert!(names.contains(&name), "{name} in {query}: {names:?}");
            asked += 1;
        }
    }
    assert!(asked > 10, "{asked}");
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM);
}

/// Every line, that of the error which ends it included.
fn messages_come_as_json() {
    let output = run(&mut hypercalls(&["-v", "--log-format=json"], &["badptr"]));
    output.exits(1);
    let lines: Vec<Value> = output.stderr.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for line in &lines {
        let members: Vec<_> = line.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(members, ["level", "message", "ts"], "{line}");
    }
    assert!(lines.len() > 3 && lines[0]["level"] == "info", "{output:#?}");
    let last = &lines[lines.len() - 1];
    assert_eq!(last["level"], "error");
    assert!(last["message"].as_str().expect("words").starts_with(text(&common::fixture("hypercalls"))), "{last}");
}

fn messages_come_with_priorities() {
    let output = run(&mut hypercalls(&["-v", "--console-rate=1K", "--log-format=journald"], &["puts-flood", "500"]));
    output.exits(0).complains("<4>tender: warn: console: ").complains("<6>tender: info: ");
    assert!(output.stderr.lines().all(|line| line.starts_with("<4>") || line.starts_with("<6>")), "{output:#?}");
    let output = run(&mut hypercalls(&["--log-format=journald"], &["badptr"]));
    output.exits(1);
    assert!(output.stderr.starts_with("<3>tender: ") && output.stderr.lines().count() == 1, "{output:#?}");
}

fn console_lines_have_the_time() {
    let plain = run(&mut hypercalls(&[], &["puts-flood", "20"]));
    let stamped = run(&mut hypercalls(&["--console-timestamps"], &["puts-flood", "20"]));
    stamped.exits(0).is_quiet();
    let text: String = stamped
        .stdout
        .split_inclusive('\n')
        .map(|line| {
            let (stamp, text) = line.split_at_checked("2026-11-25T16:17:26.123456Z ".len()).expect("a stamp");
            assert!(stamp.starts_with("20") && stamp.ends_with("Z "), "{line:?}");
            text
        })
        .collect();
    assert_eq!(text, plain.stdout);
}
