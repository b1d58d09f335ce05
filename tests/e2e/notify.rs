//! `tender` under a service manager: its notifications, their order, and runs whose manager is
//! gone.

mod passed;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::common::Need::Kvm;
use crate::common::trace::trace;
use crate::common::{self, Guest, LIMIT, run, text, unikernel};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        trial!(without_a_watchdog_nothing_follows_ready, Kvm),
        trial!(a_run_is_reported_in_order, Kvm),
        trial!(an_abstract_socket_works, Kvm),
        trial!(the_sandbox_allows_notifications, Kvm),
        trial!(a_stop_is_reported, Kvm),
        trial!(the_cause_of_a_failure_is_reported, Kvm),
        trial!(a_long_sleep_feeds_the_watchdog, Kvm),
        trial!(a_spinning_guest_does_not_feed_the_watchdog, Kvm),
        trial!(a_watchdog_of_another_process_is_ignored, Kvm),
        trial!(without_a_manager_no_call_is_added, Kvm),
        trial!(a_run_survives_its_manager, Kvm),
    ];
    tests.extend(passed::tests());
    tests
}

/// A service manager's socket. A read waits for a message, [`LIMIT`] at most.
struct Manager {
    socket: UnixDatagram,
    address: String,
    _directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> Manager {
        let directory = common::directory();
        let path = directory.path().join("notify");
        Manager::of(
            UnixDatagram::bind(&path).unwrap(),
            text(&path).to_owned(),
            directory,
        )
    }

    fn of(socket: UnixDatagram, address: String, directory: tempfile::TempDir) -> Manager {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Manager {
            socket,
            address,
            _directory: directory,
        }
    }

    fn manages<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("NOTIFY_SOCKET", &self.address)
    }

    /// As `manages`, with a watchdog of one hour.
    fn watches<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        self.manages(command).env("WATCHDOG_USEC", "3600000000")
    }

    #[track_caller]
    fn hears(&self) -> String {
        let mut datagram = [0; 8192];
        let length = self
            .socket
            .recv(&mut datagram)
            .expect("tender sends a message");
        String::from_utf8(datagram[..length].to_vec()).expect("it is text")
    }

    #[track_caller]
    fn hears_no_more(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let error = self
            .socket
            .recv(&mut [0; 8192])
            .expect_err("tender sends no more");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}

/// READY=1, and the status of a run without devices.
fn ready() -> String {
    let engine = common::engine();
    format!("READY=1\nSTATUS=ABI version 2 (Solo5 0.8 and later), engine {engine}, 4 MiB of memory")
}

/// Without a watchdog, `tender` can send nothing more, and neither can a guest that escapes from
/// its VM.
fn without_a_watchdog_nothing_follows_ready() {
    for ends in [&["exit=0"][..], &["exit=3"]] {
        let manager = Manager::new();
        run(manager.manages(&mut unikernel("hello", &["--mem=4"], ends)));
        assert_eq!(manager.hears(), ready());
        manager.hears_no_more();
    }
    let manager = Manager::new();
    let mut guest = Guest::start(manager.manages(&mut sleeper(600_000_000_000)));
    assert_eq!(manager.hears(), ready());
    guest.wait_for("Hz\n");
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
    manager.hears_no_more();
}

fn a_run_is_reported_in_order() {
    let manager = Manager::new();
    run(manager.watches(&mut unikernel("hello", &["--mem=4"], &[])))
        .exits(0)
        .is_quiet();
    assert_eq!(manager.hears(), ready());
    assert_eq!(
        manager.hears(),
        "STOPPING=1\nSTATUS=the guest halted with status 0"
    );
    manager.hears_no_more();

    let directory = common::directory();
    let path = directory.path().join("disk.img");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let disk = format!("--disk={}", text(&path));
    run(manager.manages(&mut unikernel("block", &["--mem=4", &disk], &["fill"]))).exits(0);
    manager.socket.set_nonblocking(false).unwrap();
    let message = manager.hears();
    assert!(
        message.starts_with(&ready()) && message.ends_with(&format!(": {}", text(&path))),
        "{message}"
    );
}

fn an_abstract_socket_works() {
    let name = format!("tender-notify-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let manager = Manager::of(socket, format!("@{name}"), common::directory());
    run(manager.watches(&mut unikernel("hello", &["--mem=4"], &[])))
        .exits(0)
        .is_quiet();
    assert_eq!(manager.hears(), ready());
    assert!(manager.hears().starts_with("STOPPING=1\n"));
}

/// With the layers that this kernel has, and with none.
fn the_sandbox_allows_notifications() {
    for mode in ["best-effort", "off"] {
        let manager = Manager::new();
        let sandbox = format!("--sandbox={mode}");
        let output =
            run(manager.watches(&mut unikernel("hello", &["--mem=4", &sandbox, "-v"], &[])));
        output.exits(0);
        // Reported when it is active, not before.
        assert!(
            output.stderr.contains("tender: info: sandbox: "),
            "{output:#?}"
        );
        assert_eq!(
            (manager.hears(), manager.hears().starts_with("STOPPING=1")),
            (ready(), true)
        );
    }
}

fn sleeper(nanoseconds: u64) -> Command {
    unikernel("clock", &["--mem=4"], &[&format!("poll={nanoseconds}")])
}

fn a_stop_is_reported() {
    let manager = Manager::new();
    let mut guest = Guest::start(manager.watches(&mut sleeper(600_000_000_000)));
    assert!(manager.hears().starts_with("READY=1\n"));
    guest.signal(libc::SIGTERM);
    assert_eq!(
        manager.hears(),
        "STOPPING=1\nSTATUS=signal 15 ended the run"
    );
    guest.end().dies_by(libc::SIGTERM);
}

fn the_cause_of_a_failure_is_reported() {
    let manager = Manager::new();
    run(manager.watches(&mut unikernel("hypercalls", &["--mem=4"], &["badptr"])))
        .fails(&["hypercall"]);
    assert!(manager.hears().starts_with("READY=1\n"));
    let stopping = manager.hears();
    assert!(
        stopping.starts_with("STOPPING=1\nSTATUS=hypercall ") && stopping.lines().count() == 2,
        "{stopping}"
    );
}

/// The guest's sleep is far longer than the watchdog interval; `tender` wakes in time and sleeps
/// again.
fn a_long_sleep_feeds_the_watchdog() {
    let manager = Manager::new();
    let mut command = unikernel("sleeper", &["--mem=4"], &["sleep=600000000000"]);
    command.env("WATCHDOG_USEC", "400000");
    let begun = Instant::now();
    let mut guest = Guest::start(manager.manages(&mut command));
    assert!(manager.hears().starts_with("READY=1\n"));
    for _ in 0..5 {
        assert_eq!(manager.hears(), "WATCHDOG=1");
    }
    // At least half the interval before each, however busy this machine is.
    assert!(
        begun.elapsed() >= Duration::from_millis(5 * 200),
        "{:?}",
        begun.elapsed()
    );
    guest.signal(libc::SIGTERM);
    // More messages may be queued.
    while manager.hears() == "WATCHDOG=1" {}
    guest.end().dies_by(libc::SIGTERM);
}

/// The guest runs, but never enters `tender`.
fn a_spinning_guest_does_not_feed_the_watchdog() {
    let manager = Manager::new();
    let mut command = unikernel("hypercalls", &["--mem=4"], &["spin"]);
    command.env("WATCHDOG_USEC", "400000");
    let mut guest = Guest::start(manager.manages(&mut command));
    assert!(manager.hears().starts_with("READY=1\n"));
    std::thread::sleep(Duration::from_millis(1500));
    guest.signal(libc::SIGTERM);
    let args: Vec<_> = std::iter::from_fn(|| Some(manager.hears()))
        .take_while(|args| !args.starts_with("STOPPING=1"))
        .collect();
    // Only what it did before it began to spin may have been reported.
    assert!(args.len() <= 1, "{args:?}");
    guest.end().dies_by(libc::SIGTERM);
}

fn a_watchdog_of_another_process_is_ignored() {
    let manager = Manager::new();
    let mut command = sleeper(300_000_000);
    command
        .env("WATCHDOG_USEC", "1000")
        .env("WATCHDOG_PID", "1");
    let output = run(manager.manages(&mut command));
    let (_, took) = output
        .exits(0)
        .stdout
        .split_once("poll 300000000 ns took ")
        .expect("the guest prints a duration");
    let took: u64 = took.split(' ').next().unwrap().parse().unwrap();
    // A watchdog of a millisecond would have woken it immediately.
    assert!(took >= 290_000_000, "{took} ns");
    assert!(manager.hears().starts_with("READY=1\n"));
    manager.hears_no_more();
}

/// No additional system call, with or without a watchdog that no manager waits for.
fn without_a_manager_no_call_is_added() {
    let calls = |variables: &[(&str, &str)]| {
        let mut command = unikernel("hypercalls", &["--mem=4"], &["ok-storm", "30"]);
        command.envs(variables.iter().copied());
        let trace = trace(&mut command);
        (
            trace.status,
            trace.start(),
            trace.hypercalls().into_iter().flatten().count(),
        )
    };
    let plain = calls(&[]);
    assert_eq!(calls(&[("WATCHDOG_USEC", "1")]), plain);
    assert_eq!(calls(&[("NOTIFY_SOCKET", "")]), plain);
    // With a manager: three calls to connect, one to report that the guest runs, one to shut the
    // socket down; none at a hypercall.
    let manager = Manager::new();
    let managed = calls(&[("NOTIFY_SOCKET", &manager.address)]);
    assert_eq!((managed.0, managed.2), (plain.0, plain.2));
    assert!(
        (3..=5).contains(&(managed.1 - plain.1)),
        "{managed:?} and {plain:?}"
    );
}

fn a_run_survives_its_manager() {
    let gone = Manager::new();
    fs::remove_file(&gone.address).unwrap();
    let closed = common::directory();
    let closed = closed.path().join("notify");
    drop(UnixDatagram::bind(&closed).unwrap());
    for address in [
        gone.address.as_str(),
        text(&closed),
        "@no-listener-here",
        "vsock:2:1",
        "x",
    ] {
        let start = |options: &[&str]| {
            let mut command = unikernel("hello", options, &[]);
            run(command
                .env("NOTIFY_SOCKET", address)
                .env("WATCHDOG_USEC", "1"))
        };
        start(&["--mem=4"]).exits(0).is_quiet();
        start(&["--mem=4", "-v"])
            .exits(0)
            .complains(&format!("NOTIFY_SOCKET={address}: "));
    }
    // A manager that goes while the guest runs. The guest waits for its reader until then, and each
    // hypercall sends a notification.
    let manager = Manager::new();
    let (mut reader, writer) = common::full_pipe();
    let mut command = unikernel("hypercalls", &["--mem=4", "-v"], &["puts-flood", "20"]);
    let guest = Guest::spawn(manager.manages(command.env("WATCHDOG_USEC", "1").stdout(writer)));
    drop(command);
    assert!(manager.hears().starts_with("READY=1\n"));
    drop(manager);
    let mut printed = Vec::new();
    reader.read_to_end(&mut printed).unwrap();
    assert!(printed.ends_with(b"flood 19\n"));
    let output = guest.end();
    output
        .exits(0)
        .complains("cannot notify the service manager");
    assert_eq!(
        output.stderr.matches("the service manager").count(),
        1,
        "{output:#?}"
    );
}
