//! State in which an x86_64 guest starts: 64-bit mode, flat segments, paging on, no interrupts.
//! Section B2. Pure: values in, registers out.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

use super::{GDT_ADDRESS, TABLES_ADDRESS};
use crate::arch::Boot;

/// Control registers and EFER. In addition to section B2, EFER has NXE, which no-execute pages
/// need.
const CR0: u64 = 0x8001_0021; // PG | WP | NE | PE
const CR4: u64 = 0x620; // PAE | OSFXSR | OSXMMEXCPT
const EFER: u64 = 0xd00; // NXE | LMA | LME

/// Flat 64-bit code and flat data, as descriptors: null, selector 8, selector 16.
const GDT: [u64; 3] = [0, 0x00af_9900_0000_ffff, 0x00cf_9300_0000_ffff];

/// Returns the segment descriptors as they are in memory.
pub(super) fn gdt() -> Vec<u8> {
    GDT.iter()
        .flat_map(|descriptor| descriptor.to_le_bytes())
        .collect()
}

/// Returns the general registers at the first instruction.
pub(super) fn registers(boot: &Boot) -> kvm_regs {
    kvm_regs {
        rip: boot.entry,
        // As after a call: the ABI requires rsp + 8 to be a multiple of 16 at a function's first
        // instruction.
        rsp: boot.stack_top - 8,
        rdi: boot.boot_info,
        rflags: 2,
        ..Default::default()
    }
}

/// Returns the system registers at the first instruction; others keep their `reset` value.
pub(super) fn system_registers(reset: kvm_sregs) -> kvm_sregs {
    let code = kvm_segment {
        selector: 8,
        type_: 9,
        l: 1,
        s: 1,
        present: 1,
        g: 1,
        limit: u32::MAX,
        ..Default::default()
    };
    let data = kvm_segment {
        selector: 16,
        type_: 3,
        db: 1,
        s: 1,
        present: 1,
        g: 1,
        limit: u32::MAX,
        ..Default::default()
    };
    let task = kvm_segment {
        type_: 11,
        present: 1,
        ..Default::default()
    };
    let unusable = kvm_segment {
        unusable: 1,
        ..Default::default()
    };
    let mut sregs = kvm_sregs {
        cr0: CR0,
        cr3: TABLES_ADDRESS,
        cr4: CR4,
        efer: EFER,
        ..reset
    };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    (sregs.tr, sregs.ldt) = (task, unusable);
    sregs.gdt.base = GDT_ADDRESS;
    sregs.gdt.limit = (size_of_val(&GDT) - 1) as u16;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    // There is no local APIC. KVM derives the CPUID bit from this value.
    sregs.apic_base = 0;
    sregs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn general_registers_follow_section_b2() {
        let regs = registers(&Boot {
            entry: 0x100040,
            stack_top: 0x400_0000,
            boot_info: 0x10000,
        });
        assert_eq!(
            (regs.rip, regs.rsp, regs.rdi, regs.rflags),
            (0x100040, 0x3ff_fff8, 0x10000, 2)
        );
        assert_eq!((regs.rax, regs.rbx, regs.rsi, regs.rbp), (0, 0, 0, 0));
    }

    #[test]
    fn system_registers_follow_section_b2() {
        let sregs = system_registers(kvm_sregs {
            apic_base: 0xfee0_0900,
            ..Default::default()
        });
        assert_eq!(
            (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer),
            (0x8001_0021, 0x2000, 0x620, 0xd00)
        );
        assert_eq!(
            (sregs.cs.selector, sregs.cs.type_, sregs.cs.l, sregs.cs.db),
            (8, 9, 1, 0)
        );
        assert_eq!(
            (sregs.ss.selector, sregs.ss.type_, sregs.ss.l, sregs.ss.db),
            (16, 3, 0, 1)
        );
        assert_eq!(
            (sregs.gdt.base, sregs.gdt.limit, sregs.idt.limit),
            (0x1000, 0x17, 0)
        );
        assert_eq!(
            (sregs.tr.type_, sregs.tr.present, sregs.ldt.unusable),
            (11, 1, 1)
        );
        assert_eq!(sregs.apic_base, 0);
    }
}
