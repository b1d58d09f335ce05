//! Limits of the operator: the time of a run, the guest's output, and memory that is taken at the
//! start.

use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, Mounts, Root};
use crate::common::Resource;
use crate::common::trace::trace_threads;
use crate::common::{self, Device, Guest, Output, full_pipe, run, text, trial, unikernel};

pub fn tests() -> Vec<Trial> {
    let mut tests = Vec::new();
    for kind in ["spin", "poll-forever"] {
        tests.push(
            trial(&format!("a_timeout_ends::{kind}"))
                .needs(&[Kvm])
                .run(move || times_out(&[kind])),
        );
    }
    if cfg!(target_arch = "aarch64") {
        // On x86_64 it is an immediate error.
        tests.push(
            trial("a_timeout_ends::wait")
                .needs(&[Kvm])
                .run(|| times_out(&["wait"])),
        );
    }
    tests.extend([
        trial("a_timeout_ends::hypercalls")
            .needs(&[Kvm])
            .run(|| times_out(&["ok-storm", "1000000000"])),
        trial("a_timeout_ends::blocked_output")
            .needs(&[Kvm])
            .run(blocked_output_times_out),
        trial!(a_timeout_that_is_not_reached_does_nothing, Kvm),
        trial!(a_signal_before_the_timeout_is_a_signal, Kvm),
        trial!(output_is_limited, Kvm),
        trial!(output_of_many_lines_ends_with_the_run, Kvm),
        trial!(stamps_count_as_output, Kvm),
        trial!(output_within_the_limit_is_whole, Kvm),
        trial!(a_guest_has_no_more_memory_than_it_was_given, Kvm),
        trial("core_files_of_the_process_omit_guest_memory")
            .needs(&[Kvm])
            .run(core_files_omit_guest_memory),
        trial!(locked_memory_is_taken_at_the_start, Kvm),
        trial!(
            memory_that_may_not_be_locked_is_explained,
            Root,
            Mounts,
            Kvm
        ),
    ]);
    tests
}

/// The registers of a report, after the program counter.
#[cfg(target_arch = "x86_64")]
const REGISTERS: [&str; 7] = [
    "pc 0x",
    "sp 0x",
    "rflags 0x",
    "cr2 0x",
    "cr3 0x",
    "cr0 0x",
    "idt 0x",
];
#[cfg(target_arch = "aarch64")]
const REGISTERS: [&str; 7] = [
    "pc 0x", "esr 0x", "far 0x", "elr 0x", "spsr 0x", "vbar 0x", "sctlr 0x",
];

fn hypercalls(options: &[&str], arguments: &[&str]) -> Command {
    unikernel("hypercalls", &[&["--mem=4"], options].concat(), arguments)
}

fn is_over(output: &Output, since: Instant) {
    output
        .fails(&["hypercalls.hvt: timed out after 1 s (--timeout) ("])
        .fails(&REGISTERS);
    assert!(
        since.elapsed() >= Duration::from_secs(1),
        "{:?}",
        since.elapsed()
    );
}

fn times_out(arguments: &[&str]) {
    let since = Instant::now();
    is_over(&run(&mut hypercalls(&["--timeout=1"], arguments)), since);
}

fn blocked_output_times_out() {
    let (_reader, writer) = full_pipe();
    let since = Instant::now();
    let output =
        Guest::spawn(hypercalls(&["--timeout=1"], &["puts-flood", "10"]).stdout(writer)).end();
    is_over(&output, since);
}

fn a_timeout_that_is_not_reached_does_nothing() {
    run(&mut hypercalls(&["--timeout=600"], &["ok-storm", "10"]))
        .exits(0)
        .is_quiet();
}

/// Including SIGALRM, which the timer uses too.
fn a_signal_before_the_timeout_is_a_signal() {
    for signal in [libc::SIGTERM, libc::SIGALRM] {
        let mut guest = Guest::start(&mut hypercalls(&["--timeout=600"], &["spin"]));
        guest.wait_for("hypercalls: spin\n");
        guest.signal(signal);
        guest.end().dies_by(signal).is_quiet();
    }
}

/// Returns the number before `args` in `tender`'s messages.
fn number_before(output: &Output, args: &str) -> u64 {
    let (before, _) = output
        .stderr
        .split_once(args)
        .unwrap_or_else(|| panic!("no {args:?}: {output:?}"));
    before
        .split(' ')
        .next_back()
        .unwrap()
        .parse()
        .unwrap_or_else(|_| panic!("no number: {output:?}"))
}

fn flood(lines: u64) -> String {
    let lines: String = (0..lines).map(|i| format!("flood {i}\n")).collect();
    format!("hypercalls: puts-flood\n{lines}")
}

/// Dropped output is logged once, and counted to the byte.
fn output_is_limited() {
    let since = Instant::now();
    let output = run(&mut hypercalls(
        &["--console-rate=1K"],
        &["puts-flood", "2000"],
    ));
    let seconds = since.elapsed().as_secs() + 2;
    output
        .exits(0)
        .complains("warn: console: output exceeds --console-rate; the excess");
    assert_eq!(output.stderr.lines().count(), 2, "{output:?}");
    let dropped = number_before(
        &output,
        " bytes of guest output dropped by --console-rate\n",
    );
    assert_eq!(
        output.stdout.len() as u64 + dropped,
        flood(2000).len() as u64
    );
    assert!(
        output.stdout.len() as u64 <= 1024 * seconds,
        "{} bytes in {seconds} s",
        output.stdout.len()
    );
    assert_eq!(output.stdout[..1024], flood(2000)[..1024]);
}

/// One PUTS of so many lines; a signal arrives at its third write.
fn output_of_many_lines_ends_with_the_run() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGALRM] {
        let newlines = "\n".repeat(4000);
        let mut writes = 0;
        let mut command = unikernel("hello", &["--mem=4", "--console-timestamps"], &[&newlines]);
        let status = trace_threads(&mut command, |pid, _, call| {
            writes += usize::from(call.number == libc::SYS_write && call.arguments[0] == 1);
            if writes == 4 {
                // SAFETY: takes numbers; the process is traced and not waited for, so the number is
                // its own.
                assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
                writes = 1000;
            }
            false
        });
        assert_eq!(status, signal, "{} writes", writes - 1000);
        assert!(
            writes <= 1001,
            "{} more writes after signal {signal}",
            writes - 1000
        );
    }
}

/// The rate limits the log; the statistics count only the guest's bytes.
fn stamps_count_as_output() {
    let directory = common::directory();
    let stats = directory.path().join("stats.json");
    let options = [
        "--mem=4",
        "--console-timestamps",
        "--console-rate=1K",
        &format!("--stats={}", text(&stats)),
    ];
    let newlines = "\n".repeat(4000);
    let since = Instant::now();
    let output = run(&mut unikernel("hello", &options, &[&newlines]));
    // A second's worth may pass immediately, and the last second may have begun.
    let seconds = since.elapsed().as_secs() as usize + 2;
    output.exits(0).complains("output exceeds --console-rate");
    assert!(
        output.stdout.len() <= 1024 * seconds,
        "{} bytes in {seconds} s",
        output.stdout.len()
    );
    let stamp = "2026-11-25T16:17:26.123456Z ".len();
    let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(stats).unwrap()).unwrap();
    let bytes = |name: &str| stats["console"][name].as_u64().unwrap() as usize;
    let lines = output.stdout.lines().count();
    assert!(
        lines > 30
            && output
                .stdout
                .len()
                .abs_diff(bytes("written_bytes") + lines * stamp)
                < stamp,
        "{stats}"
    );
    let memory = format!("memory: {} bytes\n", 4 << 20);
    assert_eq!(
        bytes("written_bytes") + bytes("dropped_bytes"),
        "hello: \n".len() + newlines.len() + memory.len()
    );
    assert_eq!(bytes("dropped_bytes"), bytes("excess_bytes"));
}

fn output_within_the_limit_is_whole() {
    let output = run(&mut hypercalls(
        &["--console-rate=1M"],
        &["puts-flood", "300"],
    ));
    assert_eq!(output.exits(0).is_quiet().stdout, flood(300));
}

/// A line of `/proc/PID/status`, in KiB.
fn kib(guest: &Guest, name: &str) -> u64 {
    common::status(guest.pid(), name)
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

fn sleeper(options: &[&str]) -> Guest {
    let guest = Guest::start(&mut unikernel("hypercalls", options, &["poll-forever"]));
    guest.wait_for("poll-forever\n");
    guest
}

/// The address space grows with `--mem` by exactly that size.
fn a_guest_has_no_more_memory_than_it_was_given() {
    let [small, large] = ["--mem=4", "--mem=68"].map(|mem| kib(&sleeper(&[mem]), "VmSize"));
    // Its own mappings vary between runs by some pages.
    let grown = large - small;
    assert!(
        grown.abs_diff(64 << 10) <= 256,
        "{grown} KiB more for 64 MiB more"
    );
}

/// Each mapping of guest memory has the flag `dd`: MADV_DONTDUMP.
fn core_files_omit_guest_memory() {
    const SIZE: u64 = 64 << 20;
    let guest = sleeper(&["--mem=64"]);
    let mappings = std::fs::read_to_string(format!("/proc/{}/smaps", guest.pid())).unwrap();
    let mut excluded = 0;
    let mut size = 0;
    for line in mappings.lines() {
        let mut args = line.split_whitespace();
        match args.next() {
            Some("Size:") => size = args.next().unwrap().parse::<u64>().unwrap() << 10,
            Some("VmFlags:") if args.any(|flag| flag == "dd") => excluded += size,
            _ => {}
        }
    }
    assert!(
        excluded >= SIZE,
        "{excluded} bytes are excluded: {mappings}"
    );
}

fn locked_memory_is_taken_at_the_start() {
    assert_eq!(kib(&sleeper(&["--mem=8"]), "VmLck"), 0);
    let guest = sleeper(&["--mem=8", "--lock-memory"]);
    assert_eq!(kib(&guest, "VmLck"), 8 << 10);
    assert!(kib(&guest, "VmRSS") >= 8 << 10);
}

fn memory_that_may_not_be_locked_is_explained() {
    let directory = common::directory();
    let options = ["--mem=8", "--lock-memory"];
    let mut command = common::as_nobody(
        "hello",
        directory.path(),
        &[Device::Made("kvm", 0o666)],
        &options,
    );
    common::limit(&mut command, Resource::Memlock, 65536);
    run(&mut command).is_refused(&[
        "cannot lock 8388608 bytes",
        "RLIMIT_MEMLOCK is 65536 bytes",
        "LimitMEMLOCK=",
    ]);
}
