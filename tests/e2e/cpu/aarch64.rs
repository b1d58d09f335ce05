//! Identification registers, registers of optional features, and calls to firmware.

use kvm_bindings::kvm_vcpu_init;
use kvm_ioctls::Kvm;
use libtest_mimic::Trial;

use crate::common::Need;
use crate::common::{Guest, trial, unikernel};
use crate::cpu::{cpuid, faults, msr};

/// Features that a guest must request, or that belong to hypervisors and to debuggers of the host.
const HIDDEN: [&str; 13] = [
    "sve",
    "sme",
    "mte",
    "mpam",
    "amu",
    "pmu",
    "spe",
    "trbe",
    "trace",
    "pauth-apa",
    "pauth-api",
    "pauth-gpa",
    "pauth-gpi",
];

/// ID_AA64DFR0_EL1, as KVM numbers registers, and the position of the PMU version in it.
const DEBUG_FEATURES: u64 = 0x6030_0000_0013_c028;
const PMU_VERSION: u32 = 8;

/// Functions of PSCI and the services of KVM that a guest could call: version, CPU_SUSPEND,
/// CPU_OFF, CPU_ON, SYSTEM_OFF, SYSTEM_RESET, SYSTEM_RESET2; random numbers; stolen time; KVM's
/// own.
const CALLS: [&str; 10] = [
    "84000000", "84000001", "84000002", "c4000003", "84000008", "84000009", "84000012", "84000050",
    "c5000020", "86000000",
];

pub fn tests() -> Vec<Trial> {
    let hidden = HIDDEN.map(|name| {
        trial(&format!("hidden::{name}"))
            .needs(&[Need::KvmEngine])
            .try_run(move || is_hidden(name))
    });
    let faulting = ["pmu", "sve", "pauth"].map(|name| {
        trial(&format!("optional_registers_fault::{name}"))
            .needs(&[Need::KvmEngine])
            .try_run(move || registers_fault(name))
    });
    let mut tests: Vec<_> = hidden.into_iter().chain(faulting).collect();
    tests.extend([
        trial!(floating_point_is_there, Need::Kvm),
        trial!(the_upper_half_has_no_tables, Need::Kvm),
        trial!(firmware_refuses_every_call, Need::Kvm),
        trial!(the_monitor_refuses_every_call, Need::Kvm),
        trial!(a_processor_that_is_off_can_be_ended, Need::KvmEngine),
    ]);
    tests
}

/// Whether this machine's KVM shows a feature only to guests that ask for it.
fn can_be_hidden(name: &str) -> Result<(), String> {
    if name == "pmu" && forced_pmu() != 0 {
        return Err("this machine's KVM shows it to every guest, requested or not".into());
    }
    Ok(())
}

/// Returns the PMU version of a vCPU that was requested without a PMU. Old kernels report one
/// anyway; its registers are zeros that stay so.
fn forced_pmu() -> u64 {
    let vm = Kvm::new()
        .and_then(|kvm| kvm.create_vm())
        .expect("KVM makes a machine");
    let vcpu = vm.create_vcpu(0).expect("KVM makes a processor");
    let mut target = kvm_vcpu_init::default();
    vm.get_preferred_target(&mut target)
        .expect("KVM prefers some processor");
    vcpu.vcpu_init(&target).expect("a processor of no features");
    let mut value = [0; 8];
    vcpu.get_one_reg(DEBUG_FEATURES, &mut value)
        .expect("every processor has the register");
    u64::from_le_bytes(value) >> PMU_VERSION & 0xf
}

/// Returns the guest's line about the feature `name`.
#[track_caller]
fn feature(name: &str) -> &'static str {
    let mut values = cpuid().lines().filter_map(|line| {
        line.strip_prefix("cpuid: ")?
            .strip_prefix(name)?
            .strip_prefix(' ')
    });
    values
        .next()
        .unwrap_or_else(|| panic!("no line about {name}: {}", cpuid()))
}

fn is_hidden(name: &str) -> Result<(), String> {
    can_be_hidden(name)?;
    assert_eq!(feature(name), "0", "{}", cpuid());
    Ok(())
}

fn registers_fault(name: &str) -> Result<(), String> {
    can_be_hidden(name)?;
    faults(name, "");
    Ok(())
}

/// 0 means present; 1 present, with half precision; 15 absent.
fn floating_point_is_there() {
    for name in ["fp", "simd"] {
        assert!(matches!(feature(name), "0" | "1"), "{}", cpuid());
    }
}

/// TTBR1_EL1 may be written, but it is not walked.
fn the_upper_half_has_no_tables() {
    faults("ttbr1", "data abort on read (not mapped)");
}

/// By HVC: "not supported" each time, and the guest runs on.
fn firmware_refuses_every_call() {
    for function in CALLS {
        let output = msr(&format!("hvc {function}"));
        output
            .exits(3)
            .is_quiet()
            .prints("msr: hvc gave 0xffffffffffffffff\n");
    }
}

/// By SMC: the same, or an undefined instruction.
fn the_monitor_refuses_every_call() {
    for function in CALLS {
        let output = msr(&format!("smc {function}"));
        match output.code() {
            255 => output.aborts().prints("trap: unknown reason"),
            _ => output
                .exits(3)
                .is_quiet()
                .prints("msr: smc gave 0xffffffffffffffff\n"),
        };
    }
}

/// CPU_OFF of PSCI 0.1 is the one call that KVM always performs: it harms only the guest, and the
/// operator can end it.
fn a_processor_that_is_off_can_be_ended() {
    let mut guest = Guest::start(&mut unikernel("msr", &["--mem=2"], &["hvc", "95c1ba5f"]));
    guest.wait_for("msr: hvc");
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
}
