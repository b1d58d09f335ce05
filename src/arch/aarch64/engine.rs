//! KVM's requests for ARM64 registers, to either engine.

use kvm_bindings::kvm_guest_debug;

use crate::arch::engine::requests;

requests! {
    get_one_reg(register: u64, value: &mut [u8]) -> usize;
    set_one_reg(register: u64, value: &[u8]) -> usize;
    set_guest_debug(debug: &kvm_guest_debug) -> ();
}
