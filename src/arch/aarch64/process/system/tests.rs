use super::*;
use Instruction::*;

const VBAR: u16 = boot::VBAR_EL1.encoding();

fn start() -> (System, Registers) {
    let mut registers = Registers {
        sp: 0x20_0000,
        pc: 0x10_0000,
        ..Registers::default()
    };
    registers.general[1] = 0x10_1000;
    (System::default(), registers)
}

fn write(register: u16, general: u8) -> Instruction {
    Write { register, general }
}

fn read(register: Register, general: u8) -> Instruction {
    let register = register.encoding();
    Read { register, general }
}

#[test]
fn registers_keep_what_is_written() {
    let (mut system, mut registers) = start();
    for register in [VBAR, boot::TPIDR_EL1.encoding(), SP_EL0.encoding()] {
        registers.general[1] += 0x800;
        assert_eq!(system.emulate(write(register, 1), &mut registers), Some(()));
        let read = Read {
            register,
            general: 2,
        };
        assert_eq!(system.emulate(read, &mut registers), Some(()));
        assert_eq!(registers.general[2], registers.general[1]);
    }
    assert_eq!((registers.pc, registers.sp), (0x10_0018, 0x20_0000));
    system
        .emulate(read(CURRENT_LEVEL, 3), &mut registers)
        .expect("defined");
    system
        .emulate(read(INTERRUPT_MASKS, 4), &mut registers)
        .expect("defined");
    assert_eq!(registers.general[3..5], [4, 0x3c0]);
    // Register 31 is zero.
    system
        .emulate(write(VBAR, 31), &mut registers)
        .expect("defined");
    assert_eq!(system.vbar, 0);
}

#[test]
fn tables_and_unknown_registers_cannot_be_changed() {
    let (mut system, mut registers) = start();
    for register in [
        boot::TTBR0_EL1,
        boot::SCTLR_EL1,
        boot::TCR_EL1,
        boot::MAIR_EL1,
    ] {
        let register = register.encoding();
        assert_eq!(system.emulate(write(register, 1), &mut registers), None);
        assert_eq!(
            system.emulate(write(register, 31), &mut registers),
            Some(())
        );
    }
    // FPEN may not go, the other bits may.
    system.access_control = CPACR_FPEN;
    let control = write(boot::CPACR_EL1.encoding(), 1);
    assert_eq!(system.emulate(control, &mut registers), None);
    registers.general[1] |= CPACR_FPEN;
    assert_eq!(system.emulate(control, &mut registers), Some(()));
    // PMCR_EL0
    let counters = Register::system(3, 3, 9, 12, 0);
    assert_eq!(system.emulate(read(counters, 0), &mut registers), None);
}

#[test]
fn an_exception_enters_its_vector_and_eret_returns() {
    let (mut system, mut registers) = start();
    system.vbar = 0x10_1234;
    registers.pstate = 0x6000_0000;
    system.enter(&mut registers, 0x0200_0000, None);
    assert_eq!(registers.pc, 0x10_1000 + 0x200);
    assert_eq!(
        (system.elr, system.spsr, system.esr, system.far),
        (0x10_0000, 0x6000_03c5, 0x0200_0000, 0)
    );
    registers.pstate = 0;
    system.elr += 4;
    assert_eq!(system.emulate(Return, &mut registers), Some(()));
    assert_eq!((registers.pc, registers.pstate), (0x10_0004, 0x6000_0000));
    // EL0, EL2 and 32-bit code.
    for mode in [0, 9, 0x13] {
        system.spsr = mode;
        assert_eq!(system.emulate(Return, &mut registers), None);
    }
    assert_eq!(registers.pc, 0x10_0004);
}

#[test]
fn each_stack_pointer_has_its_value_and_its_vectors() {
    let (mut system, mut registers) = start();
    system.other_stack = 0x30_0000;
    let shared = SelectStack { is_own: false };
    system.emulate(shared, &mut registers).expect("defined");
    system.emulate(shared, &mut registers).expect("defined");
    assert_eq!((registers.sp, system.other_stack), (0x30_0000, 0x20_0000));
    // SP_EL0 cannot be read by its name while it is the stack pointer.
    assert_eq!(system.emulate(read(SP_EL0, 0), &mut registers), None);
    let core = system.show(registers, Floating::default());
    assert_eq!(
        (core.registers.sp, core.sp_el1, core.registers.pstate),
        (0x30_0000, 0x20_0000, 0x3c4)
    );
    system.enter(&mut registers, 0, Some(7));
    assert_eq!(
        (registers.pc, registers.sp, system.spsr, system.far),
        (0, 0x20_0000, 0x3c4, 7)
    );
    let core = system.show(registers, Floating::default());
    assert_eq!(
        (core.registers.sp, core.sp_el1, core.registers.pstate),
        (0x30_0000, 0x20_0000, 0x3c5)
    );
}

#[test]
fn registers_of_a_debugger_come_back() {
    let (mut system, registers) = start();
    let mut core = system.show(registers, Floating::default());
    (core.registers.sp, core.sp_el1, core.elr, core.spsr[0]) = (1, 2, 3, 4);
    core.registers.pstate = 0x8000_03c4;
    let linux = Registers {
        pstate: 1 << 12,
        ..Registers::default()
    };
    let taken = system.take(&core, &linux).expect("valid");
    assert_eq!(
        (taken.sp, taken.pc, taken.pstate),
        (1, 0x10_0000, 0x8000_1000)
    );
    assert_eq!((system.other_stack, system.elr, system.spsr), (2, 3, 4));
    assert_eq!(system.show(taken, Floating::default()).sp_el1, 2);
    core.registers.pstate = 0;
    assert_eq!(system.take(&core, &linux), None);
    assert_eq!(system.spsr, 4);
}

#[test]
fn calls_of_firmware_are_answered_and_masks_kept() {
    let (mut system, mut registers) = start();
    system.emulate(Hypervisor, &mut registers).expect("defined");
    assert_eq!((registers.general[0], registers.pc), (u64::MAX, 0x10_0004));
    let clear = Mask {
        bits: 0x80,
        is_set: false,
    };
    system.emulate(clear, &mut registers).expect("defined");
    assert_eq!(system.pstate(&registers), 0x345);
    let set = Mask {
        bits: 0x80,
        is_set: true,
    };
    system.emulate(set, &mut registers).expect("defined");
    assert_eq!(system.pstate(&registers), 0x3c5);
}
