//! KVM's requests for x86_64 registers, to either engine.

use kvm_bindings::{kvm_fpu, kvm_guest_debug, kvm_regs, kvm_sregs};

use crate::arch::engine::requests;

requests! {
    get_regs() -> kvm_regs;
    set_regs(registers: &kvm_regs) -> ();
    get_sregs() -> kvm_sregs;
    set_sregs(registers: &kvm_sregs) -> ();
    get_fpu() -> kvm_fpu;
    set_fpu(registers: &kvm_fpu) -> ();
    set_guest_debug(debug: &kvm_guest_debug) -> ();
    get_tsc_khz() -> u32;
}
