//! The wall of `--engine=process`: the process that is the guest has no memory but the guest's and
//! no right at all, it never outlives its tender, and no guest gets out of it.

mod calls;
mod ends;
mod escape;
mod inherited;

use std::fs;
use std::process::Command;
use std::time::Instant;

use libtest_mimic::Trial;

use crate::common::{Guest, LIMIT, unikernel};

pub fn tests() -> Vec<Trial> {
    let mut tests = inherited::tests();
    tests.extend(ends::tests());
    tests.extend(calls::tests());
    tests.extend(escape::tests());
    tests
}

/// Megabytes of memory of the guests.
const MEGABYTES: u64 = 4;

/// A `tender` with this engine, also if the tests are of another.
fn process(name: &str, options: &[&str], args: &[&str]) -> Command {
    let memory = format!("--mem={MEGABYTES}");
    let options = [&["--engine=process", memory.as_str()], options].concat();
    unikernel(name, &options, args)
}

/// Returns the process that is the guest of this `tender`, if there is one.
pub fn child_of(tender: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{tender}/task/{tender}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// A guest that is running, and its process.
fn start(name: &str, args: &[&str]) -> (Guest, u32) {
    let guest = Guest::start(&mut process(name, &[], args));
    guest.wait_for(&format!("{name}: {}\n", args[0]));
    let child = child_of(guest.pid()).expect("the guest is a process");
    (guest, child)
}

/// Returns the state of a process, such as `R`; none if it has ended.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.chars().next().filter(|state| !"ZX".contains(*state))
}

/// Waits until the process has ended.
#[track_caller]
fn wait_for_end(pid: u32) {
    let deadline = Instant::now() + LIMIT;
    while let Some(state) = state(pid) {
        assert!(Instant::now() < deadline, "{pid} is alive: {state}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Sends a signal to a process that a test has started.
#[track_caller]
fn send(pid: u32, signal: i32) {
    // SAFETY: takes numbers. The process is a child of a running `tender`, so the number is its own.
    let result = unsafe { libc::kill(pid as i32, signal) };
    assert!(result == 0, "{}", crate::common::host_error("kill"));
}
