//! Guests that violate the protocol of the shared network ring: each ends in one clean line, or
//! harms only itself and can be ended by a signal. Frames that were queued before the end are sent,
//! for every kind of end.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::FromRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::Need::{KvmEngine, Net, Root};
use crate::common::net::Tap;
use crate::common::wire::Wire;
use crate::common::{self, FD, Guest, Output, pass_fd, trial, unikernel};
use libtest_mimic::Trial;

/// The end of a hostile guest.
#[derive(Clone, Copy)]
enum End {
    /// `tender` ends the run with this message.
    Reported(&'static str),
    /// The guest continues, and ends with this status and this output.
    Confined(i32, &'static str),
    /// One or the other, depending on timing; no status but this.
    Either(i32),
}
use End::{Confined, Either, Reported};

const OUTSIDE: End = Reported("must be within the 0x400000 bytes of guest memory");
const READ_ONLY: End = Reported("must be memory that the guest may write");

/// A kind of attack, its arguments, and its end.
type Attack = (&'static str, &'static [&'static str], End);

/// All attacks. A guest may send what it may not read; what it may not write stays unchanged.
const KINDS: [Attack; 34] = [
    (
        "wild-tail",
        &[],
        Reported("claims 2147483648 requests, limit 1024"),
    ),
    (
        "wild-tail",
        &["1025"],
        Reported("claims 1025 requests, limit"),
    ),
    (
        "wild-tail",
        &["4294967295"],
        Reported("claims 4294967295 requests, limit"),
    ),
    (
        "wild-tail",
        &["1024"],
        Confined(3, "all taken: true; 0 are not\n"),
    ),
    ("wild-head", &[], Confined(3, "all taken: true\n")),
    (
        "wild-head",
        &["4294967295"],
        Confined(3, "all taken: true\n"),
    ),
    ("needs-kick-scribble", &["3000"], Either(3)),
    ("wild-address", &["beyond"], OUTSIDE),
    ("wild-address", &["beyond", "read"], OUTSIDE),
    ("wild-address", &["straddle"], OUTSIDE),
    ("wild-address", &["straddle", "read"], OUTSIDE),
    ("wild-address", &["high"], OUTSIDE),
    ("wild-address", &["high", "read"], OUTSIDE),
    ("wild-address", &["window"], OUTSIDE),
    ("wild-address", &["window", "read"], OUTSIDE),
    ("wild-address", &["overflow"], OUTSIDE),
    ("wild-address", &["overflow", "read"], OUTSIDE),
    ("wild-address", &["null"], READ_ONLY),
    ("wild-address", &["null", "read"], READ_ONLY),
    ("wild-address", &["tables", "read"], READ_ONLY),
    ("wild-address", &["boot", "read"], READ_ONLY),
    ("wild-address", &["text"], READ_ONLY),
    ("wild-address", &["text", "read"], READ_ONLY),
    ("wild-address", &["ring", "read"], Either(3)),
    ("wild-length", &[], OUTSIDE),
    ("wild-length", &["4294967295", "read"], OUTSIDE),
    ("wild-length", &["0"], Confined(3, "write: taken: true\n")),
    ("wild-length", &["4194304", "read"], OUTSIDE),
    ("changing", &["1000"], Either(3)),
    (
        "changing",
        &["1000", "safe"],
        Confined(0, "1000 requests, "),
    ),
    (
        "wild-handle",
        &[],
        Confined(0, "handle 4294967295: Some(Commit { id: 5, ret: 2, len: 0"),
    ),
    ("bad-op", &[], Confined(0, "skipped: true\n")),
    // A guest that takes no replies finds the newest ones in the place of older ones.
    ("flood-no-consume", &[], Either(3)),
    ("kick-storm", &["10000"], Confined(0, "10000 kicks, ")),
];

/// Attacks without end.
const ENDLESS: [&[&str]; 4] = [
    &["kick-storm", "1000000000000"],
    &["changing", "4000000000", "safe"],
    &["spin-with-queue"],
    &["flood-no-consume", "4000000000"],
];

/// A name, and a test body for so many queued frames.
type Queue = (&'static str, fn(u64));

pub fn tests() -> Vec<Trial> {
    let mut tests: Vec<_> = KINDS.into_iter().map(kind).collect();
    tests.extend(ENDLESS.into_iter().map(|args| {
        trial(&format!("ends_by_a_signal::{}", args[0]))
            .needs(&[KvmEngine, Net])
            .run(move || ends_by_a_signal(args))
    }));
    tests.push(trial!(floods_end_by_a_signal, KvmEngine, Net));
    tests.push(trial!(a_peer_cannot_keep_the_tender_at_work, KvmEngine));
    let queues: [Queue; 3] = [
        ("frames_are_sent_before_the_end::halt", sent_before_halt),
        (
            "frames_are_sent_before_the_end::fault",
            sent_before_a_report,
        ),
        (
            "frames_are_sent_before_the_end::signal",
            sent_before_a_signal,
        ),
    ];
    tests.extend(queues.map(|(name, body)| {
        trial(name)
            .needs(&[Root, KvmEngine, Net])
            .run(move || [1, 500, 1023].into_iter().for_each(body))
    }));
    tests
}

const OPTIONS: [&str; 2] = ["--net=tap0", "--mem=4"];

fn tap() -> Tap {
    Tap::up("tap0", Ipv4Addr::new(10, 0, 0, 1))
}

fn start(args: &[&str]) -> Guest {
    run_as(unikernel("ring-hostile", &OPTIONS, args), args)
}

fn run_as(mut command: Command, args: &[&str]) -> Guest {
    let guest = Guest::start(&mut command);
    guest.wait_for(&format!("ring-hostile: {}\n", args[0]));
    guest
}

fn kind((kind, arguments, end): Attack) -> Trial {
    let name = [&[kind], arguments].concat().join("_");
    trial(&format!("ends_cleanly::{name}"))
        .needs(&[Root, KvmEngine, Net])
        .run(move || {
            let args = [&[kind], arguments].concat();
            let command = unikernel("ring-hostile", &OPTIONS, &args);
            attack(command, &args, end);
        })
}

fn attack(command: Command, args: &[&str], end: End) {
    let tap = tap();
    let mut wire = Wire::new(&tap);
    let mut guest = run_as(command, args);
    // A frame that must not be received, sent once the tap is ready.
    while args[0].starts_with("wild-") && guest_waits(args) && guest.is_running() {
        let _ = wire.send(0);
        std::thread::sleep(Duration::from_millis(20));
    }
    check(&guest.end(), end);
    tap.delete();
}

fn guest_waits(arguments: &[&str]) -> bool {
    arguments.contains(&"read") || arguments.contains(&"null") || arguments.contains(&"text")
}

fn check(output: &Output, end: End) {
    let reported = output.code() == 1;
    match end {
        Reported(args) => _ = output.fails(&[args, "pc 0x"]),
        Confined(status, args) => _ = output.exits(status).prints(args),
        Either(_) if reported => _ = output.fails(&["ring", "pc 0x"]),
        Either(status) => _ = output.exits(status).prints(" came back\n"),
    }
    assert!(!output.stderr.contains("panicked"), "{output:?}");
}

/// However busy it keeps `tender`.
fn ends_by_a_signal(args: &[&str]) {
    let _tap = tap();
    let mut guest = start(args);
    std::thread::sleep(Duration::from_millis(300));
    assert!(guest.is_running(), "{}", guest.messages());
    let before = Instant::now();
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM);
    assert!(
        before.elapsed() < common::LIMIT / 6,
        "{:?}",
        before.elapsed()
    );
}

/// The guest receives into its own index, and each of the peer's frames adds requests. They are left
/// to the guest, which then must kick for them.
fn a_peer_cannot_keep_the_tender_at_work() {
    let mut fds = [0; 2];
    // SAFETY: the array has room for the two descriptors, which are new and have no other owner.
    let [mut ours, theirs] = unsafe {
        let made = libc::socketpair(
            libc::AF_UNIX,
            libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC,
            0,
            fds.as_mut_ptr(),
        );
        assert!(made == 0, "{}", common::host_error("socketpair"));
        fds.map(|fd| File::from_raw_fd(fd))
    };
    // Until `tender` has ended.
    std::thread::spawn(move || {
        let mut index = 2049_u32;
        while ours
            .write_all(&[&index.to_ne_bytes()[..], &[0; 56]].concat())
            .is_ok()
        {
            index = index.wrapping_add(1024);
        }
    });
    let net = format!("--net=@{FD}");
    let args = ["read-into-index"];
    let command = unikernel("ring-hostile", &["--mem=4", &net], &args);
    run_as(pass_fd(command, theirs), &args).end().exits(3);
}

/// In both directions.
fn floods_end_by_a_signal() {
    let tap = tap();
    for args in [
        &["writes=1000000000000"][..],
        &["burst=1000000000"],
        &["reads=1000000"],
        &["mix=1000000"],
    ] {
        let mut guest = Guest::start(&mut unikernel("ring", &["--net=tap0", "--mem=4"], args));
        guest.wait_for("ring: offered");
        std::thread::sleep(Duration::from_millis(300));
        guest.signal(libc::SIGTERM);
        guest.end().dies_by(libc::SIGTERM).is_quiet();
    }
    assert!(tap.received() > 0);
}

fn sent_before_halt(count: u64) {
    let tap = tap();
    let mut wire = Wire::new(&tap);
    start(&["halt-with-queue", &count.to_string()])
        .end()
        .exits(0)
        .is_quiet();
    wire.receive(count);
    wire.stays_silent();
    tap.delete();
}

fn sent_before_a_report(count: u64) {
    let tap = tap();
    let mut wire = Wire::new(&tap);
    start(&["fault-with-queue", &count.to_string()])
        .end()
        .fails(&["PUTS", "must be within"]);
    wire.receive(count);
    wire.stays_silent();
    tap.delete();
}

/// All frames are queued long before the second is over.
fn sent_before_a_signal(count: u64) {
    let tap = tap();
    let mut wire = Wire::new(&tap);
    let mut guest = start(&["spin-with-queue", &count.to_string()]);
    std::thread::sleep(Duration::from_secs(1));
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
    wire.receive(count);
    wire.stays_silent();
    tap.delete();
}
