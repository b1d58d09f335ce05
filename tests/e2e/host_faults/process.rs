//! Effects of the kernel on the process: signals, interruptions, stops, lack of memory, a clock
//! that jumps.

mod refused;

use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, KvmEngine};
use crate::common::inject::{Fault, first, inject, once_running};
use crate::common::net::datagram;
use crate::common::trace::Call;
use crate::common::{FD, Guest, directory, pass_fd, tender, text, trial, unikernel};
use crate::host_faults::Image;
use crate::host_faults::kill::{Random, acknowledged, verify};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        trial("process::a_hangup_ends_the_run_in_order")
            .needs(&[Kvm])
            .run(a_hangup_ends_the_run_in_order),
        trial("process::an_ignored_hangup_stays_ignored")
            .needs(&[Kvm])
            .run(an_ignored_hangup_stays_ignored),
        trial("process::endless_interruptions_do_no_harm")
            .needs(&[Kvm])
            .run(endless_interruptions_do_no_harm),
        trial("process::each_call_may_be_interrupted_once")
            .needs(&[Kvm])
            .run(each_call_may_be_interrupted_once),
        trial("process::a_storm_of_stops_loses_nothing")
            .needs(&[Kvm])
            .run(a_storm_of_stops_loses_nothing),
        trial("process::a_transient_failure_of_kvm_run_is_retried")
            .needs(&[KvmEngine])
            .run(a_transient_failure_of_kvm_run_is_retried),
        trial("process::a_permanent_failure_of_kvm_run_is_reported")
            .needs(&[KvmEngine])
            .run(a_permanent_failure_of_kvm_run_is_reported),
        trial("process::a_clock_that_jumps_does_no_harm")
            .needs(&[Kvm])
            .try_run(a_clock_that_jumps_does_no_harm),
    ];
    tests.extend(refused::tests());
    tests
}

/// As a closed terminal sends it: the disk is synchronised and the totals are logged.
fn a_hangup_ends_the_run_in_order() {
    let image = Image::new();
    let mut command = image.block(&["numbered=1000000000"]);
    // The tests may be run by nohup.
    hang_up(&mut command, libc::SIG_DFL);
    let mut guest = Guest::start(command.env("RUST_LOG", "info"));
    guest.wait_for("wrote 3\n");
    guest.signal(libc::SIGHUP);
    let output = guest.end();
    output
        .dies_by(libc::SIGHUP)
        .complains("signal 1 ended the run")
        .complains("disk.img: 0 reads (0 bytes), ");
}

/// Makes the command start with this disposition of SIGHUP.
fn hang_up(command: &mut Command, how: libc::sighandler_t) {
    // SAFETY: signal takes numbers, and is safe between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::signal(libc::SIGHUP, how);
            Ok(())
        });
    }
}

/// As `nohup` starts it.
fn an_ignored_hangup_stays_ignored() {
    let mut command = unikernel("hypercalls", &["--mem=4"], &["poll-forever"]);
    hang_up(&mut command, libc::SIG_IGN);
    let mut guest = Guest::start(&mut command);
    guest.wait_for("poll-forever\n");
    guest.signal(libc::SIGHUP);
    std::thread::sleep(Duration::from_millis(100));
    assert!(guest.is_running(), "{}", guest.messages());
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
}

/// Two of three calls of the running guest are interrupted, in no order: in step with the guest's
/// own loop, it could be all its sleeps and nothing else.
fn endless_interruptions_do_no_harm() {
    let storm = || {
        let mut random = Random::with(0x2545_f491_4f6c_dd1d);
        once_running(move |call: &Call| {
            let calls = [
                libc::SYS_write,
                libc::SYS_read,
                libc::SYS_epoll_pwait2,
                libc::SYS_pread64,
                libc::SYS_pwrite64,
            ];
            if !call.is_run() && !calls.contains(&call.number) {
                return None;
            }
            (random.below(3) != 0).then_some(Fault::Fails(libc::EINTR))
        })
    };
    let image = Image::new();
    inject(&mut image.block(&[]), storm())
        .exits(0)
        .is_quiet()
        .prints("block: ok");
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.send(&datagram(b"storm")).unwrap();
    ours.send(&datagram(b"quit")).unwrap();
    let options = [
        "--mem=4",
        &format!("--net=@{FD}"),
        "--net-mac=02:00:00:00:00:02",
    ];
    let mut net = pass_fd(unikernel("net", &options, &["--ipv4=10.0.0.2/24"]), theirs);
    inject(&mut net, storm())
        .exits(0)
        .prints("net: service: 2 frames in")
        .prints("net: ok");
}

/// Each call about a file or a stream, from the first after the C library's own to the last, fails
/// once with EINTR. A stop and a continuation can cause that for a file on a network or in user
/// space.
fn each_call_may_be_interrupted_once() {
    let image = Image::new();
    let directory = directory();
    let [stats, config] = ["stats.json", "run.toml"].map(|name| directory.path().join(name));
    std::fs::write(&stats, "x".repeat(10_000)).unwrap();
    std::fs::write(
        &config,
        format!(
            "stats = {:?}\ndumpcore = {:?}\n",
            text(&stats),
            text(directory.path())
        ),
    )
    .unwrap();
    let block = image.block(&[]);
    let args = ["--config".as_ref(), config.as_os_str()].into_iter();
    let output = inject(&mut tender(args.chain(block.get_args())), interrupt_each());
    output.exits(0).is_quiet().prints("block: ok");
    let document: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&stats).unwrap()).unwrap();
    assert!(
        document["memory"]["resident_bytes"].is_u64(),
        "{document:#}"
    );
}

/// Interrupts each call once, but not its repetition.
fn interrupt_each() -> impl FnMut(&Call) -> Option<Fault> {
    let mut interrupted = None;
    let mut library_is_set_up = false;
    move |call: &Call| {
        library_is_set_up |= call.number == libc::SYS_set_tid_address;
        let this = (call.number, call.arguments);
        if !library_is_set_up || !INTERRUPTIBLE.contains(&call.number) || interrupted == Some(this)
        {
            interrupted = None;
            return None;
        }
        interrupted = Some(this);
        Some(Fault::Fails(libc::EINTR))
    }
}

/// Calls that can wait for a server, a process or a device behind a file, and calls that wait for a
/// reader.
const INTERRUPTIBLE: [libc::c_long; 15] = [
    libc::SYS_openat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_faccessat,
    libc::SYS_lseek,
    libc::SYS_flock,
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_getrandom,
    libc::SYS_ftruncate,
    libc::SYS_fdatasync,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
];

fn a_storm_of_stops_loses_nothing() {
    let image = Image::new();
    let mut guest = Guest::start(&mut image.block(&["numbered=1000000000"]));
    guest.wait_for("wrote 1\n");
    for _ in 0..300 {
        guest.signal(libc::SIGSTOP);
        std::thread::sleep(Duration::from_micros(300));
        guest.signal(libc::SIGCONT);
        std::thread::sleep(Duration::from_micros(700));
    }
    guest.signal(libc::SIGTERM);
    let output = guest.end();
    output.dies_by(libc::SIGTERM).is_quiet();
    let acknowledged = acknowledged(&output.stdout);
    let wanted: String = (1..=acknowledged).map(|i| format!("wrote {i}\n")).collect();
    assert!(
        acknowledged > 1 && output.stdout.contains(&wanted),
        "a line of {acknowledged} is missing"
    );
    verify(&image, acknowledged);
}

fn a_transient_failure_of_kvm_run_is_retried() {
    for error in [libc::EAGAIN, libc::EINTR] {
        let fault = first(100, Fault::Fails(error), Call::is_run);
        let output = inject(&mut unikernel("hello", &["--mem=4"], &[]), fault);
        output.exits(0).is_quiet().prints("memory: ");
    }
}

/// The guest has run before, so that there is a position to report.
fn a_permanent_failure_of_kvm_run_is_reported() {
    for (error, part) in [
        (
            libc::EFAULT,
            "Bad address (os error 14) (a page of guest memory is unavailable",
        ),
        (libc::ENOMEM, "(the kernel is out of memory)"),
        (libc::EHWPOISON, "defective"),
        (libc::EIO, "Input/output error"),
    ] {
        let mut runs = 0;
        let output = inject(&mut unikernel("hello", &["--mem=4"], &[]), |call| {
            runs += usize::from(call.is_run());
            (call.is_run() && runs == 3).then_some(Fault::Fails(error))
        });
        output.fails(&["hello.hvt: KVM_RUN failed: ", part, "(pc 0x1"]);
    }
}

/// Only where the machine is the tests' own, for which its owner sets `TENDER_MAY_SET_CLOCK`.
fn a_clock_that_jumps_does_no_harm() -> Result<(), String> {
    if std::env::var_os("TENDER_MAY_SET_CLOCK").is_none() {
        return Err("the host's clock is not the tests' to set (TENDER_MAY_SET_CLOCK)".into());
    }
    for hours in [24, -24, -24, 24] {
        let guest = Guest::start(&mut unikernel("clock", &["--mem=2"], &["poll=1000000000"]));
        guest.wait_for("clock: counter");
        std::thread::sleep(Duration::from_millis(200));
        let now = jump(hours * 3600);
        // Timers that already run take their time, and later readings show the new time.
        let output = guest.end();
        output.exits(0).is_quiet();
        let took: u64 = output
            .stdout
            .split(" took ")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!((990_000_000..30_000_000_000).contains(&took), "{output:?}");
        let output = crate::common::run(&mut unikernel(
            "clock",
            &["--mem=2"],
            &[&format!("now={now}")],
        ));
        output.exits(0).is_quiet().prints("clock: ok");
    }
    Ok(())
}

/// Moves the wall clock by so many seconds; returns its new value.
fn jump(seconds: i64) -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both calls use the one value, which is alive.
    unsafe {
        assert_eq!(libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time), 0);
        time.tv_sec += seconds;
        let set = libc::clock_settime(libc::CLOCK_REALTIME, &raw const time);
        assert!(set == 0, "{}", crate::common::host_error("clock"));
    }
    time.tv_sec
}
