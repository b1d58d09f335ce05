//! The guest's clocks are those of the host, and POLL sleeps as long as it is asked to.

use libtest_mimic::Trial;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::common::Need::Kvm;
use crate::common::{Guest, Output, refuse, run, trial, unikernel};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(clocks_agree_with_each_other, Kvm),
        trial!(the_wall_clock_is_the_hosts, Kvm),
        trial!(poll_is_never_too_short, Kvm),
        trial("a_stop_lengthens_no_sleep")
            .needs(&[Kvm])
            .run(|| a_stop_lengthens_no_sleep(|_| {})),
        trial("a_stop_lengthens_no_sleep::by_timer")
            .needs(&[Kvm])
            .run(|| {
                a_stop_lengthens_no_sleep(|command| {
                    refuse::fails(command, libc::SYS_epoll_pwait2, &[], libc::ENOSYS);
                });
            }),
        trial("overflow::happens_to_who_looks_too_rarely")
            .needs(&[Kvm])
            .try_run(a_clock_falls_behind),
        trial("overflow::sleeps_are_cut_before_it")
            .needs(&[Kvm])
            .try_run(sleeps_beyond_the_horizon_are_cut),
        trial("overflow::clocks_are_right_after_a_long_sleep")
            .needs(&[Kvm])
            .try_run(clocks_are_right_after_a_long_sleep),
    ]
}

/// Returns the number after `before` in the guest's output.
fn number(text: &str, before: &str) -> u64 {
    let rest = text
        .split(before)
        .nth(1)
        .unwrap_or_else(|| panic!("{before:?} is missing in {text:?}"));
    let digits = rest
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap_or_default();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("no number after {before:?} in {text:?}"))
}

fn clocks_agree_with_each_other() {
    run(&mut unikernel("clock", &["--mem=2"], &[]))
        .exits(0)
        .is_quiet()
        .prints("clock: ok");
}

fn the_wall_clock_is_the_hosts() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let before = now();
    let output = run(&mut unikernel("clock", &["--mem=2"], &[]));
    let after = now();
    let walltime = Duration::from_nanos(number(&output.stdout, "clock: walltime "));
    assert!(
        before <= walltime && walltime <= after,
        "{before:?} <= {walltime:?} <= {after:?}"
    );
}

fn poll_is_never_too_short() {
    for timeout in [1, 1_000_000, 100_000_000, 1_200_000_000] {
        let output = run(&mut unikernel(
            "clock",
            &["--mem=2"],
            &[&format!("poll={timeout}")],
        ));
        let took = number(&output.exits(0).is_quiet().stdout, "ns took ");
        // Host and guest use different clocks: 1 % and 50 µs tolerance.
        assert!(
            took + timeout / 100 + 50_000 >= timeout,
            "{timeout} ns took {took} ns"
        );
    }
}

/// A signal asks for statistics during the sleep, and a stop lasts longer than the sleep. The guest
/// wakes at its deadline or, if that has passed, when it is continued.
fn a_stop_lengthens_no_sleep(prepare: fn(&mut Command)) {
    const SLEEP: u64 = 4_000_000_000;
    let mut command = unikernel("clock", &["--mem=2"], &[&format!("poll={SLEEP}")]);
    prepare(&mut command);
    let mut guest = Guest::start(&mut command);
    guest.wait_for("clock: counter");
    std::thread::sleep(Duration::from_millis(200));
    guest.signal(libc::SIGUSR1);
    guest.signal(libc::SIGSTOP);
    std::thread::sleep(Duration::from_nanos(SLEEP + 1_000_000_000));
    guest.signal(libc::SIGCONT);
    guest.signal(libc::SIGUSR1);
    let took = number(&guest.end().exits(0).stdout, "ns took ");
    assert!(
        (SLEEP * 99 / 100..2 * SLEEP - 500_000_000).contains(&took),
        "{SLEEP} ns took {took} ns"
    );
}

/// Largest part of a horizon that one sleep may take: POLL ends after a quarter, and the return
/// takes some time.
const QUARTER_AND_A_BIT: (u64, u64) = (3, 10);

/// Only ARM64's guests have a clock that overflows, so only there POLL ends early.
fn only_on_arm64() -> Result<(), String> {
    if cfg!(target_arch = "aarch64") {
        Ok(())
    } else {
        Err("guests of this architecture have another clock".into())
    }
}

/// The longest time between two clock readings of a guest, in nanoseconds.
fn horizon() -> u64 {
    let output = run(&mut unikernel("sleeper", &["--mem=2"], &["sleep=1"]));
    is_right(&output);
    number(&output.stdout, "clock: horizon ")
}

/// The fault of the next tests can happen: with a horizon of some seconds, which `tender`'s limit
/// does not cut, one sleep is enough, and the clock is behind by exactly the horizon.
fn a_clock_falls_behind() -> Result<(), String> {
    only_on_arm64()?;
    let output = run(&mut unikernel("sleeper", &["--mem=2"], &["bits=5"]));
    output.exits(3).is_quiet().prints("POLL called 1 times\n");
    let (horizon, behind) = (number(&output.stdout, "clock: horizon "), behind(&output));
    assert!(
        behind.abs_diff(horizon) < horizon / 10,
        "{behind} ns behind, and the horizon is {horizon} ns"
    );
    // A sleep that ends before the horizon does no harm, so the horizon is the cause.
    is_right(&run(&mut unikernel(
        "sleeper",
        &["--mem=2"],
        &["bits=5", &format!("sleep={}", horizon / 2)],
    )));
    Ok(())
}

/// Returns how far the guest's clock is behind, in nanoseconds.
fn behind(output: &Output) -> u64 {
    if output.stdout.ends_with("clock: right\n") {
        return 0;
    }
    let line = output
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("clock: ")?.strip_suffix(" ns behind"));
    line.unwrap_or_else(|| panic!("no amount: {output:?}"))
        .parse()
        .unwrap()
}

/// Checks that no overflow was missed, each of which is a whole horizon. The guest reads its two
/// clocks one after the other, and a busy emulated processor may stop in between for longer than it
/// allows for.
#[track_caller]
fn is_right(output: &Output) {
    let horizon = number(&output.is_quiet().stdout, "clock: horizon ");
    assert!(behind(output) < horizon / 10, "{output:?}");
}

/// The first of the sleeps that make up one beyond the horizon.
fn sleeps_beyond_the_horizon_are_cut() -> Result<(), String> {
    only_on_arm64()?;
    slowly()?;
    let horizon = horizon();
    let guest = Guest::start(&mut unikernel(
        "clock",
        &["--mem=2"],
        &[&format!("poll={}", 2 * horizon)],
    ));
    let (share, parts) = QUARTER_AND_A_BIT;
    std::thread::sleep(Duration::from_nanos(horizon * share / parts));
    let took = number(&guest.end().exits(0).is_quiet().stdout, "ns took ");
    assert!(
        took <= horizon * share / parts && took >= horizon / 5,
        "POLL took {took} ns of {horizon} ns"
    );
    Ok(())
}

/// One and a half horizons, which are minutes.
fn clocks_are_right_after_a_long_sleep() -> Result<(), String> {
    only_on_arm64()?;
    slowly()?;
    let horizon = horizon();
    let guest = Guest::start(&mut unikernel("sleeper", &["--mem=2"], &[]));
    std::thread::sleep(Duration::from_nanos(horizon + horizon / 2));
    let output = guest.end();
    is_right(&output);
    assert!(number(&output.stdout, "POLL called ") > 1, "{output:?}");
    Ok(())
}

fn slowly() -> Result<(), String> {
    let wanted = std::env::var_os("TENDER_SLOW_TESTS").is_some();
    if wanted {
        Ok(())
    } else {
        Err("takes minutes; TENDER_SLOW_TESTS=1 runs it".into())
    }
}
