//! Memory protection: an illegal access is stopped, the guest's trap handler receives it, and the
//! run ends.

use crate::common::Need::Kvm;
use crate::common::{Guest, run, trial, unikernel};
use libtest_mimic::Trial;

/// An access, its name in the guest's handler (on x86_64, on ARM64), and the address that the
/// handler reports, where known.
type Case = (&'static str, [&'static str; 2], &'static str);

const READ: [&str; 2] = [
    "page fault on read (not mapped)",
    "data abort on read (not mapped)",
];
const WRITE: [&str; 2] = [
    "page fault on write (not permitted)",
    "data abort on write (not permitted)",
];
const WILD: [&str; 2] = [
    "page fault on execution (not mapped)",
    "instruction abort (not mapped)",
];
const EXECUTE: [&str; 2] = [
    "page fault on execution (not permitted)",
    "instruction abort (not permitted)",
];
const UNDEFINED: [&str; 2] = ["invalid opcode", "unknown reason"];

const CASES: [Case; 17] = [
    ("null", READ, " 0x0 "),
    ("tables", READ, " 0x1000 "),
    ("low", READ, " 0xfff0 "),
    ("beyond", READ, " 0x400000 "),
    ("high", READ, " 0x8000000000 "),
    ("boot", WRITE, " 0x10000 "),
    ("manifest", WRITE, " 0x10038 "),
    ("text", WRITE, ""),
    ("rodata", WRITE, ""),
    ("jump", WILD, " 0x8000 "),
    ("jump-boot", EXECUTE, " 0x10000 "),
    ("jump-rodata", EXECUTE, ""),
    ("data", EXECUTE, ""),
    ("bss", EXECUTE, ""),
    ("heap", EXECUTE, ""),
    ("stack", EXECUTE, ""),
    ("undefined", UNDEFINED, ""),
];

pub fn tests() -> Vec<Trial> {
    let mut tests: Vec<_> = CASES
        .into_iter()
        .map(|case| {
            trial(&format!("stopped::{}", case.0))
                .needs(&[Kvm])
                .run(move || is_stopped(case))
        })
        .collect();
    tests.push(trial!(a_guest_without_handlers_is_ended, Kvm));
    tests
}

fn is_stopped((kind, [x86_64, aarch64], address): Case) {
    let name = if cfg!(target_arch = "x86_64") {
        x86_64
    } else {
        aarch64
    };
    let output = run(&mut unikernel("fault", &["--mem=4"], &[kind]));
    output
        .aborts()
        .prints(&format!("fault: {kind}\n"))
        .prints(&format!("trap: {name}"))
        .prints(address);
    assert!(!output.stdout.contains("NOT STOPPED"), "{output:?}");
}

/// On x86_64 that is a triple fault, which `tender` reports. On ARM64 the guest traps without end,
/// and the operator ends it.
fn a_guest_without_handlers_is_ended() {
    let mut command = unikernel("fault", &["--mem=4"], &["no-vector"]);
    if cfg!(target_arch = "x86_64") {
        run(&mut command)
            .fails(&["fault", "pc 0x"])
            .prints("fault: no-vector");
    } else {
        let mut guest = Guest::start(&mut command);
        guest.wait_for("fault: no-vector");
        guest.signal(libc::SIGTERM);
        guest.end().dies_by(libc::SIGTERM).is_quiet();
    }
}
