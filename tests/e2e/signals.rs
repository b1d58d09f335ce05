//! SIGTERM and SIGINT end a run in order at any time, and `tender` dies by that signal, as the
//! process that sent it expects.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, Net};
use crate::common::Resource;
use crate::common::hostile::Environment;
use crate::common::trace::{signal_after_run, trace_threads};
use crate::common::{self, Guest, status, trial, unikernel};

pub fn tests() -> Vec<Trial> {
    let mut tests = Vec::new();
    for (name, signal) in [("SIGTERM", libc::SIGTERM), ("SIGINT", libc::SIGINT)] {
        for kind in ["poll-forever", "spin"] {
            tests.push(
                trial(&format!("{name}_ends::{kind}"))
                    .needs(&[Kvm])
                    .run(move || ends(kind, signal)),
            );
        }
        tests.push(
            trial(&format!("{name}_ends::blocked_output"))
                .needs(&[Kvm])
                .run(move || ends_blocked_output(signal)),
        );
    }
    for (way, call) in [
        ("console-all", libc::SYS_write),
        ("disk-read", libc::SYS_pread64),
        ("disk-write", libc::SYS_pwrite64),
    ] {
        let name = format!("a_signal_ends_a_transfer_after_one_more_piece::{way}");
        tests.push(
            trial(&name)
                .needs(&[Kvm])
                .run(move || ends_within_a_transfer(way, call)),
        );
    }
    tests.extend([
        trial!(signals_at_any_time_end_the_run, Kvm),
        trial!(a_signal_just_before_a_sleep_is_not_lost, Kvm),
        trial!(a_second_signal_does_no_harm, Kvm),
        trial!(stopping_and_continuing_does_no_harm, Kvm),
        trial!(a_stopped_run_can_be_ended, Kvm),
        trial!(signals_that_are_ignored_do_no_harm, Kvm),
        trial!(an_alarm_ends_the_run, Kvm),
        trial!(an_ended_run_logs_its_totals, Kvm),
        trial!(inherited_signal_masks_do_no_harm, Kvm),
        trial!(a_file_that_has_reached_its_limit_does_no_harm, Kvm),
        trial("the_first_process_of_a_container_ends_with_the_signals_status")
            .needs(&[Kvm, Net])
            .run(the_first_process_of_a_container),
    ]);
    tests
}

/// Starts a guest that never ends.
fn start(kind: &str) -> Guest {
    let guest = Guest::start(&mut unikernel("hypercalls", &["--mem=4"], &[kind]));
    guest.wait_for(&format!("hypercalls: {kind}\n"));
    guest
}

fn ends(kind: &str, signal: i32) {
    let mut guest = start(kind);
    // Past its first line, into its endless part.
    std::thread::sleep(Duration::from_millis(50));
    assert!(guest.is_running());
    guest.signal(signal);
    guest.end().dies_by(signal).is_quiet();
}

/// The guest prints faster than the pipe is read, and its write blocks.
fn ends_blocked_output(signal: i32) {
    let (reader, writer) = common::pipe();
    // SAFETY: this request takes a number.
    let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert!(size >= 4096, "{}", common::host_error("a small pipe"));
    let mut command = unikernel("hypercalls", &["--mem=4"], &["puts-flood", "1000000"]);
    let mut guest = Guest::spawn(command.stdout(writer));
    wait_until_full(&reader);
    assert!(guest.is_running());
    guest.signal(signal);
    guest.end().dies_by(signal).is_quiet();
}

/// Waits until the pipe contains data.
fn wait_until_full(reader: &File) {
    let deadline = Instant::now() + common::LIMIT;
    let mut before = 0;
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let mut waiting: libc::c_int = 0;
        assert_eq!(
            // SAFETY: the request writes one number.
            unsafe { libc::ioctl(reader.as_raw_fd(), libc::FIONREAD as _, &raw mut waiting) },
            0
        );
        if waiting > 2048 && waiting == before {
            return;
        }
        before = waiting;
        assert!(
            Instant::now() < deadline,
            "the pipe does not fill up: {waiting} bytes"
        );
    }
}

/// From the start of the process on. Before `tender` is ready, the signal's default action ends it,
/// which looks the same.
fn signals_at_any_time_end_the_run() {
    for delay in 0..20 {
        let mut guest = Guest::start(&mut unikernel(
            "hypercalls",
            &["--mem=4"],
            &["poll-forever"],
        ));
        std::thread::sleep(Duration::from_micros(delay * delay * 50));
        guest.signal(libc::SIGTERM);
        guest.end().dies_by(libc::SIGTERM).is_quiet();
    }
}

/// The guest stops running first for its line, then for its endless sleep.
fn a_signal_just_before_a_sleep_is_not_lost() {
    for count in [1, 2] {
        let mut command = unikernel("hypercalls", &["--mem=4"], &["poll-forever"]);
        assert_eq!(
            signal_after_run(&mut command, count, libc::SIGTERM),
            Some(libc::SIGTERM),
            "stop {count}"
        );
    }
}

/// A guest moves 16 MiB by one hypercall, in pieces. SIGTERM arrives when the first piece begins.
fn ends_within_a_transfer(way: &str, call: libc::c_long) {
    let (mut command, _surroundings) = Environment::of("hostile", &["--mem=16"], &[way]);
    let mut pieces = 0;
    let ended = trace_threads(&mut command, |pid, _, made| {
        if made.number == call && made.arguments[2] == 1 << 20 {
            pieces += 1;
            if pieces == 1 {
                assert_eq!(
                    // SAFETY: takes numbers; the process is stopped and not waited for, so the
                    // number is its own.
                    unsafe { libc::kill(pid, libc::SIGTERM) },
                    0,
                    "{}",
                    common::host_error("kill")
                );
            }
        }
        false
    });
    assert!(
        libc::WIFSIGNALED(ended) && libc::WTERMSIG(ended) == libc::SIGTERM,
        "{ended:#x}"
    );
    assert_eq!(pieces, 1, "pieces of 1 MiB that were begun");
}

fn a_second_signal_does_no_harm() {
    let mut guest = start("spin");
    guest.signal(libc::SIGINT);
    // The run may be over already, which is fine.
    if guest.is_running() {
        guest.signal(libc::SIGINT);
    }
    guest.end().dies_by(libc::SIGINT).is_quiet();
}

fn stopping_and_continuing_does_no_harm() {
    let mut guest = Guest::start(&mut unikernel("clock", &["--mem=2"], &["poll=1500000000"]));
    guest.wait_for("clock: counter");
    for _ in 0..5 {
        guest.signal(libc::SIGSTOP);
        std::thread::sleep(Duration::from_millis(20));
        guest.signal(libc::SIGCONT);
        std::thread::sleep(Duration::from_millis(20));
    }
    guest
        .end()
        .exits(0)
        .is_quiet()
        .prints("clock: poll 1500000000 ns took");
}

fn a_stopped_run_can_be_ended() {
    for kind in ["spin", "poll-forever"] {
        let mut guest = start(kind);
        guest.signal(libc::SIGSTOP);
        guest.signal(libc::SIGTERM);
        guest.signal(libc::SIGCONT);
        guest.end().dies_by(libc::SIGTERM).is_quiet();
    }
}

/// SIGWINCH, SIGCHLD and SIGURG are ignored by default and interrupt nothing.
fn signals_that_are_ignored_do_no_harm() {
    let mut guest = start("spin");
    for signal in [libc::SIGWINCH, libc::SIGCHLD, libc::SIGURG, libc::SIGPIPE] {
        guest.signal(signal);
        std::thread::sleep(Duration::from_millis(20));
        assert!(guest.is_running(), "signal {signal}");
    }
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
}

/// As `timeout` in Perl does it: the timer outlives exec.
fn an_alarm_ends_the_run() {
    for kind in ["spin", "poll-forever"] {
        let mut guest = start(kind);
        guest.signal(libc::SIGALRM);
        guest.end().dies_by(libc::SIGALRM).is_quiet();
    }
}

/// The totals of each device are logged with `-v`, for every kind of end.
fn an_ended_run_logs_its_totals() {
    let directory = common::directory();
    let path = directory.path().join("disk.img");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let disk = format!("--disk={}", common::text(&path));
    let output = common::run(&mut unikernel(
        "block",
        &["-v", "--mem=4", &disk],
        &["fill"],
    ));
    output
        .exits(0)
        .complains("device 'storage': ")
        .complains("1048576 bytes in sectors of 512");
    output
        .complains("disk.img: 0 reads (0 bytes), ")
        .complains("tender: info: the guest halted with status 0\n");

    let mut guest = Guest::start(&mut unikernel(
        "hypercalls",
        &["-v", "--mem=4"],
        &["poll-forever"],
    ));
    guest.wait_for("poll-forever\n");
    guest.signal(libc::SIGTERM);
    let output = guest.end();
    output
        .dies_by(libc::SIGTERM)
        .complains("tender: info: signal 15 ended the run\n");
    output.complains("tender: info: console: 25 bytes written, 0 dropped\n");
}

/// Makes the command start with `call` made, which returns 0 on success.
fn after(
    command: &mut Command,
    call: impl Fn() -> libc::c_int + Send + Sync + 'static,
) -> &mut Command {
    // SAFETY: only system calls are made, which are safe between fork and exec.
    unsafe {
        command.pre_exec(move || match call() {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    }
}

/// With SIGALRM blocked, a signal just before a guest's sleep would be noticed only after it; with
/// SIGTERM blocked, never.
fn inherited_signal_masks_do_no_harm() {
    let mut command = unikernel("hypercalls", &["--mem=4"], &["poll-forever"]);
    after(&mut command, || {
        // SAFETY: the set is initialised before it is used, and nothing else is written.
        unsafe {
            let mut ours = std::mem::zeroed();
            libc::sigemptyset(&raw mut ours);
            for signal in [
                libc::SIGTERM,
                libc::SIGINT,
                libc::SIGHUP,
                libc::SIGALRM,
                libc::SIGSYS,
                libc::SIGUSR1,
            ] {
                libc::sigaddset(&raw mut ours, signal);
            }
            libc::sigprocmask(libc::SIG_BLOCK, &raw const ours, std::ptr::null_mut())
        }
    });
    let mut guest = Guest::start(&mut command);
    guest.wait_for("poll-forever\n");
    assert_eq!(status(guest.pid(), "SigBlk"), "0000000000000000");
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
}

/// SIGXFSZ would kill `tender`; instead the failed write is reported, and the guest continues.
fn a_file_that_has_reached_its_limit_does_no_harm() {
    let directory = common::directory();
    let path = directory.path().join("log");
    let mut command = unikernel("hypercalls", &["--mem=4"], &["puts-flood", "100"]);
    common::limit(&mut command, Resource::Fsize, 100);
    let output = Guest::spawn(command.stdout(File::create(&path).unwrap())).end();
    output
        .exits(0)
        .complains("File too large")
        .complains("output is dropped");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 100);
}

/// The kernel does not let the first process of a PID namespace die by its own signals.
fn the_first_process_of_a_container() {
    assert_eq!(
        // SAFETY: it takes flags; this thread starts no other one, which would be refused from here
        // on.
        unsafe { libc::unshare(libc::CLONE_NEWPID) },
        0,
        "{}",
        common::host_error("a PID namespace")
    );
    let mut command = unikernel("hypercalls", &["--mem=4"], &["poll-forever"]);
    let mut tender =
        common::children::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped())).unwrap();
    let mut line = String::new();
    BufReader::new(tender.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    // SAFETY: kill takes numbers; the child was not waited for, so the process id is its own.
    let sent = unsafe { libc::kill(tender.id() as i32, libc::SIGTERM) };
    let deadline = Instant::now() + common::LIMIT;
    while tender.try_wait().unwrap().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = tender.kill();
    let status = tender.wait().unwrap();
    assert_eq!(
        (line.as_str(), sent, status.code()),
        ("hypercalls: poll-forever\n", 0, Some(128 + libc::SIGTERM))
    );
}
