//! An ARM64 processor in a core file: its registers in the order and form in which Linux keeps those of a program.

use std::mem::offset_of;

use kvm_bindings::{
    KVM_REG_ARM_CORE, KVM_REG_ARM64, KVM_REG_SIZE_U32, KVM_REG_SIZE_U128, kvm_regs, user_fpsimd_state, user_pt_regs,
};

use super::boot::{self, Register};
use super::vcpu::Vcpu;
use crate::arch::Error;
use crate::memory::{GuestAddress, GuestMemory};

/// `elf_gregset_t`, which is `struct user_pt_regs`: x0 to x30, sp, pc, pstate.
pub type GeneralRegisters = [u64; 34];

/// What a core file takes beside [`super::REPORT_REQUESTS`]: nothing, as one request reads every register.
pub const CORE_REQUESTS: &[u64] = &[];

/// PSTATE: the stack pointer is that of EL1.
const PSTATE_OWN_STACK: u64 = 1;

/// The stack pointer that all of a processor's levels can use.
const SP_EL0: Register = Register::core(offset_of!(kvm_regs, regs) + offset_of!(user_pt_regs, sp));

/// One of KVM's floating-point registers, by its size and its offset in `user_fpsimd_state` in bytes.
const fn floating(size: u64, offset: usize) -> u64 {
    KVM_REG_ARM64 | size | KVM_REG_ARM_CORE as u64 | ((offset_of!(kvm_regs, fp_regs) + offset) / 4) as u64
}

impl Vcpu {
    /// The general registers, for a core file; call [`Vcpu::settle`] first.
    pub fn general_registers(&self) -> Result<GeneralRegisters, Error> {
        let mut registers = [0; 34];
        for (number, register) in registers[..31].iter_mut().enumerate() {
            *register = self.get(Register::core(offset_of!(kvm_regs, regs) + 8 * number))?;
        }
        let pstate = self.get(boot::PSTATE)?;
        let sp = self.get(if pstate & PSTATE_OWN_STACK == 0 { SP_EL0 } else { boot::SP_EL1 })?;
        registers[31..].copy_from_slice(&[sp, self.get(boot::PC)?, pstate]);
        Ok(registers)
    }

    /// The floating-point registers, for a core file: `elf_fpregset_t`, which is `struct user_fpsimd_state`.
    pub fn floating_registers(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; size_of::<user_fpsimd_state>()];
        let vectors = (0..32).map(|number| (KVM_REG_SIZE_U128, offset_of!(user_fpsimd_state, vregs) + 16 * number));
        let status = [offset_of!(user_fpsimd_state, fpsr), offset_of!(user_fpsimd_state, fpcr)];
        for (size, offset) in vectors.chain(status.map(|offset| (KVM_REG_SIZE_U32, offset))) {
            let length = if size == KVM_REG_SIZE_U128 { 16 } else { 4 };
            let register = &mut bytes[offset..offset + length];
            self.fd.get_one_reg(floating(size, offset), register).map_err(Error::kvm("read a register"))?;
        }
        Ok(bytes)
    }
}

/// Nothing: no handler of a trap on this processor puts registers aside. Section A6.
pub fn return_to_trap(_: &mut GeneralRegisters, _: &GuestMemory, _: GuestAddress) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_those_of_linux() {
        assert_eq!((size_of::<GeneralRegisters>(), size_of::<user_fpsimd_state>()), (272, 528));
        assert_eq!((offset_of!(user_fpsimd_state, fpsr), offset_of!(user_fpsimd_state, fpcr)), (512, 516));
    }

    /// The numbers of Linux's `Documentation/virt/kvm/api.rst`, section 4.68.
    #[test]
    fn registers_have_the_numbers_that_kvm_documents() {
        assert_eq!(SP_EL0.0, 0x6030_0000_0010_003e);
        assert_eq!(floating(KVM_REG_SIZE_U128, 0), 0x6040_0000_0010_0054);
        assert_eq!(floating(KVM_REG_SIZE_U128, 31 * 16), 0x6040_0000_0010_00d0);
        assert_eq!(floating(KVM_REG_SIZE_U32, 512), 0x6020_0000_0010_00d4);
        assert_eq!(floating(KVM_REG_SIZE_U32, 516), 0x6020_0000_0010_00d5);
    }
}
