//! The ends of the process: with its tender, by another process, never by a guest's signal.

use std::time::Duration;

use libtest_mimic::Trial;

use super::{process, send, start, wait_for_end};
use crate::common::Need::{Mounts, ProcessEngine};
use crate::common::{self, refuse, run, tender, trial, with_devices};

/// Runs that are killed, of each kind.
const ROUNDS: u32 = 20;

/// A guest that computes, sleeps, makes hypercalls, traps.
const BUSY: [(&str, &[&str]); 4] = [
    ("hypercalls", &["spin"]),
    ("hypercalls", &["poll-forever"]),
    ("hypercalls", &["ok-storm", "1000000000"]),
    ("escape", &["random", "1", "1000000000", "0"]),
];

pub fn tests() -> Vec<Trial> {
    let mut tests = Vec::new();
    for (name, args) in BUSY {
        tests.push(
            trial(&format!("it_ends_with_its_tender::{}", args[0]))
                .needs(&[ProcessEngine])
                .run(move || ends_with_its_tender(name, args)),
        );
        // Otherwise the tender is the one that sleeps, and misses its guest afterwards.
        if args[0] != "poll-forever" {
            tests.push(
                trial(&format!("a_kill_of_it_ends_the_run::{}", args[0]))
                    .needs(&[ProcessEngine])
                    .run(move || kill_ends_the_run(name, args)),
            );
        }
    }
    tests.extend([
        trial!(signals_to_it_change_nothing, ProcessEngine),
        trial!(a_start_without_ptrace_names_it, ProcessEngine),
        trial!(the_engine_is_chosen_by_name, ProcessEngine, Mounts),
    ]);
    tests
}

fn ends_with_its_tender(name: &str, args: &[&str]) {
    for round in 0..ROUNDS {
        let (mut guest, child) = start(name, args);
        std::thread::sleep(Duration::from_micros(u64::from(150 * round)));
        guest.signal(libc::SIGKILL);
        guest.end().dies_by(libc::SIGKILL).is_quiet();
        wait_for_end(child);
    }
}

fn kill_ends_the_run(name: &str, args: &[&str]) {
    let (guest, child) = start(name, args);
    send(child, libc::SIGKILL);
    guest
        .end()
        .fails(&["the guest's process was killed by signal 9, "]);
}

/// All signals but SIGKILL, also those of faults, and stops of the process alone.
fn signals_to_it_change_nothing() {
    // An emulated processor takes a hundred times as long for each.
    const COUNT: &str = if cfg!(target_arch = "x86_64") {
        "100000"
    } else {
        "2000"
    };
    const ARGS: [&str; 4] = ["random", "7", COUNT, "0"];
    let expected = run(&mut process("escape", &[], &ARGS));
    expected.exits(0).is_quiet();
    let (mut guest, child) = start("escape", &ARGS);
    let mut sent = 0_u64;
    let signals = (1..=64).filter(|signal| *signal != libc::SIGKILL).cycle();
    for signal in signals {
        // SAFETY: takes numbers; while `tender` runs, the number is its child's.
        if !guest.is_running() || unsafe { libc::kill(child as i32, signal) } != 0 {
            break;
        }
        sent += 1;
        std::thread::sleep(Duration::from_micros(100));
    }
    let output = guest.end();
    assert!(sent > 64, "the run was too short: {sent} signals");
    output.exits(0).is_quiet();
    assert_eq!(output.stdout, expected.stdout, "after {sent} signals");
}

fn a_start_without_ptrace_names_it() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let mut command = process("hello", &[], &[]);
        run(refuse::fails(&mut command, libc::SYS_ptrace, &[], errno)).is_refused(&[
            "--engine=process: cannot be traced",
            "allow ptrace in the seccomp profile",
        ]);
    }
}

/// `auto` runs by KVM or warns; `kvm` fails where there is none.
fn the_engine_is_chosen_by_name() {
    let directory = common::directory();
    let image = common::fixture("hello");
    let run_by = |engine: &str| {
        let options = [engine, "--mem=2", "--", common::text(&image)];
        run(with_devices(&mut tender(options), directory.path(), &[]))
    };
    run_by("--engine=auto")
        .exits(0)
        .prints("hello")
        .complains("tender: warn: --engine=auto: ")
        .complains("the guest runs as a process");
    run_by("--engine=kvm").is_refused(&["cannot open /dev/kvm"]);
}
