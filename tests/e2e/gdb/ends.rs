//! Ends of a run with a debugger: by an interrupt, by the guest, by the operator and by the
//! debugger.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::common::Need::Kvm;
use crate::common::rsp::{Debugger, debug, start, symbol};
use crate::common::{self, Guest, text, trial, unikernel};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("interrupts::a_spin")
            .needs(&[Kvm])
            .run(interrupts_a_spin),
        trial("interrupts::a_sleep")
            .needs(&[Kvm])
            .run(interrupts_a_sleep),
        trial("interrupts::output_that_waits")
            .needs(&[Kvm])
            .run(|| interrupts_output_that_waits(&[])),
        trial("interrupts::stamped_output_that_waits")
            .needs(&[Kvm])
            .run(|| {
                interrupts_output_that_waits(&["--console-timestamps"]);
            }),
        trial("ends::an_abort_is_shown")
            .needs(&[Kvm])
            .run(an_abort_is_shown),
        trial("ends::a_contract_violation_is_shown")
            .needs(&[Kvm])
            .run(a_contract_violation_is_shown),
        trial("ends::a_signal_while_the_guest_runs")
            .needs(&[Kvm])
            .run(a_signal_while_the_guest_runs),
        trial("ends::a_signal_while_the_guest_is_stopped")
            .needs(&[Kvm])
            .run(a_signal_while_the_guest_is_stopped),
        trial("ends::a_signal_while_gdb_is_waited_for")
            .needs(&[Kvm])
            .run(a_signal_while_gdb_is_waited_for),
        trial("ends::time_is_up").needs(&[Kvm]).run(time_is_up),
        trial("ends::the_debugger_ends_it")
            .needs(&[Kvm])
            .run(the_debugger_ends_it),
        trial("alone::after_detaching")
            .needs(&[Kvm])
            .run(after_detaching),
        trial("alone::after_hanging_up_while_it_is_stopped")
            .needs(&[Kvm])
            .run(after_hanging_up_while_it_is_stopped),
        trial("alone::after_hanging_up_while_it_runs")
            .needs(&[Kvm])
            .run(after_hanging_up_while_it_runs),
        trial("alone::after_nonsense")
            .needs(&[Kvm])
            .run(after_nonsense),
    ]
}

/// A guest that runs or sleeps forever, in this way of `hypercalls`.
#[track_caller]
fn endless(kind: &str) -> (Guest, Debugger) {
    let (guest, mut debugger) = debug("hypercalls", &[], &[kind]);
    debugger.send("vCont;c");
    guest.wait_for(&format!("hypercalls: {kind}\n"));
    (guest, debugger)
}

fn interrupts_a_spin() {
    let (mut guest, mut debugger) = endless("spin");
    for _ in 0..3 {
        debugger.interrupt();
        assert!(
            debugger.program_counter() >= 0x10_0000,
            "it is stopped in its own code"
        );
        debugger.send("vCont;c");
    }
    debugger.interrupt();
    debugger.expect_ok("D");
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM);
}

/// It sleeps again whenever POLL returns early.
fn interrupts_a_sleep() {
    let (mut guest, mut debugger) = debug("sleeper", &[], &["sleep=600000000000"]);
    debugger.send("vCont;c");
    for pause in [0, 20, 200] {
        std::thread::sleep(Duration::from_millis(pause));
        debugger.interrupt();
        debugger.send("vCont;c");
    }
    debugger.interrupt();
    debugger.expect_ok("D");
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM);
}

/// The output waits for a reader. After the interrupt, `tender` writes the rest, and nothing twice.
fn interrupts_output_that_waits(options: &[&str]) {
    let directory = common::directory();
    let socket = directory.path().join("gdb");
    let port = format!("--gdb-port=unix:{}", text(&socket));
    let (mut reader, writer) = common::pipe();
    // SAFETY: it shrinks the pipe's buffer to one page.
    let room = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    let options = [&["--mem=4", "--gdb", &port], options].concat();
    let mut command = unikernel("hypercalls", &options, &["puts-flood", "9000"]);
    let guest = Guest::spawn(command.stdout(writer));
    drop(command);
    guest.wait_for_complaint("hypercalls.hvt\n");
    let mut debugger = Debugger::over(UnixStream::connect(&socket).unwrap());
    debugger.send("vCont;c");
    let mut full = 0;
    while full < room - 64 {
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(
            // SAFETY: the kernel writes the number.
            unsafe { libc::ioctl(reader.as_raw_fd(), libc::FIONREAD, &raw mut full) },
            0
        );
    }
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(50));
        debugger.interrupt();
        assert!(
            debugger.program_counter() >= 0x10_0000,
            "it is stopped in its own code"
        );
        debugger.send("vCont;c");
    }
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    assert_eq!(debugger.receive().as_deref(), Some("W00"));
    guest.end().exits(0);
    let text = read.join().unwrap().unwrap();
    let lines: Vec<_> = text
        .lines()
        .filter_map(|line| Some(&line[line.find("flood ")?..]))
        .collect();
    assert!(
        lines
            == (0..9000)
                .map(|number| format!("flood {number}"))
                .collect::<Vec<_>>(),
        "{} lines",
        lines.len()
    );
}

fn an_abort_is_shown() {
    let (guest, mut debugger) = debug("abort", &[], &[]);
    debugger.resumes_until(libc::SIGABRT);
    assert!(debugger.program_counter() >= 0x10_0000);
    debugger.ends(255);
    guest.end().exits(255).prints("panic: ");
}

fn a_contract_violation_is_shown() {
    let (guest, mut debugger) = debug("hypercalls", &[], &["badptr"]);
    debugger.resumes_until(libc::SIGSEGV);
    guest.wait_for_complaint("is stopped until gdb");
    assert!(debugger.program_counter() >= 0x10_0000);
    assert_eq!(debugger.resume(), "X0b");
    guest
        .end()
        .exits(1)
        .complains("hypercall PUTS with its argument structure at ");
}

fn a_signal_while_the_guest_runs() {
    let (mut guest, mut debugger) = endless("spin");
    guest.signal(libc::SIGINT);
    assert_eq!(debugger.receive().as_deref(), Some("X02"));
    guest.end().dies_by(libc::SIGINT);
}

fn a_signal_while_the_guest_is_stopped() {
    let (mut guest, mut debugger) = debug("hello", &[], &[]);
    debugger.program_counter();
    guest.signal(libc::SIGTERM);
    assert_eq!(debugger.receive(), None);
    guest.end().dies_by(libc::SIGTERM);
}

fn a_signal_while_gdb_is_waited_for() {
    let (mut guest, _) = start("hello", &[], &[]);
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM);
}

/// The limit also counts while the guest is stopped.
fn time_is_up() {
    let (guest, mut debugger) = debug("hello", &["--timeout=1"], &[]);
    debugger.program_counter();
    assert_eq!(debugger.receive(), None);
    guest.end().exits(1).complains("(--timeout)");
    let (guest, mut debugger) = debug("hypercalls", &["--timeout=1"], &["spin"]);
    assert_eq!(debugger.resume(), "X0e");
    guest.end().exits(1).complains("(--timeout)");
}

fn the_debugger_ends_it() {
    for packet in ["k", "vKill;1"] {
        let (guest, mut debugger) = debug("hello", &[], &[]);
        debugger.send(packet);
        while debugger.receive().is_some() {}
        let output = guest.end();
        output.exits(1).complains("killed by gdb");
        assert!(
            output.stdout.is_empty() && !output.stderr.contains("is stopped until gdb"),
            "{output:#?}"
        );
    }
}

fn after_detaching() {
    let (guest, mut debugger) = debug("debug", &[], &[]);
    for (packet, name) in [("Z0", "debug_add"), ("Z1", "debug_store")] {
        debugger.expect_ok(&format!("{packet},{:x},4", symbol("debug", name)));
    }
    debugger.expect_ok("D");
    guest.end().exits(0).prints("debug: 7\n");
}

fn after_hanging_up_while_it_is_stopped() {
    let (guest, mut debugger) = debug("debug", &[], &[]);
    debugger.expect_ok(&format!("Z0,{:x},4", symbol("debug", "debug_add")));
    drop(debugger);
    guest
        .end()
        .exits(0)
        .prints("debug: 7\n")
        .complains("gdb disconnected");
}

fn after_hanging_up_while_it_runs() {
    let (mut guest, debugger) = endless("spin");
    drop(debugger);
    guest.wait_for_complaint("gdb disconnected");
    assert!(guest.is_running());
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM);
}

/// Invalid packets and packets that gdb does not send have no effect on the guest or on `tender`.
fn after_nonsense() {
    let nonsense = [
        b"$#00$#zz$".to_vec(),
        [b"$m0,ffffffffffffffff#".to_vec(), vec![b'0'; 2]].concat(),
        [b"$".to_vec(), vec![b'A'; 100_000]].concat(),
        (0..=255).collect(),
    ];
    for bytes in nonsense {
        let (guest, mut debugger) = debug("hello", &[], &[]);
        debugger.program_counter();
        debugger.send_raw(&bytes);
        drop(debugger);
        guest
            .end()
            .exits(0)
            .prints("hello: ")
            .complains("gdb disconnected");
    }
}
