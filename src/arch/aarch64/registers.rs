//! KVM's numbers for the registers of debuggers and core files: general registers, stack pointers,
//! and floating-point registers, which are not 64 bits wide.

use std::mem::offset_of;

use kvm_bindings::{
    KVM_REG_ARM_CORE, KVM_REG_ARM64, KVM_REG_SIZE_U32, KVM_REG_SIZE_U128, kvm_regs,
    user_fpsimd_state, user_pt_regs,
};

use super::boot::{self, Register};
use crate::arch::{Error, Vcpu};

/// PSTATE: the stack pointer is that of EL1.
pub(super) const PSTATE_OWN_STACK: u64 = 1;

/// SP_EL0, which every exception level can use.
const SP_EL0: Register = Register::core(offset_of!(kvm_regs, regs) + offset_of!(user_pt_regs, sp));

/// Floating-point status and control registers.
pub(super) const FPSR: Floating<4> =
    Floating::at(KVM_REG_SIZE_U32, offset_of!(user_fpsimd_state, fpsr));
pub(super) const FPCR: Floating<4> =
    Floating::at(KVM_REG_SIZE_U32, offset_of!(user_fpsimd_state, fpcr));

/// A floating-point register of `N` bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floating<const N: usize>(u64);

impl<const N: usize> Floating<N> {
    /// By KVM's size bits and the byte offset in `user_fpsimd_state`.
    const fn at(size: u64, offset: usize) -> Floating<N> {
        let offset = offset_of!(kvm_regs, fp_regs) + offset;
        Floating(KVM_REG_ARM64 | size | KVM_REG_ARM_CORE as u64 | (offset / 4) as u64)
    }
}

/// X0 to X30.
pub(super) const fn general(number: usize) -> Register {
    Register::core(offset_of!(kvm_regs, regs) + 8 * number)
}

/// V0 to V31.
pub(super) const fn vector(number: usize) -> Floating<16> {
    Floating::at(
        KVM_REG_SIZE_U128,
        offset_of!(user_fpsimd_state, vregs) + 16 * number,
    )
}

/// Returns the stack pointer selected by `pstate`.
pub(super) const fn stack_pointer(pstate: u64) -> Register {
    if pstate & PSTATE_OWN_STACK != 0 {
        boot::SP_EL1
    } else {
        SP_EL0
    }
}

impl Vcpu {
    pub(super) fn get_floating<const N: usize>(
        &self,
        register: Floating<N>,
    ) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.engine
            .get_one_reg(register.0, &mut bytes)
            .map_err(Error::kvm("KVM_GET_ONE_REG"))?;
        Ok(bytes)
    }

    pub(super) fn set_floating<const N: usize>(
        &self,
        register: Floating<N>,
        bytes: &[u8; N],
    ) -> Result<(), Error> {
        self.engine
            .set_one_reg(register.0, bytes)
            .map_err(Error::kvm("KVM_SET_ONE_REG"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from Linux's `Documentation/virt/kvm/api.rst`, section 4.68.
    #[test]
    fn registers_have_the_numbers_that_kvm_documents() {
        assert_eq!(
            (general(0).0, general(30).0),
            (0x6030_0000_0010_0000, 0x6030_0000_0010_003c)
        );
        assert_eq!(
            (stack_pointer(0x3c4).0, stack_pointer(0x3c5)),
            (0x6030_0000_0010_003e, boot::SP_EL1)
        );
        assert_eq!(
            (vector(0).0, vector(31).0),
            (0x6040_0000_0010_0054, 0x6040_0000_0010_00d0)
        );
        assert_eq!(
            (FPSR.0, FPCR.0),
            (0x6020_0000_0010_00d4, 0x6020_0000_0010_00d5)
        );
    }
}
