//! `--metrics`: what is served, to which clients, and that no client can block a guest.

mod clients;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use prometheus::Scrape;
use serde_json::Value;

use crate::common::Need::Kvm;
use crate::common::{self, Guest, LIMIT, prometheus, refuse, run, text, trial, unikernel};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        trial!(metrics_are_served_while_the_guest_runs, Kvm),
        trial!(metrics_are_served_by_name, Kvm),
        trial!(other_requests_get_an_error, Kvm),
        trial!(a_host_that_cannot_wait_ends_only_the_service, Kvm),
        trial!(a_stale_socket_is_replaced, Kvm),
        trial!(without_a_sandbox_the_socket_is_removed, Kvm),
        trial("curl_gets_the_metrics")
            .needs(&[Kvm])
            .try_run(curl_gets_the_metrics),
        trial!(the_dashboard_uses_existing_metrics, Kvm),
    ];
    tests.extend(clients::tests());
    tests
}

fn hypercalls(options: &[&str], arguments: &[&str]) -> Command {
    unikernel("hypercalls", &[&["--mem=4"], options].concat(), arguments)
}

fn started(options: &[&str], kind: &str) -> Guest {
    let guest = Guest::start(&mut hypercalls(options, &[kind]));
    guest.wait_for(&format!("hypercalls: {kind}\n"));
    guest
}

/// Requests `/metrics` at the path.
#[track_caller]
fn scrape(path: &Path) -> Scrape {
    let response = request(
        UnixStream::connect(path).unwrap(),
        "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    Scrape::parse(body(&response))
}

/// As `scrape`, once the guest sleeps: by then all that it did is counted.
#[track_caller]
fn scrape_asleep(path: &Path) -> Scrape {
    let deadline = Instant::now() + LIMIT;
    loop {
        let scrape = scrape(path);
        if scrape.value("tender_hypercalls_total", &[("call", "POLL")]) > 0.0 {
            return scrape;
        }
        assert!(Instant::now() < deadline, "the guest does not sleep");
    }
}

fn request(mut stream: UnixStream, request: &str) -> String {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// Returns the body of a successful response, whose length its header has.
#[track_caller]
fn body(response: &str) -> &str {
    let (head, body) = response
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{response:?}"));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{head}"
    );
    assert!(
        head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
        "{head}"
    );
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
    assert_eq!(
        fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let first = scrape_asleep(&socket);
    assert_eq!(
        first.value("tender_hypercalls_total", &[("call", "PUTS")]),
        1.0
    );
    assert_eq!(
        first.value("tender_guest_memory_bytes", &[]),
        f64::from(4 << 20)
    );
    assert_eq!(first.value("tender_console_written_bytes_total", &[]), 25.0);
    let resident = first.value("tender_guest_resident_bytes", &[]);
    assert!(
        resident > 0.0 && resident < first.value("tender_resident_bytes", &[]),
        "{resident}"
    );
    let info = first.labels("tender_info");
    assert_eq!(
        (
            info["name"].as_str(),
            info["era"].as_str(),
            info["engine"].as_str(),
            info["architecture"].as_str()
        ),
        (
            "hypercalls",
            "abi2",
            common::engine(),
            std::env::consts::ARCH
        )
    );
    std::thread::sleep(Duration::from_millis(100));
    let second = scrape(&socket);
    let asleep = |scrape: &Scrape| scrape.value("tender_time_seconds_total", &[("in", "poll")]);
    assert!(
        asleep(&second) >= asleep(&first) + 0.1,
        "a sleep is counted while it lasts"
    );
    second.is_no_less_than(&first);
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
}

/// An abstract socket in this network namespace.
fn metrics_are_served_by_name() {
    let name = format!("tender-observe-{}", std::process::id());
    let mut guest = started(&[&format!("--metrics=unix:@{name}")], "spin");
    let stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let scrape = Scrape::parse(body(&request(stream, "GET /metrics HTTP/1.0\r\n\r\n")));
    assert!(scrape.value("tender_time_seconds_total", &[("in", "guest")]) > 0.0);
    run(&mut hypercalls(
        &[&format!("--metrics=unix:@{name}")],
        &["spin"],
    ))
    .is_refused(&["another process listens there"]);
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
}

fn other_requests_get_an_error() {
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
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{response}"
        );
    }
    let head = request(
        UnixStream::connect(&socket).unwrap(),
        "HEAD /metrics HTTP/1.1\r\n\r\n",
    );
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    // Clients that send nothing, and clients that do not read.
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

fn a_stale_socket_is_replaced() {
    let directory = common::directory();
    let socket = directory.path().join("socket");
    for _ in 0..2 {
        let mut guest = served(directory.path(), &[], "spin");
        let metrics = format!("--metrics=unix:{}", text(&socket));
        run(&mut hypercalls(&[&metrics], &["spin"]))
            .is_refused(&[text(&socket), "another process listens there"]);
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
    run(&mut hypercalls(&[&metrics], &["spin"])).is_refused(&["another process listens there"]);
}

fn without_a_sandbox_the_socket_is_removed() {
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
        curl.args([
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "30",
            "--unix-socket",
        ]);
        curl.arg(socket).arg("http://localhost/metrics").output()
    };
    let directory = common::directory();
    let mut guest = served(directory.path(), &[], "poll-forever");
    scrape_asleep(&directory.path().join("socket"));
    let output =
        curl(&directory.path().join("socket")).map_err(|error| format!("no curl: {error}"))?;
    assert!(output.status.success(), "{output:?}");
    let scrape = Scrape::parse(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(
        scrape.value("tender_hypercalls_total", &[("call", "POLL")]),
        1.0
    );
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
    Ok(())
}

/// The failure is logged once, the thread ends, and the guest continues.
fn a_host_that_cannot_wait_ends_only_the_service() {
    let directory = common::directory();
    let socket = format!("--metrics=unix:{}", text(&directory.path().join("socket")));
    let mut command = hypercalls(&[&socket], &["spin"]);
    // Only the metrics thread waits for ten descriptors.
    let mut guest = Guest::start(refuse::fails(
        &mut command,
        libc::SYS_ppoll,
        &[(1, 10)],
        libc::ENOMEM,
    ));
    guest.wait_for_complaint(
        "tender: warn: --metrics: cannot wait for clients: Cannot allocate memory (os error 12)",
    );
    let deadline = Instant::now() + LIMIT;
    // On some kernels the list includes the kernel's own threads for KVM.
    let names = |pid: u32| {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        threads
            .filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok())
            .collect::<Vec<_>>()
    };
    while names(guest.pid()).contains(&"metrics\n".to_owned()) {
        assert!(Instant::now() < deadline, "the thread has not ended");
        std::thread::sleep(Duration::from_millis(2));
    }
    let asked = UnixStream::connect(directory.path().join("socket")).map_err(|error| error.kind());
    assert_eq!(
        asked.map(drop),
        Err(ErrorKind::ConnectionRefused),
        "the response comes without a wait"
    );
    guest.signal(libc::SIGTERM);
    let output = guest.end();
    assert_eq!(
        output.dies_by(libc::SIGTERM).stderr.lines().count(),
        1,
        "{output:?}"
    );
}

/// Every name in the dashboard is served, and every panel has a query.
fn the_dashboard_uses_existing_metrics() {
    let dashboard: Value =
        serde_json::from_str(include_str!("../../packaging/grafana/tender.json")).expect("JSON");
    let directory = common::directory();
    let mut guest = served(directory.path(), &[], "poll-forever");
    let scrape = scrape(&directory.path().join("socket"));
    let names: Vec<_> = scrape.names().collect();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let targets = panel["targets"]
            .as_array()
            .unwrap_or_else(|| panic!("{panel:#}"));
        assert!(!targets.is_empty(), "{panel:#}");
        queries.extend(
            targets
                .iter()
                .map(|target| target["expr"].as_str().expect("a query")),
        );
    }
    let variables = dashboard["templating"]["list"]
        .as_array()
        .expect("variables")
        .iter();
    queries.extend(variables.filter_map(|variable| variable["definition"].as_str()));
    let mut asked = 0;
    for query in queries {
        let tokens = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in tokens.filter(|word| word.starts_with("tender_")) {
            assert!(names.contains(&name), "{name} in {query}: {names:?}");
            asked += 1;
        }
    }
    assert!(asked > 10, "{asked}");
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM);
}
