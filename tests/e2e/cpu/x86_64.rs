//! CPUID, model-specific registers, and the instructions for a virtual machine in the guest.

#[path = "../../../src/arch/x86_64/cpuid/tests/features.rs"]
mod features;

use std::collections::HashMap;
use std::sync::OnceLock;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2, kvm_sregs};
use kvm_ioctls::{Cap, Kvm};
use libtest_mimic::Trial;

use crate::common::Need;
use crate::common::{by_process, trial};
use crate::cpu::{cpuid, faults, msr};
use features::{Feature, HIDDEN, Place, SHOWN};

/// Leaves in which a guest may see something.
const LEAVES: [u32; 14] = [
    0,
    1,
    2,
    4,
    7,
    0xd,
    0x8000_0000,
    0x8000_0001,
    0x8000_0002,
    0x8000_0003,
    0x8000_0004,
    0x8000_0005,
    0x8000_0006,
    0x8000_0007,
];
const LAST_LEAF: u32 = 0x8000_0008;

/// Registers that a guest may read and write: the bases of FS and GS, and the one that SWAPGS
/// swaps.
const REGISTERS: [&str; 3] = ["0xc0000100", "0xc0000101", "0xc0000102"];

const PROTECTION: &str = "general protection, vector 13, error 0x0\n";

pub fn tests() -> Vec<Trial> {
    let shown = SHOWN.into_iter().map(|f| {
        trial(&format!("shown::{}", f.0))
            .needs(&[Need::KvmEngine])
            .run(move || is_as_the_host_has_it(f))
    });
    let hidden = HIDDEN.into_iter().map(|f| {
        trial(&format!("hidden::{}", f.0))
            .needs(&[Need::KvmEngine])
            .try_run(move || is_hidden(f))
    });
    let mut tests: Vec<_> = shown.chain(hidden).collect();
    tests.extend([
        trial!(leaves_are_few, Need::KvmEngine),
        trial!(there_is_one_processor, Need::KvmEngine),
        trial!(thread_pointers_can_be_set, Need::Kvm),
        trial("msr::no_others_can_be_read_or_written")
            .needs(&[Need::KvmEngine])
            .try_run(no_others_can_be_read_or_written),
        trial("msr::a_denied_one_faults")
            .needs(&[Need::Kvm])
            .try_run(a_denied_one_faults),
        trial!(virtualisation_cannot_be_switched_on, Need::Kvm),
        trial("kvm_takes_no_calls")
            .needs(&[Need::KvmEngine])
            .try_run(kvm_takes_no_calls),
    ]);
    tests
}

/// A KVM's CPUID: the four registers by leaf and subleaf.
type Leaves = HashMap<Place, [u32; 4]>;

/// Features that this machine's KVM supports.
fn supported() -> &'static Leaves {
    static SUPPORTED: OnceLock<Leaves> = OnceLock::new();
    SUPPORTED.get_or_init(|| {
        let kvm = Kvm::new().expect("there is a KVM");
        by_place(
            &kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
                .expect("KVM returns what it supports"),
        )
    })
}

/// Features that it shows to guests that were given none. KVM on hardware shows nothing; a KVM
/// without hardware support may be unable to hide what it does not intercept.
fn forced() -> &'static Leaves {
    static FORCED: OnceLock<Leaves> = OnceLock::new();
    FORCED.get_or_init(|| {
        let kvm = Kvm::new().expect("there is a KVM");
        let vcpu = kvm
            .create_vm()
            .and_then(|vm| vm.create_vcpu(0))
            .expect("KVM makes a processor");
        // The bit of the APIC follows this register, which has its address.
        let sregs = vcpu.get_sregs().expect("a processor has registers");
        vcpu.set_sregs(&kvm_sregs {
            apic_base: 0,
            ..sregs
        })
        .expect("a processor without APIC");
        let entry = |function, eax| kvm_cpuid_entry2 {
            function,
            eax,
            ..Default::default()
        };
        let subleaves = kvm_cpuid_entry2 {
            flags: 1,
            ..entry(7, 0)
        };
        let empty = [
            entry(0, 7),
            entry(1, 0),
            subleaves,
            entry(0x8000_0000, 0x8000_0001),
            entry(0x8000_0001, 1 << 29),
        ];
        vcpu.set_cpuid2(&CpuId::from_entries(&empty).expect("five entries"))
            .expect("a processor of no features");
        by_place(
            &vcpu
                .get_cpuid2(KVM_MAX_CPUID_ENTRIES)
                .expect("KVM returns what it shows"),
        )
    })
}

fn by_place(cpuid: &CpuId) -> Leaves {
    let entries = cpuid.as_slice().iter();
    entries
        .map(|entry| {
            (
                (entry.function, entry.index),
                [entry.eax, entry.ebx, entry.ecx, entry.edx],
            )
        })
        .collect()
}

fn has(leaves: &Leaves, (_, place, register, bit): Feature) -> bool {
    leaves
        .get(&place)
        .is_some_and(|values| values[register] >> bit & 1 == 1)
}

#[track_caller]
fn is_as_the_host_has_it(shown: Feature) {
    let expected = has(supported(), shown) || has(forced(), shown);
    assert_eq!(has(&leaves(), shown), expected, "{}", cpuid());
}

fn is_hidden(hidden: Feature) -> Result<(), String> {
    if has(forced(), hidden) {
        return Err("this machine's KVM shows it to every guest, even if hidden".into());
    }
    assert!(!has(&leaves(), hidden), "{}", cpuid());
    Ok(())
}

/// Returns the leaves that are not empty, as the guest sees them.
fn leaves() -> Leaves {
    let number =
        |word: &str| u32::from_str_radix(word.trim_start_matches("0x"), 16).expect("a number");
    let lines = cpuid()
        .lines()
        .filter_map(|line| line.strip_prefix("cpuid: leaf "));
    let leaves = lines.map(|line| {
        let numbers: Vec<u32> = line.split(' ').map(number).collect();
        (
            (numbers[0], numbers[1]),
            numbers[2..].try_into().expect("four registers"),
        )
    });
    leaves.collect()
}

/// Also none of the hypervisor: the processor's reply for a missing leaf is not KVM's signature.
fn leaves_are_few() {
    let leaves = leaves();
    assert!(leaves.len() > 5, "{}", cpuid());
    for (leaf, subleaf) in leaves.keys() {
        assert!(
            LEAVES.contains(leaf) || *leaf == LAST_LEAF,
            "leaf {leaf:#x}, {subleaf}: {}",
            cpuid()
        );
    }
    assert!(
        leaves[&(0, 0)][0] <= 0xd && leaves[&(0x8000_0000, 0)][0] <= LAST_LEAF,
        "{}",
        cpuid()
    );
    assert!(!cpuid().contains("0x4b4d564b"), "{}", cpuid());
}

/// Leaf 1 has neither another processor's number nor a count, and no cache is shared.
fn there_is_one_processor() {
    let leaves = leaves();
    assert_eq!(leaves[&(1, 0)][1] >> 16, 0, "{}", cpuid());
    for (_, values) in leaves.iter().filter(|((leaf, _), _)| *leaf == 4) {
        assert_eq!(values[0] >> 14, 0, "{}", cpuid());
    }
}

fn thread_pointers_can_be_set() {
    msr("allowed")
        .exits(0)
        .is_quiet()
        .prints("msr: allowed ok\n");
}

/// Whether registers can be denied here: always in a process.
fn filter() -> Result<(), String> {
    if by_process() {
        return Ok(());
    }
    let vm = Kvm::new()
        .and_then(|kvm| kvm.create_vm())
        .expect("there is a KVM");
    match vm.check_extension(Cap::X86MsrFilter) {
        true => Ok(()),
        false => Err("this machine's kernel cannot deny model-specific registers".into()),
    }
}

fn no_others_can_be_read_or_written() -> Result<(), String> {
    filter()?;
    let output = msr("scan");
    let lines: String = REGISTERS
        .map(|register| format!("msr: {register} readable true writable true\n"))
        .concat();
    assert_eq!(
        output.exits(0).is_quiet().stdout,
        format!("msr: scan 0x0\n{lines}msr: scanned\n")
    );
    Ok(())
}

/// The local APIC's address, EFER, LSTAR, PAT, the counter, a performance counter, KVM's clock.
fn a_denied_one_faults() -> Result<(), String> {
    filter()?;
    for register in ["1b", "c0000080", "c0000082", "277", "10", "c1", "4b564d01"] {
        faults(&format!("read {register}"), PROTECTION);
        faults(&format!("write {register}"), PROTECTION);
    }
    Ok(())
}

fn virtualisation_cannot_be_switched_on() {
    faults("vmxe", PROTECTION);
    faults("svme", PROTECTION);
}

/// KVM_HC_KICK_CPU, KVM_HC_SEND_IPI, KVM_HC_SCHED_YIELD: an error, and nothing else happens.
fn kvm_takes_no_calls() -> Result<(), String> {
    for number in ["5", "a", "b"] {
        let output = msr(&format!("hypercall {number}"));
        if output.code() == 255 {
            return Err("this machine's KVM makes calls to it a fault".into());
        }
        output
            .exits(3)
            .is_quiet()
            .prints("msr: hypercall gave -1000\n");
    }
    Ok(())
}
