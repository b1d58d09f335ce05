//! Clients that are slow, silent or too many.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use prometheus::Scrape;

use crate::common::Need::Kvm;
use crate::common::trace::trace_threads;
use crate::common::{self, Guest, LIMIT, prometheus, text};
use crate::metrics::{body, hypercalls, request, scrape, served};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(a_stuck_client_blocks_others_only_briefly, Kvm),
        trial!(a_client_that_sends_slowly_is_cut_off, Kvm),
        trial!(a_client_that_never_stops_sending_is_cut_off, Kvm),
        trial!(idle_clients_do_not_delay_an_answer, Kvm),
        trial!(a_stuck_client_does_not_hold_up_the_end, Kvm),
    ]
}

/// A client that sends half a request gets a timeout response; the next is answered, and the guest
/// continued.
fn a_stuck_client_blocks_others_only_briefly() {
    let directory = common::directory();
    let socket = directory.path().join("socket");
    let metrics = format!("--metrics=unix:{}", text(&socket));
    let mut guest = Guest::start(&mut hypercalls(&[&metrics], &["ok-storm", "1000000000"]));
    guest.wait_for("ok-storm");
    let before = scrape(&socket);
    let mut stuck = UnixStream::connect(&socket).unwrap();
    stuck.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    let calls = |scrape: &Scrape| scrape.value("tender_exits_total", &[("kind", "hypercall")]);
    let deadline = Instant::now() + LIMIT;
    while calls(&scrape(&socket)) <= calls(&before) {
        assert!(Instant::now() < deadline, "the guest does not go on");
    }
    let mut response = String::new();
    stuck.read_to_string(&mut response).unwrap();
    assert!(
        response.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
        "{response}"
    );
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM);
}

/// For any number of clients that send nothing or half a request. Prometheus gives up after ten
/// seconds.
fn idle_clients_do_not_delay_an_answer() {
    let directory = common::directory();
    let socket = directory.path().join("socket");
    let mut guest = served(directory.path(), &[], "poll-forever");
    for count in [1, 8, 50] {
        let mut idle: Vec<_> = (0..count)
            .map(|_| UnixStream::connect(&socket).unwrap())
            .collect();
        for stream in idle.iter_mut().step_by(2) {
            // `tender` drops a client when many others have connected after it.
            let _ = stream.write_all(b"\r\nGET /metrics HTTP/1.1\r\n");
        }
        let asked = Instant::now();
        let response = request(
            UnixStream::connect(&socket).unwrap(),
            "GET /metrics HTTP/1.1\r\n\r\n",
        );
        assert_eq!(
            Scrape::parse(body(&response)).value("tender_info", &[]),
            1.0
        );
        assert!(
            asked.elapsed() < Duration::from_secs(10),
            "behind {count}: {:?}",
            asked.elapsed()
        );
    }
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
}

/// The client sends single bytes of a header. `tender` closes its connection, answers others, and
/// ends on a signal.
fn a_client_that_sends_slowly_is_cut_off() {
    let directory = common::directory();
    let socket = directory.path().join("socket");
    let mut guest = served(directory.path(), &[], "spin");
    let mut client = UnixStream::connect(&socket).unwrap();
    client.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
    std::thread::scope(|scope| {
        let sends = scope.spawn(move || {
            let since = Instant::now();
            while client.write_all(b"x").is_ok() {
                assert!(
                    since.elapsed() < LIMIT,
                    "the client still has its connection"
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        assert_eq!(scrape(&socket).value("tender_info", &[]), 1.0);
        sends.join().expect("the connection is closed");
    });
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
}

/// The client sends more before each system call of the metrics thread, so that each read returns
/// data.
fn a_client_that_never_stops_sending_is_cut_off() {
    let directory = common::directory();
    let socket = directory.path().join("socket");
    let (mut client, mut cut_off) = (None, false);
    let mut command = hypercalls(&[&format!("--metrics=unix:{}", text(&socket))], &["spin"]);
    let ended = trace_threads(&mut command, |pid, thread, _| {
        if thread == pid || cut_off {
            return false;
        }
        let client = client.get_or_insert_with(|| {
            let mut client = UnixStream::connect(&socket).unwrap();
            client.set_nonblocking(true).unwrap();
            client.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
            client
        });
        cut_off = client
            .write(&[b'x'; 1 << 16])
            .is_err_and(|error| error.kind() != ErrorKind::WouldBlock);
        if cut_off {
            // SAFETY: takes numbers; the process is traced and not waited for, so the number is its
            // own.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        false
    });
    assert!(
        cut_off,
        "the client still had its connection when the run was ended: {ended:#x}"
    );
    assert!(
        libc::WIFSIGNALED(ended) && libc::WTERMSIG(ended) == libc::SIGTERM,
        "{ended:#x}"
    );
}

/// Neither the silent client nor those that wait behind it; they get no response.
fn a_stuck_client_does_not_hold_up_the_end() {
    let directory = common::directory();
    let socket = directory.path().join("socket");
    let mut guest = served(directory.path(), &["--stats=-"], "poll-forever");
    let mut stuck = [(); 3].map(|()| UnixStream::connect(&socket).unwrap());
    std::thread::sleep(Duration::from_millis(50));
    guest.signal(libc::SIGTERM);
    let output = guest.end();
    output.dies_by(libc::SIGTERM);
    output.complains("\"cause\": \"signal\"");
    for stream in &mut stuck {
        // No response, or a reset connection.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty());
    }
}
