//! A guest that violates the hypercall interface is ended, with one line that names the hypercall,
//! the address and the guest's position. Valid calls, however unusual, are served.

use crate::common::Need::Kvm;
use crate::common::{Output, run, trial, unikernel};
use libtest_mimic::Trial;

/// A violation, and the parts of its report in addition to the program counter. Memory ends at
/// 0x400000.
type Case = (&'static str, &'static [&'static str]);

const BROKEN: [Case; 17] = [
    ("badptr", &["PUTS", "0x401000"]),
    ("straddle", &["PUTS", "0x3ffff8"]),
    ("bad-buffer", &["PUTS", "0x400000"]),
    ("straddle-buffer", &["PUTS", "9 bytes at 0x3ffff8"]),
    ("huge-len", &["PUTS", "9223372036854775807 bytes"]),
    ("overflow", &["PUTS", "0xfffffffffffffff8"]),
    ("bad-cookie", &["HALT", "0x3ffff8"]),
    ("zero-buffer", &["POLL", "at 0x0:"]),
    ("low-buffer", &["POLL", "0x1000"]),
    ("boot-buffer", &["POLL", "0x10000"]),
    ("text-buffer", &["WALLTIME", "the guest may write"]),
    ("number0", &["unknown hypercall 0 "]),
    ("number9", &["unknown hypercall 9 "]),
    ("number10", &["unknown hypercall 10 "]),
    ("number31", &["unknown hypercall 31 "]),
    ("width8", &["1-byte", WINDOW]),
    ("width16", &["2-byte", WINDOW]),
];

/// Port or address of PUTS.
const WINDOW: &str = if cfg!(target_arch = "x86_64") {
    "0x502"
} else {
    "0x100000010"
};

#[cfg(target_arch = "x86_64")]
const OF_THIS_ARCHITECTURE: [Case; 5] = [
    ("read", &["read", "0x502"]),
    ("read-string", &["read", "0x502"]),
    ("port", &["0x80"]),
    ("wait", &["HLT"]),
    ("number4096", &["0x1500"]),
];

#[cfg(target_arch = "aarch64")]
const OF_THIS_ARCHITECTURE: [Case; 8] = [
    ("width64", &["8-byte", WINDOW]),
    ("read", &["read", WINDOW]),
    ("unaligned", &["0x100000014"]),
    ("writeback", &[WINDOW]),
    ("stp", &[WINDOW]),
    ("ldp", &[WINDOW]),
    ("far-window", &["0x120000000"]),
    ("number4096", &["0x100008000"]),
];

pub fn tests() -> Vec<Trial> {
    let cases = BROKEN.into_iter().chain(OF_THIS_ARCHITECTURE);
    let mut tests: Vec<_> = cases
        .map(|case| {
            trial(&format!("broken::{}", case.0))
                .needs(&[Kvm])
                .run(move || ends_with_a_report(case))
        })
        .collect();
    tests.extend([
        trial!(memory_can_be_used_to_its_last_byte, Kvm),
        trial!(calls_for_missing_devices_return_an_error, Kvm),
        trial!(thousands_of_calls_are_served, Kvm),
    ]);
    tests.extend(unusual());
    tests
}

#[cfg(target_arch = "x86_64")]
fn unusual() -> Vec<libtest_mimic::Trial> {
    vec![trial!(string_output_is_served_or_reported, Kvm)]
}

#[cfg(target_arch = "aarch64")]
fn unusual() -> Vec<libtest_mimic::Trial> {
    vec![
        trial!(waiting_for_an_interrupt_can_be_ended, Kvm),
        trial!(a_store_with_release_is_served_or_reported, Kvm),
        trial!(the_window_cannot_be_executed, Kvm),
        trial!(cache_maintenance_of_the_window_is_harmless, Kvm),
    ]
}

fn hypercalls(arguments: &[&str]) -> Output {
    run(&mut unikernel("hypercalls", &["--mem=4"], arguments))
}

fn ends_with_a_report((kind, args): Case) {
    let output = hypercalls(&[kind]);
    output
        .fails(args)
        .complains("hypercalls.hvt: ")
        .complains("pc 0x");
    assert_eq!(
        output.stdout,
        format!("hypercalls: {kind}\n"),
        "the guest got further than its broken rule"
    );
}

fn memory_can_be_used_to_its_last_byte() {
    hypercalls(&["end-of-ram"])
        .exits(0)
        .is_quiet()
        .prints("the end\n");
}

fn calls_for_missing_devices_return_an_error() {
    let output = hypercalls(&["no-device"]);
    output.exits(0).is_quiet();
    let refused = "(Err(Invalid), Err(Invalid), Err(Invalid), Err(Invalid))";
    assert_eq!(output.stdout.matches(refused).count(), 6, "{output:?}");
}

fn thousands_of_calls_are_served() {
    hypercalls(&["ok-storm", "3000"]).exits(0).is_quiet();
    let output = hypercalls(&["puts-flood", "300"]);
    let expected: String = (0..300).map(|i| format!("flood {i}\n")).collect();
    assert_eq!(
        output.exits(0).is_quiet().stdout,
        format!("hypercalls: puts-flood\n{expected}")
    );
}

/// `rep outsd` of two values: some hosts make two hypercalls of it, others one exit with both
/// values.
#[cfg(target_arch = "x86_64")]
fn string_output_is_served_or_reported() {
    let output = hypercalls(&["string"]);
    match output.code() {
        3 => assert_eq!(
            output.stdout.matches("this should not be printed").count(),
            2,
            "{output:?}"
        ),
        _ => _ = output.fails(&["0x502", "pc 0x"]),
    }
}

/// `stlr` is a store like others, if the processor describes it to the hypervisor.
#[cfg(target_arch = "aarch64")]
fn a_store_with_release_is_served_or_reported() {
    let output = hypercalls(&["atomic"]);
    match output.code() {
        3 => assert_eq!(
            output.stdout.matches("this should not be printed").count(),
            1,
            "{output:?}"
        ),
        _ => _ = output.fails(&[WINDOW, "pc 0x"]),
    }
}

/// No interrupt ever comes: the guest sleeps until the operator ends it.
#[cfg(target_arch = "aarch64")]
fn waiting_for_an_interrupt_can_be_ended() {
    let mut guest =
        crate::common::Guest::start(&mut unikernel("hypercalls", &["--mem=4"], &["wait"]));
    guest.wait_for("hypercalls: wait");
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
}

#[cfg(target_arch = "aarch64")]
fn the_window_cannot_be_executed() {
    hypercalls(&["execute"])
        .aborts()
        .prints("trap: instruction abort (not permitted)");
}

/// KVM skips it without an exit.
#[cfg(target_arch = "aarch64")]
fn cache_maintenance_of_the_window_is_harmless() {
    hypercalls(&["cache"])
        .exits(3)
        .is_quiet()
        .prints("hypercalls: cache came back");
}
