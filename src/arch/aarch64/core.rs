//! ARM64 registers in the order and form of a Linux core file.

use kvm_bindings::user_fpsimd_state;

use super::boot;
use super::registers::{FPCR, FPSR, general, stack_pointer, vector};
use crate::arch::{CoreRegisters, Error, Vcpu};
use crate::memory::{GuestAddress, GuestMemory};

/// `elf_gregset_t`, which is `struct user_pt_regs`: x0 to x30, sp, pc, pstate.
type GeneralRegisters = [u64; 34];

impl CoreRegisters for Vcpu {
    type General = GeneralRegisters;

    /// None: KVM_GET_ONE_REG reads every register.
    const CORE_REQUESTS: &'static [u64] = &[];

    fn general_registers(&self) -> Result<GeneralRegisters, Error> {
        let mut registers = [0; 34];
        for (number, register) in registers[..31].iter_mut().enumerate() {
            *register = self.get(general(number))?;
        }
        let pstate = self.get(boot::PSTATE)?;
        registers[31..].copy_from_slice(&[
            self.get(stack_pointer(pstate))?,
            self.get(boot::PC)?,
            pstate,
        ]);
        Ok(registers)
    }

    /// `struct user_fpsimd_state`.
    fn floating_registers(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::with_capacity(size_of::<user_fpsimd_state>());
        for number in 0..32 {
            bytes.extend(self.get_floating(vector(number))?);
        }
        bytes.extend(self.get_floating(FPSR)?);
        bytes.extend(self.get_floating(FPCR)?);
        bytes.resize(size_of::<user_fpsimd_state>(), 0);
        Ok(bytes)
    }

    /// Does nothing: trap handlers on ARM64 save no registers at the cookie. Section A6.
    fn return_to_trap(_: &mut GeneralRegisters, _: &GuestMemory, _: GuestAddress) {}
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn layouts_are_those_of_linux() {
        assert_eq!(
            (
                size_of::<GeneralRegisters>(),
                size_of::<user_fpsimd_state>()
            ),
            (272, 528)
        );
        assert_eq!(
            (
                offset_of!(user_fpsimd_state, fpsr),
                offset_of!(user_fpsimd_state, fpcr)
            ),
            (512, 516)
        );
    }
}
