//! The guest's clocks are those of the host, and POLL sleeps as long as it is asked to.

mod common;

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{kvm_test, run, unikernel};

fn main() -> ExitCode {
    common::main(vec![
        kvm_test("clocks_agree_with_each_other", clocks_agree_with_each_other),
        kvm_test("the_wall_clock_is_the_hosts", the_wall_clock_is_the_hosts),
        kvm_test("poll_is_never_too_short", poll_is_never_too_short),
    ])
}

/// The number after `before` in what the guest said.
fn number(text: &str, before: &str) -> u64 {
    let rest = text.split(before).nth(1).unwrap_or_else(|| panic!("{before:?} is missing in {text:?}"));
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("no number after {before:?} in {text:?}"))
}

fn clocks_agree_with_each_other() {
    run(&mut unikernel("clock", &["--mem=2"], &[])).exits(0).is_quiet().says("clock: ok");
}

fn the_wall_clock_is_the_hosts() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let before = now();
    let output = run(&mut unikernel("clock", &["--mem=2"], &[]));
    let after = now();
    let walltime = Duration::from_nanos(number(&output.stdout, "clock: walltime "));
    assert!(before <= walltime && walltime <= after, "{before:?} <= {walltime:?} <= {after:?}");
}

fn poll_is_never_too_short() {
    for timeout in [1, 1_000_000, 100_000_000, 1_200_000_000] {
        let output = run(&mut unikernel("clock", &["--mem=2"], &[&format!("poll={timeout}")]));
        let took = number(&output.exits(0).is_quiet().stdout, "ns took ");
        // Host and guest count with different clocks: 1 % and 50 µs.
        assert!(took + timeout / 100 + 50_000 >= timeout, "{timeout} ns took {took} ns");
    }
}
