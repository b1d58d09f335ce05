use kvm_bindings::kvm_run;

use super::*;
use crate::memory::{Access, Mapping};

mod stores;

const IDT: u64 = 0x1000;
const GDT: u64 = 0x2000;
const TASK: u64 = 0x3000;
const READ_ONLY: u64 = 0x4000;
const CODE: u64 = 0x5000;
const STACK: u64 = 0x8000;
const SIZE: u64 = 0x8000;

/// Kinds of gates.
const INTERRUPT: u64 = 0x8e;
const TRAP: u64 = 0x8f;

const HANDLER: u64 = 0x1234_5678_9abc_def0;
const SELECTOR: u16 = 0x18;

struct Machine {
    cpu: Cpu,
    memory: GuestMemory,
    registers: Registers,
    details: Details,
}

impl Machine {
    /// A guest with an empty interrupt table of all 256 vectors, and one task with a stack.
    fn new() -> Machine {
        let mut memory = GuestMemory::new(SIZE).unwrap();
        let mapping = |range, access| Mapping { range, access };
        memory.protect(vec![
            mapping(0..READ_ONLY, Access::ReadWrite),
            mapping(READ_ONLY..CODE, Access::Read),
            mapping(CODE..CODE + 0x1000, Access::ReadExecute),
            mapping(CODE + 0x1000..SIZE, Access::ReadWrite),
        ]);
        let mut cpu = Cpu::new();
        let system = cpu.system.get_mut();
        (system.idt.base, system.idt.limit) = (IDT, 0xfff);
        (system.gdt.base, system.gdt.limit) = (GDT, 0xff);
        (system.cs.selector, system.ss.selector) = (8, 0x10);
        Machine {
            cpu,
            memory,
            registers: Registers {
                rip: 0x5010,
                rsp: 0x7779,
                eflags: 0x5_4f02,
                ..Registers::default()
            },
            details: Details {
                run: kvm_run::default(),
                data: [0; 8],
            },
        }
    }

    fn put(&self, address: u64, value: u64) {
        let bytes = value.to_le_bytes();
        self.memory.place(GuestAddress(address), &bytes).unwrap();
    }

    /// Gives a vector a handler.
    fn handle(&self, vector: u64, kind: u64, stack: u64) {
        let low = HANDLER & 0xffff | u64::from(SELECTOR) << 16 | stack << 32 | kind << 40;
        self.put(IDT + 16 * vector, low | (HANDLER >> 16 & 0xffff) << 48);
        self.put(IDT + 16 * vector + 8, HANDLER >> 32);
    }

    /// Loads the task at selector 0x28, with stack `number` at `top`.
    fn load_task(&mut self, number: u64, top: u64) {
        self.put(GDT + 0x28, 0x67 | (TASK & 0xff_ffff) << 16 | 0x89 << 40);
        self.put(GDT + 0x30, TASK >> 32);
        self.put(TASK + 0x1c + 8 * number, top);
        self.cpu.system.get_mut().tr.selector = 0x28;
    }

    fn deliver(&mut self, exception: Exception) -> Next {
        let Machine {
            cpu,
            memory,
            registers,
            details,
        } = self;
        cpu.deliver(memory, registers, exception, details)
    }

    /// Checks that the guest is in its handler, and returns the frame from `top` down.
    #[track_caller]
    fn frame(&self, top: u64) -> Vec<u64> {
        assert_eq!(self.registers.rip, HANDLER);
        assert_eq!(self.cpu.system.borrow().cs.selector, SELECTOR);
        let addresses = (self.registers.rsp..top).step_by(8);
        let mut frame: Vec<_> = addresses
            .map(|address| self.memory.read::<u64>(GuestAddress(address)).unwrap())
            .collect();
        frame.reverse();
        frame
    }

    #[track_caller]
    fn ends(&mut self, exception: Exception) {
        let before = self.registers;
        assert_eq!(self.deliver(exception), Next::Exit);
        assert_eq!(self.details.run.exit_reason, KVM_EXIT_SHUTDOWN);
        let after = &self.registers;
        assert_eq!((after.rip, after.rsp), (before.rip, before.rsp));
    }
}

/// The frame without an error code.
const FRAME: [u64; 5] = [0x10, 0x7779, 0x5_4f02, 8, 0x5010];

fn frame_with(error: u64) -> Vec<u64> {
    [&FRAME[..], &[error]].concat()
}

#[test]
fn a_handler_gets_the_frame_of_the_processor() {
    for kind in [INTERRUPT, TRAP] {
        let mut machine = Machine::new();
        machine.handle(6, kind, 0);
        assert_eq!(machine.deliver(Exception::UNDEFINED), Next::Resume);
        assert_eq!(machine.frame(0x7770), FRAME);
        // Without TF, NT and RF.
        assert_eq!(machine.registers.eflags, 0x4_0e02);
        assert_eq!(machine.cpu.system.borrow().ss.selector, 0x10);
    }
}

#[test]
fn an_error_code_is_the_last_value() {
    let mut machine = Machine::new();
    machine.handle(14, INTERRUPT, 0);
    machine.deliver(Exception::with(14, 0x13));
    assert_eq!(machine.frame(0x7770), frame_with(0x13));
}

#[test]
fn a_gate_may_have_a_stack_of_the_task() {
    for number in 1..=7 {
        let mut machine = Machine::new();
        machine.load_task(number, 0x7008);
        machine.handle(13, INTERRUPT, number);
        assert_eq!(machine.deliver(Exception::PROTECTION), Next::Resume);
        assert_eq!(machine.frame(0x7000), frame_with(0));
    }
}

#[test]
fn a_task_that_is_not_valid_has_no_stack() {
    let broken: [fn(&mut Machine); 6] = [
        |machine| machine.cpu.system.get_mut().tr.selector = 0,
        |machine| machine.cpu.system.get_mut().tr.selector = 3,
        |machine| machine.cpu.system.get_mut().tr.selector = 0xffff,
        |machine| machine.cpu.system.get_mut().gdt.limit = 0x36,
        |machine| machine.cpu.system.get_mut().gdt.base = u64::MAX - 8,
        |machine| machine.put(GDT + 0x30, u64::MAX),
    ];
    for (number, spoil) in broken.into_iter().enumerate() {
        let mut machine = Machine::new();
        machine.load_task(1, 0x7000);
        machine.handle(13, INTERRUPT, 1);
        spoil(&mut machine);
        machine.ends(Exception::PROTECTION);
        // The double fault has the current stack.
        machine.handle(8, INTERRUPT, 0);
        assert_eq!(
            machine.deliver(Exception::PROTECTION),
            Next::Resume,
            "{number}"
        );
        assert_eq!(machine.frame(0x7770), frame_with(0));
    }
}

#[test]
fn gates_that_are_not_valid_lead_to_a_double_fault() {
    let broken: [fn(&mut Machine); 5] = [
        |_| {},
        |machine| machine.handle(14, 0x0e, 0),
        |machine| machine.handle(14, 0x85, 0),
        |machine| machine.handle(14, 0x8c, 0),
        |machine| {
            machine.handle(14, INTERRUPT, 0);
            machine.cpu.system.get_mut().idt.limit = 16 * 14 + 14;
        },
    ];
    for spoil in broken {
        let mut machine = Machine::new();
        spoil(&mut machine);
        machine.ends(Exception::with(14, 2));
        machine.handle(8, INTERRUPT, 0);
        assert_eq!(machine.deliver(Exception::with(14, 2)), Next::Resume);
        assert_eq!(machine.frame(0x7770), frame_with(0));
    }
}

#[test]
fn the_limit_of_the_table_is_its_last_byte() {
    let mut machine = Machine::new();
    machine.handle(14, INTERRUPT, 0);
    machine.cpu.system.get_mut().idt.limit = 16 * 14 + 15;
    assert_eq!(machine.deliver(Exception::with(14, 0)), Next::Resume);
}

#[test]
fn tables_outside_of_memory_end_the_guest() {
    for base in [SIZE, SIZE - 8, u64::MAX, u64::MAX - 16 * 14, 1 << 63] {
        let mut machine = Machine::new();
        machine.cpu.system.get_mut().idt.base = base;
        machine.ends(Exception::with(14, 0));
    }
}

/// Of an exception that no other caused: an interrupt, and an undefined instruction.
#[test]
fn an_interrupt_without_gate_is_a_general_protection_exception() {
    for (vector, error) in [(0x80, 0x402), (0xff, 0x7fa), (6, 0x32)] {
        let mut machine = Machine::new();
        machine.handle(13, INTERRUPT, 0);
        assert_eq!(machine.deliver(Exception::software(vector)), Next::Resume);
        assert_eq!(machine.frame(0x7770), frame_with(error));
    }
}

/// Pushing to such a stack fails, also for the double fault, unless that has its own.
#[test]
fn stacks_that_cannot_be_written_lead_to_a_double_fault() {
    for stack in [
        0,
        7,
        READ_ONLY + 0x800,
        CODE,
        CODE + 0x1000,
        CODE + 0x1020,
        STACK + 0x10,
        u64::MAX,
        1 << 47,
    ] {
        let mut machine = Machine::new();
        machine.registers.rsp = stack;
        machine.handle(13, INTERRUPT, 0);
        machine.handle(8, INTERRUPT, 0);
        machine.ends(Exception::PROTECTION);
        machine.load_task(1, STACK);
        machine.handle(8, INTERRUPT, 1);
        assert_eq!(
            machine.deliver(Exception::PROTECTION),
            Next::Resume,
            "{stack:#x}"
        );
        assert_eq!(machine.frame(STACK)[1], stack);
    }
}

/// The tender writes for the guest, and never where the guest may not.
#[test]
fn memory_that_the_guest_may_not_write_stays() {
    let mut machine = Machine::new();
    machine.handle(13, INTERRUPT, 0);
    let contents = |machine: &Machine| {
        let mut bytes = vec![0; 0x2000];
        let memory = machine.memory.bytes(GuestAddress(READ_ONLY), 0x2000);
        memory.unwrap().copy_to(&mut bytes);
        bytes
    };
    let before = contents(&machine);
    for stack in (READ_ONLY - 0x80..CODE + 0x1080).step_by(8) {
        machine.registers.rsp = stack;
        machine.deliver(Exception::PROTECTION);
    }
    assert_eq!(contents(&machine), before);
}

#[test]
fn page_faults_have_the_error_code_of_their_access() {
    const UNMAPPED: c_int = 1;
    let machine = Machine::new();
    let (load, store) = ([0x8b, 0x03], [0x89, 0x03]);
    machine.memory.place(GuestAddress(CODE), &load).unwrap();
    machine
        .memory
        .place(GuestAddress(CODE + 2), &store)
        .unwrap();
    let code = |code, address, at| {
        let Exception { vector, error } = Exception::page_fault(&machine.memory, code, address, at);
        assert_eq!(vector, 14);
        error.unwrap()
    };
    assert_eq!(code(UNMAPPED, 0x9000, CODE), 0);
    assert_eq!(code(UNMAPPED, 0x9000, CODE + 2), WRITE);
    assert_eq!(code(SEGV_ACCERR, READ_ONLY, CODE + 2), PRESENT | WRITE);
    // A store to the code itself.
    assert_eq!(code(SEGV_ACCERR, CODE + 6, CODE + 2), PRESENT | WRITE);
    assert_eq!(code(SEGV_ACCERR, 0x6000, 0x6000), PRESENT | FETCH);
    // An instruction that begins on a page with code and ends on one without.
    assert_eq!(code(SEGV_ACCERR, 0x6000, 0x5ff8), PRESENT | FETCH);
    assert_eq!(code(UNMAPPED, u64::MAX, u64::MAX), FETCH);
    assert_eq!(code(UNMAPPED, 0x9000, 0x9000), FETCH);
}

#[test]
fn a_system_call_is_what_its_instruction_is_without_linux() {
    let machine = Machine::new();
    let after = |code: [u8; 2]| {
        machine.memory.place(GuestAddress(CODE), &code).unwrap();
        let mut registers = Registers {
            rip: CODE + 2,
            ..Registers::default()
        };
        let exception = Exception::system_call(&machine.memory, &mut registers);
        (exception, registers.rip)
    };
    assert_eq!(after([0x0f, 0x05]), (Exception::UNDEFINED, CODE));
    assert_eq!(after([0xcd, 0x80]), (Exception::software(0x80), CODE + 2));
    // A call of the vsyscall page returns to its caller.
    assert_eq!(after([0xff, 0xd0]), (Exception::UNDEFINED, CODE + 2));
    for rip in [0, 1, 2, u64::MAX] {
        let mut registers = Registers {
            rip,
            ..Registers::default()
        };
        let exception = Exception::system_call(&machine.memory, &mut registers);
        assert_eq!((exception, registers.rip), (Exception::UNDEFINED, rip));
    }
}
