//! Identification registers, registers of optional features, and calls to firmware.

use libtest_mimic::Trial;

use crate::common::{Guest, kernel, kvm_test, kvm_test_if_possible, unikernel};
use crate::{cpuid, faults, feature, msr};

/// Features that have to be asked for, or that belong to hypervisors and to debuggers of the host.
const HIDDEN: [&str; 12] =
    ["sve", "sme", "mte", "mpam", "amu", "spe", "trbe", "trace", "pauth-apa", "pauth-api", "pauth-gpa", "pauth-gpi"];

/// Functions of PSCI and the services of KVM that a guest could call: version, CPU_SUSPEND, CPU_OFF, CPU_ON, SYSTEM_OFF,
/// SYSTEM_RESET, SYSTEM_RESET2; random numbers; stolen time; KVM's own.
const CALLS: [&str; 10] = [
    "84000000", "84000001", "84000002", "c4000003", "84000008", "84000009", "84000012", "84000050", "c5000020",
    "86000000",
];

pub fn tests() -> Vec<Trial> {
    let hidden = HIDDEN.into_iter().map(|name| kvm_test(&format!("hidden::{name}"), move || is_hidden(name)));
    let mut tests: Vec<_> = hidden.collect();
    tests.extend([
        kvm_test("floating_point_is_there", floating_point_is_there),
        kvm_test_if_possible("hidden::pmu", || can_hide_pmu().map(|()| is_hidden("pmu"))),
        kvm_test_if_possible("optional_registers_fault::pmu", || can_hide_pmu().map(|()| faults("pmu", ""))),
        kvm_test("optional_registers_fault::sve", || faults("sve", "")),
        kvm_test("optional_registers_fault::pauth", || faults("pauth", "")),
        kvm_test("the_upper_half_has_no_tables", the_upper_half_has_no_tables),
        kvm_test("firmware_refuses_every_call", firmware_refuses_every_call),
        kvm_test("the_monitor_refuses_every_call", the_monitor_refuses_every_call),
        kvm_test("a_processor_that_is_off_can_be_ended", a_processor_that_is_off_can_be_ended),
    ]);
    tests
}

fn is_hidden(name: &str) {
    assert_eq!(feature(name), "0", "{}", cpuid());
}

/// 0 is there; 1 is there, with half precision; 15 is not there.
fn floating_point_is_there() {
    for name in ["fp", "simd"] {
        assert!(matches!(feature(name), "0" | "1"), "{}", cpuid());
    }
}

/// Older kernels tell every guest of a PMU, whose registers are zeros that stay so.
fn can_hide_pmu() -> Result<(), String> {
    if kernel() < (5, 12) { Err("KVM shows a PMU to every guest before Linux 5.12".into()) } else { Ok(()) }
}

/// TTBR1_EL1 may be written, but it is not walked.
fn the_upper_half_has_no_tables() {
    faults("ttbr1", "data abort on read (not mapped)");
}

/// By HVC: "not supported" each time, and the guest runs on.
fn firmware_refuses_every_call() {
    for function in CALLS {
        let output = msr(&format!("hvc {function}"));
        output.exits(3).is_quiet().says("msr: hvc gave 0xffffffffffffffff\n");
    }
}

/// By SMC: the same, or an undefined instruction.
fn the_monitor_refuses_every_call() {
    for function in CALLS {
        let output = msr(&format!("smc {function}"));
        output.is_quiet();
        match output.code() {
            255 => output.says("trap: unknown reason"),
            _ => output.exits(3).says("msr: smc gave 0xffffffffffffffff\n"),
        };
    }
}

/// CPU_OFF of PSCI 0.1 is the one that KVM always does: it harms nobody but the guest, and the operator can end it.
fn a_processor_that_is_off_can_be_ended() {
    let mut guest = Guest::start(&mut unikernel("msr", &["--mem=2"], &["hvc", "95c1ba5f"]));
    guest.wait_for("msr: hvc");
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
}
