//! State in which an ARM64 guest starts: EL1, MMU and caches on, interrupts masked. Section A2.

use kvm_bindings::{
    KVM_REG_ARM_CORE, KVM_REG_ARM_FW_FEAT_BMAP, KVM_REG_ARM64, KVM_REG_ARM64_SYSREG,
    KVM_REG_SIZE_U64, kvm_regs, kvm_vcpu_init, user_pt_regs,
};
use std::mem::offset_of;

use super::TABLES_ADDRESS;
use crate::arch::Boot;

/// A 64-bit register, by KVM's number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register(pub u64);

impl Register {
    /// A register of KVM's `kvm_regs`, by its offset there in bytes.
    pub(super) const fn core(offset: usize) -> Register {
        Register(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE as u64 | (offset / 4) as u64)
    }

    /// A system register, by the fields of the MRS instruction that reads it.
    pub(super) const fn system(op0: u64, op1: u64, crn: u64, crm: u64, op2: u64) -> Register {
        let encoding = op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2;
        Register(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM64_SYSREG as u64 | encoding)
    }

    /// Returns the fields of the instruction: for a system register.
    pub(super) const fn encoding(self) -> u16 {
        self.0 as u16
    }

    /// A register of KVM's own, with one bit for each firmware service that KVM performs for a
    /// guest.
    const fn services(number: u64) -> Register {
        Register(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_FW_FEAT_BMAP as u64 | number)
    }
}

pub(super) const X0: Register =
    Register::core(offset_of!(kvm_regs, regs) + offset_of!(user_pt_regs, regs));
pub(super) const X30: Register =
    Register::core(offset_of!(kvm_regs, regs) + offset_of!(user_pt_regs, regs) + 30 * 8);
pub(super) const PC: Register =
    Register::core(offset_of!(kvm_regs, regs) + offset_of!(user_pt_regs, pc));
pub(super) const PSTATE: Register =
    Register::core(offset_of!(kvm_regs, regs) + offset_of!(user_pt_regs, pstate));
pub(super) const SP_EL1: Register = Register::core(offset_of!(kvm_regs, sp_el1));
pub(super) const ELR_EL1: Register = Register::core(offset_of!(kvm_regs, elr_el1));
pub(super) const SPSR_EL1: Register = Register::core(offset_of!(kvm_regs, spsr));
pub(super) const SCTLR_EL1: Register = Register::system(3, 0, 1, 0, 0);
pub(super) const CPACR_EL1: Register = Register::system(3, 0, 1, 0, 2);
/// Those that KVM has in its core, by the fields of the instruction that reads them.
pub(super) const ELR_BY_NUMBER: Register = Register::system(3, 0, 4, 0, 1);
pub(super) const SPSR_BY_NUMBER: Register = Register::system(3, 0, 4, 0, 0);
pub(super) const TPIDR_EL1: Register = Register::system(3, 0, 13, 0, 4);
pub(super) const TTBR1_EL1: Register = Register::system(3, 0, 2, 0, 1);
pub(super) const TTBR0_EL1: Register = Register::system(3, 0, 2, 0, 0);
pub(super) const TCR_EL1: Register = Register::system(3, 0, 2, 0, 2);
pub(super) const ESR_EL1: Register = Register::system(3, 0, 5, 2, 0);
pub(super) const FAR_EL1: Register = Register::system(3, 0, 6, 0, 0);
pub(super) const VBAR_EL1: Register = Register::system(3, 0, 12, 0, 0);
pub(super) const MAIR_EL1: Register = Register::system(3, 0, 10, 2, 0);

/// KVM's services that a guest could call by HVC: random numbers, stolen time, vendor-specific
/// ones.
pub(super) const SERVICES: [Register; 3] = [
    Register::services(0),
    Register::services(1),
    Register::services(2),
];

/// D, A, I and F masked; EL1 with its separate stack pointer.
const PSTATE_EL1H_MASKED: u64 = 0x3c5;

/// Memory types by index: nGnRnE, nGnRE, GRE, non-cacheable, write-back, write-through.
const MAIR: u64 = 0x0000_bbff_440c_0400;

/// 40-bit addresses and 4 KiB granule, as in section A2; in addition EPD1 (bit 23), because the
/// upper half of the address space is unused.
const TCR: u64 = 0x32_b518_3518 | 1 << 23;

/// MMU, data and instruction caches on, nothing else.
const SCTLR: u64 = 0x1005;

/// FPEN: floating point and SIMD are not trapped.
pub(super) const CPACR_FPEN: u64 = 3 << 20;

/// Returns the guest's vCPU type: the one KVM prefers on this host, without optional features. So
/// it has no PMU, SVE, pointer authentication, 32-bit mode or nested virtualisation, and no PSCI
/// after version 0.1.
pub(super) fn target(preferred: kvm_vcpu_init) -> kvm_vcpu_init {
    kvm_vcpu_init {
        features: Default::default(),
        ..preferred
    }
}

/// Registers set before the guest's first instruction, in this order. CPACR_EL1 is modified
/// separately.
pub(super) fn registers(boot: &Boot) -> [(Register, u64); 8] {
    [
        (MAIR_EL1, MAIR),
        (TCR_EL1, TCR),
        (TTBR0_EL1, TABLES_ADDRESS),
        (SCTLR_EL1, SCTLR),
        (PSTATE, PSTATE_EL1H_MASKED),
        (PC, boot.entry),
        (SP_EL1, boot.stack_top - 16),
        (X0, boot.boot_info),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from Linux's `Documentation/virt/kvm/api.rst`, section 4.68.
    #[test]
    fn registers_have_the_numbers_that_kvm_documents() {
        assert_eq!(X0.0, 0x6030_0000_0010_0000);
        assert_eq!(X30.0, 0x6030_0000_0010_003c);
        assert_eq!(PC.0, 0x6030_0000_0010_0040);
        assert_eq!(PSTATE.0, 0x6030_0000_0010_0042);
        assert_eq!(SP_EL1.0, 0x6030_0000_0010_0044);
        assert_eq!(ELR_EL1.0, 0x6030_0000_0010_0046);
        assert_eq!(SPSR_EL1.0, 0x6030_0000_0010_0048);
        assert_eq!(SCTLR_EL1.0, 0x6030_0000_0013_c080);
    }

    /// Number that Linux documents for KVM_REG_ARM_STD_BMAP, and the next two.
    #[test]
    fn services_have_the_numbers_that_kvm_documents() {
        assert_eq!(
            SERVICES.map(|register| register.0),
            [0, 1, 2].map(|n| 0x6030_0000_0016_0000 + n)
        );
    }

    #[test]
    fn no_feature_is_asked_for() {
        let preferred = kvm_vcpu_init {
            target: 5,
            features: [u32::MAX; 7],
        };
        assert_eq!(
            target(preferred),
            kvm_vcpu_init {
                target: 5,
                features: [0; 7]
            }
        );
    }

    /// EPD1: TTBR1_EL1 is never walked, neither with its initial value nor after a guest has
    /// written it.
    #[test]
    fn upper_half_has_no_tables() {
        assert_eq!(TCR >> 23 & 1, 1);
    }

    #[test]
    fn start_follows_section_a2() {
        let values = registers(&Boot {
            entry: 0x100040,
            stack_top: 0x400_0000,
            boot_info: 0x10000,
        });
        let value = |register| {
            values
                .iter()
                .find(|(r, _)| *r == register)
                .map(|(_, value)| *value)
        };
        assert_eq!(value(PC), Some(0x100040));
        assert_eq!(value(SP_EL1), Some(0x3ff_fff0));
        assert_eq!(value(X0), Some(0x10000));
        assert_eq!(value(TTBR0_EL1), Some(0x1000));
        assert_eq!(value(TCR_EL1), Some(0x32_b598_3518));
    }
}
