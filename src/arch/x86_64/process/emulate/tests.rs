use super::*;
use crate::memory::{Access, Mapping};

const CODE: u64 = 0x1000;
const SIZE: u64 = 0x4000;
const STACK: u64 = 0x3000;

struct Machine {
    cpu: Cpu,
    memory: GuestMemory,
    registers: Registers,
}

impl Machine {
    fn new() -> Machine {
        let mut memory = GuestMemory::new(SIZE).unwrap();
        let mapping = |range, access| Mapping { range, access };
        memory.protect(vec![
            mapping(0..CODE, Access::Read),
            mapping(CODE..0x2000, Access::ReadExecute),
            mapping(0x2000..SIZE, Access::ReadWrite),
        ]);
        Machine {
            cpu: Cpu::new(),
            memory,
            registers: Registers {
                rip: CODE,
                rsp: STACK,
                eflags: 0x202,
                ..Registers::default()
            },
        }
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.place(GuestAddress(address), bytes).unwrap();
    }

    fn push(&mut self, values: &[u64]) {
        for value in values {
            self.registers.rsp -= 8;
            self.put(self.registers.rsp, &value.to_le_bytes());
        }
    }

    /// Executes the instruction at the program counter.
    fn execute(&mut self, code: &[u8]) -> Option<()> {
        self.put(CODE, code);
        self.registers.rip = CODE;
        let bytes = instruction::bytes(&self.memory, CODE);
        let (instruction, length) = instruction::decode(&bytes).unwrap();
        assert_eq!(length, code.len() as u64);
        self.registers.rip += length;
        self.cpu
            .set_state(&self.memory, instruction, &mut self.registers)
    }

    fn system(&mut self) -> &mut kvm_sregs {
        self.cpu.system.get_mut()
    }
}

#[test]
fn tables_are_loaded_from_memory() {
    let mut machine = Machine::new();
    machine.put(0x2ff0, &[0xff, 0x0f, 1, 2, 3, 4, 5, 6, 7, 8]);
    machine.registers.rdi = 0x2ff0;
    // LIDT (%rdi)
    assert_eq!(machine.execute(&[0x0f, 0x01, 0x1f]), Some(()));
    let idt = machine.system().idt;
    assert_eq!((idt.limit, idt.base), (0x0fff, 0x0807_0605_0403_0201));
    assert_eq!(machine.system().gdt.limit, 0);
    // LGDT 0x1fe9(%rip), from the next instruction on.
    assert_eq!(
        machine.execute(&[0x0f, 0x01, 0x15, 0xe9, 0x1f, 0, 0]),
        Some(())
    );
    assert_eq!(machine.system().gdt.base, 0x0807_0605_0403_0201);
    for address in [SIZE - 9, SIZE, u64::MAX, u64::MAX - 1, 1 << 47] {
        machine.registers.rdi = address;
        assert_eq!(machine.execute(&[0x0f, 0x01, 0x1f]), None, "{address:#x}");
    }
    assert_eq!(machine.system().idt.limit, 0x0fff);
}

#[test]
fn a_place_is_the_sum_of_its_parts() {
    let mut machine = Machine::new();
    let registers = &mut machine.registers;
    (registers.rbx, registers.r9) = (0x100, 0x20);
    (registers.fs_base, registers.gs_base) = (0x1_0000, 0x2_0000);
    let of = |displacement, segment| Place {
        base: Some(3),
        index: Some((9, 3)),
        displacement,
        segment,
        ..Place::default()
    };
    assert_eq!(place(&of(4, None), registers), 0x204);
    assert_eq!(place(&of(-0x300, None), registers), -0x100_i64 as u64);
    assert_eq!(place(&of(0, Some(4)), registers), 0x1_0200);
    assert_eq!(place(&of(0, Some(5)), registers), 0x2_0200);
    registers.r9 = u64::MAX;
    assert_eq!(
        place(&of(i32::MAX, None), registers),
        0x100 - 8 + 0x7fff_ffff
    );
}

#[test]
fn selectors_are_remembered() {
    let mut machine = Machine::new();
    machine.registers.rax = 0xffff_0028;
    // LTR %ax, LLDT %ax, MOV %eax to ES, SS, DS, FS, GS.
    for code in [
        &[0x0f, 0x00, 0xd8][..],
        &[0x0f, 0x00, 0xd0],
        &[0x8e, 0xc0],
        &[0x8e, 0xd0],
        &[0x8e, 0xd8],
        &[0x8e, 0xe0],
        &[0x8e, 0xe8],
    ] {
        assert_eq!(machine.execute(code), Some(()), "{code:02x?}");
    }
    let s = *machine.system();
    for segment in [s.es, s.ss, s.ds, s.fs, s.gs] {
        assert_eq!(segment.selector, 0x28);
    }
    assert_eq!(
        (s.tr.selector, s.ldt.selector, s.cs.selector),
        (0x28, 0x28, 0)
    );
    // CS, and segments that do not exist; memory that does not.
    for code in [
        &[0x8e, 0xc8][..],
        &[0x8e, 0xf0],
        &[0x8e, 0xf8],
        &[0x8e, 0x18],
    ] {
        machine.registers.rax = SIZE - 1;
        assert_eq!(machine.execute(code), None, "{code:02x?}");
    }
    machine.put(SIZE - 2, &[0x33, 0]);
    machine.registers.rax = SIZE - 2;
    assert_eq!(machine.execute(&[0x8e, 0x18]), Some(()));
    assert_eq!(machine.system().ds.selector, 0x33);
}

#[test]
fn far_returns_pop_the_program_counter_and_the_selector() {
    let mut machine = Machine::new();
    machine.push(&[0xffff_0008, 0x1234_5678_9abc]);
    assert_eq!(machine.execute(&[0x48, 0xcb]), Some(()));
    assert_eq!(
        (machine.registers.rip, machine.registers.rsp),
        (0x1234_5678_9abc, STACK)
    );
    assert_eq!(machine.system().cs.selector, 8);
    // Of 4 bytes each.
    machine.push(&[0x10_0000_2000]);
    assert_eq!(machine.execute(&[0xcb]), Some(()));
    assert_eq!(
        (machine.registers.rip, machine.registers.rsp),
        (0x2000, STACK)
    );
    assert_eq!(machine.system().cs.selector, 0x10);
    for stack in [SIZE - 15, SIZE, u64::MAX - 7, u64::MAX] {
        machine.registers.rsp = stack;
        assert_eq!(machine.execute(&[0x48, 0xcb]), None, "{stack:#x}");
        assert_eq!(machine.registers.rsp, stack);
    }
}

#[test]
fn interrupt_returns_pop_flags_that_a_guest_may_change() {
    let mut machine = Machine::new();
    machine.push(&[0x10, 0x2345, u64::MAX, 8, 1 << 60]);
    assert_eq!(machine.execute(&[0x48, 0xcf]), Some(()));
    let Registers {
        rip, rsp, eflags, ..
    } = machine.registers;
    assert_eq!((rip, rsp), (1 << 60, 0x2345));
    // Neither IOPL nor VM, and IF stays.
    assert_eq!(eflags, 0x24_4fd7);
    let system = machine.system();
    assert_eq!((system.cs.selector, system.ss.selector), (8, 0x10));
    machine.registers.rsp = STACK;
    machine.push(&[0x10, 0x2345, 0, 8, 0x5000]);
    assert_eq!(machine.execute(&[0x48, 0xcf]), Some(()));
    assert_eq!(machine.registers.eflags, 0x202);
    for stack in [SIZE - 39, u64::MAX - 31, u64::MAX - 39] {
        machine.registers.rsp = stack;
        assert_eq!(machine.execute(&[0x48, 0xcf]), None, "{stack:#x}");
    }
}

#[test]
fn bases_of_segments_are_the_only_model_specific_registers() {
    let mut machine = Machine::new();
    for (number, value) in [
        (0xc000_0100, 0x1_2345_6789_u64),
        (0xc000_0101, 7),
        (0xc000_0102, 9),
    ] {
        machine.registers.rcx = number;
        (machine.registers.rax, machine.registers.rdx) =
            (u64::MAX << 32 | value & 0xffff_ffff, value >> 32);
        assert_eq!(machine.execute(&[0x0f, 0x30]), Some(()));
        (machine.registers.rax, machine.registers.rdx) = (u64::MAX, u64::MAX);
        assert_eq!(machine.execute(&[0x0f, 0x32]), Some(()));
        let Registers { rax, rdx, .. } = machine.registers;
        assert_eq!((rax, rdx), (value & 0xffff_ffff, value >> 32));
        // Addresses that no process has.
        for high in [0x7fff, 0x8000, u64::from(u32::MAX)] {
            (machine.registers.rax, machine.registers.rdx) = (0xffff_f000, high);
            assert_eq!(machine.execute(&[0x0f, 0x30]), None, "{high:#x}");
        }
    }
    assert_eq!(machine.registers.fs_base, 0x1_2345_6789);
    assert_eq!((machine.registers.gs_base, machine.cpu.kernel_gs), (7, 9));
    // EFER, LSTAR, SYSENTER_EIP, PAT, TSC, and those around.
    for number in [
        0xc000_0080,
        0xc000_0082,
        0x176,
        0x277,
        0x10,
        0xc000_00ff,
        0xc000_0103,
        0,
        u64::MAX,
    ] {
        machine.registers.rcx = number;
        machine.registers.rdx = 0;
        assert_eq!(machine.execute(&[0x0f, 0x30]), None, "{number:#x}");
        assert_eq!(machine.execute(&[0x0f, 0x32]), None, "{number:#x}");
    }
}

#[test]
fn the_two_bases_of_gs_are_swapped() {
    let mut machine = Machine::new();
    (machine.registers.gs_base, machine.cpu.kernel_gs) = (7, 9);
    assert_eq!(machine.execute(&[0x0f, 0x01, 0xf8]), Some(()));
    assert_eq!((machine.registers.gs_base, machine.cpu.kernel_gs), (9, 7));
    // By WRGSBASE a guest can set a base that ptrace refuses.
    machine.registers.gs_base = u64::MAX << 12;
    assert_eq!(machine.execute(&[0x0f, 0x01, 0xf8]), Some(()));
    assert_eq!(machine.execute(&[0x0f, 0x01, 0xf8]), None);
    assert_eq!(
        (machine.registers.gs_base, machine.cpu.kernel_gs),
        (7, u64::MAX << 12)
    );
}

#[test]
fn control_registers_keep_what_a_process_cannot_change() {
    let mut machine = Machine::new();
    let system = machine.system();
    (system.cr0, system.cr3, system.cr4) = (0x8001_0021, 0x2000, 0x620);
    for (modrm, value) in [(0xc3, 0x8001_0021), (0xdb, 0x2000), (0xe3, 0x620)] {
        assert_eq!(machine.execute(&[0x0f, 0x20, modrm]), Some(()));
        assert_eq!(machine.registers.rbx, value);
        assert_eq!(machine.execute(&[0x0f, 0x22, modrm]), Some(()));
        machine.registers.rbx ^= 1;
        assert_eq!(machine.execute(&[0x0f, 0x22, modrm]), None);
    }
    // CR2 is the guest's; CR1, CR5, CR9 and CR15 do not exist.
    machine.registers.rbx = 0x1234;
    assert_eq!(machine.execute(&[0x0f, 0x22, 0xd3]), Some(()));
    assert_eq!(machine.system().cr2, 0x1234);
    for code in [
        &[0x0f, 0x20, 0xcb][..],
        &[0x0f, 0x20, 0xeb],
        &[0x44, 0x0f, 0x20, 0xcb],
        &[0x44, 0x0f, 0x20, 0xfb],
    ] {
        assert_eq!(machine.execute(code), None, "{code:02x?}");
    }
}

#[test]
fn instructions_of_other_rings_change_nothing() {
    let mut machine = Machine::new();
    let before = format!(
        "{:?}",
        Registers {
            rip: 0,
            ..machine.registers
        }
    );
    for code in [
        &[0xfa][..],
        &[0xfb],
        &[0x0f, 0x06],
        &[0x0f, 0x08],
        &[0x0f, 0x09],
        &[0x0f, 0x01, 0x38],
    ] {
        assert_eq!(machine.execute(code), Some(()), "{code:02x?}");
        let after = format!(
            "{:?}",
            Registers {
                rip: 0,
                ..machine.registers
            }
        );
        assert_eq!(after, before);
    }
}

#[test]
fn the_processor_is_described_as_by_kvm() {
    let mut machine = Machine::new();
    machine.registers.rax = u64::MAX << 32;
    assert_eq!(machine.execute(&[0x0f, 0xa2]), Some(()));
    let Registers {
        rax, rbx, rcx, rdx, ..
    } = machine.registers;
    assert_eq!([rax, rbx, rcx, rdx], cpuid::answer(0, 0).map(u64::from));
    assert!((1..=0xd).contains(&rax));
    // The hypervisor's leaves are empty.
    machine.registers.rax = 0x4000_0000;
    assert_eq!(machine.execute(&[0x0f, 0xa2]), Some(()));
    assert_eq!((machine.registers.rax, machine.registers.rbx), (0, 0));
}

#[test]
fn an_emulated_counter_ascends() {
    let mut machine = Machine::new();
    let mut read = |code: &[u8]| {
        assert_eq!(machine.execute(code), Some(()));
        machine.registers.rdx << 32 | machine.registers.rax
    };
    let times = [
        read(&[0x0f, 0x31]),
        read(&[0x0f, 0x01, 0xf9]),
        read(&[0x0f, 0x31]),
    ];
    assert!(times[0] > 0 && times.is_sorted(), "{times:?}");
    assert_eq!(machine.registers.rcx, 0);
}

#[test]
fn an_element_of_a_string_is_read_within_memory() {
    let machine = Machine::new();
    machine.put(SIZE - 4, &[1, 2, 3, 4]);
    let read = |address, size| element(&machine.memory, address, size);
    assert_eq!(read(SIZE - 4, 4), Some(0x0403_0201));
    assert_eq!(read(SIZE - 2, 2), Some(0x0403));
    assert_eq!(read(SIZE - 1, 1), Some(4));
    for (address, size) in [
        (SIZE - 3, 4),
        (SIZE - 1, 2),
        (SIZE, 1),
        (u64::MAX, 1),
        (u64::MAX - 3, 4),
    ] {
        assert_eq!(read(address, size), None);
    }
}
