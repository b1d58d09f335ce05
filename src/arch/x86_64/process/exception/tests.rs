use kvm_bindings::kvm_run;

use super::*;
use crate::memory::{Access, Mapping};

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

fn stores(code: &[u8]) -> bool {
    let mut bytes = [0; LONGEST];
    bytes[..code.len()].copy_from_slice(code);
    is_store(&bytes)
}

#[test]
fn stores_differ_from_loads() {
    let stores_to_memory: &[&[u8]] = &[
        // MOV of each size, MOVNTI, MOVBE-less forms, string moves.
        &[0x88, 0x03],
        &[0x89, 0x03],
        &[0x66, 0x89, 0x03],
        &[0x48, 0x89, 0x03],
        &[0x44, 0x88, 0x23],
        &[0xc6, 0x03, 1],
        &[0x48, 0xc7, 0x03, 1, 0, 0, 0],
        &[0xa3, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x0f, 0xc3, 0x03],
        &[0x8c, 0x1b],
        &[0xf3, 0x48, 0xa5],
        &[0xf3, 0xaa],
        // ADD, OR, SUB, XOR, NOT, NEG, INC, shifts, XCHG, LOCK CMPXCHG and XADD, BTS, SHLD, SETcc.
        &[0x01, 0x03],
        &[0x08, 0x03],
        &[0x48, 0x29, 0x03],
        &[0x31, 0x03],
        &[0x83, 0x03, 1],
        &[0x80, 0x0b, 1],
        &[0xf7, 0x13],
        &[0xf6, 0x1b],
        &[0xff, 0x03],
        &[0xfe, 0x0b],
        &[0xd1, 0x23],
        &[0xc1, 0x23, 3],
        &[0x48, 0x87, 0x03],
        &[0xf0, 0x48, 0x0f, 0xb1, 0x0b],
        &[0xf0, 0x0f, 0xc1, 0x03],
        &[0xf0, 0x0f, 0xc7, 0x0b],
        &[0x0f, 0xab, 0x03],
        &[0x0f, 0xba, 0x2b, 1],
        &[0x0f, 0xa4, 0x03, 1],
        &[0x0f, 0x94, 0x03],
        // PUSH, CALL, PUSHF, ENTER.
        &[0x50],
        &[0x41, 0x57],
        &[0x6a, 1],
        &[0x68, 1, 0, 0, 0],
        &[0xe8, 0, 0, 0, 0],
        &[0x9c],
        &[0xc8, 0, 0, 0],
        // MOVUPS, MOVSD, MOVAPS, MOVD, MOVDQA, MOVQ, MOVNTPS, MOVNTDQ.
        &[0x0f, 0x11, 0x03],
        &[0xf2, 0x0f, 0x11, 0x03],
        &[0x0f, 0x29, 0x03],
        &[0x66, 0x0f, 0x7e, 0x03],
        &[0x66, 0x0f, 0x7f, 0x03],
        &[0x66, 0x0f, 0xd6, 0x03],
        &[0x0f, 0x2b, 0x03],
        &[0x66, 0x0f, 0xe7, 0x03],
        // x87: FST, FSTP of each size, FISTP, FISTTP, FBSTP, FNSTCW, FNSAVE.
        &[0xd9, 0x13],
        &[0xdd, 0x1b],
        &[0xdb, 0x3b],
        &[0xdb, 0x1b],
        &[0xdd, 0x0b],
        &[0xdf, 0x1b],
        &[0xdf, 0x33],
        &[0xd9, 0x3b],
        &[0xdd, 0x33],
        // CMPXCHG8B, XSAVEC, MOVDIRI, KMOVW, VSTMXCSR, VMOVSH.
        &[0x0f, 0xc7, 0x0b],
        &[0x0f, 0xc7, 0x23],
        &[0x0f, 0x38, 0xf9, 0x03],
        &[0xc5, 0xf8, 0x91, 0x0b],
        &[0xc5, 0xf8, 0xae, 0x1b],
        &[0x62, 0xf5, 0x7e, 0x08, 0x11, 0x03],
        // FXSAVE, STMXCSR, XSAVE, MOVBE, PEXTRD.
        &[0x0f, 0xae, 0x03],
        &[0x0f, 0xae, 0x1b],
        &[0x0f, 0xae, 0x23],
        &[0x0f, 0x38, 0xf1, 0x03],
        &[0x66, 0x0f, 0x3a, 0x16, 0x03, 0x01],
        // AVX: VMOVUPS, VMOVDQU, VMOVDQA64, VMOVQ, VEXTRACTF128, VMASKMOVPS, VPMOVDB, VCVTPS2PH.
        &[0xc5, 0xfc, 0x11, 0x03],
        &[0xc5, 0x7e, 0x7f, 0x0b],
        &[0x62, 0xf1, 0xfd, 0x48, 0x7f, 0x03],
        &[0xc5, 0xf9, 0xd6, 0x03],
        &[0xc4, 0xe3, 0x7d, 0x19, 0x03, 0x01],
        &[0xc4, 0xe2, 0x7d, 0x2e, 0x0b],
        &[0x62, 0xf2, 0x7e, 0x48, 0x31, 0x03],
        &[0xc4, 0xe3, 0x7d, 0x1d, 0x03, 0x00],
    ];
    for code in stores_to_memory {
        assert!(stores(code), "{code:02x?}");
    }
    let others: &[&[u8]] = &[
        // MOV, MOVZX, MOVSX, LODS, SCAS.
        &[0x8a, 0x03],
        &[0x48, 0x8b, 0x03],
        &[0x0f, 0xb6, 0x03],
        &[0x48, 0x63, 0x03],
        &[0xa1, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0xac],
        &[0xf3, 0xae],
        // CMP, TEST, ADD from memory, BT, MUL, POP, JMP, RET.
        &[0x39, 0x03],
        &[0x3b, 0x03],
        &[0x83, 0x3b, 1],
        &[0x85, 0x03],
        &[0xf7, 0x03, 1, 0, 0, 0],
        &[0x03, 0x03],
        &[0x0f, 0xa3, 0x03],
        &[0x0f, 0xba, 0x23, 1],
        &[0xf7, 0x23],
        &[0x58],
        &[0xff, 0x23],
        &[0xc3],
        // MOVUPS, MOVSD, MOVDQA and MOVQ from memory, ADDSD.
        &[0x0f, 0x10, 0x03],
        &[0xf2, 0x0f, 0x10, 0x03],
        &[0x66, 0x0f, 0x6f, 0x03],
        &[0xf3, 0x0f, 0x7e, 0x03],
        &[0xf2, 0x0f, 0x58, 0x03],
        // Prefixes alone.
        &[0x66; LONGEST],
        // x87: FLD, FILD, FLDCW, FRSTOR, FADD.
        &[0xd9, 0x03],
        &[0xdf, 0x2b],
        &[0xd9, 0x2b],
        &[0xdd, 0x23],
        &[0xd8, 0x03],
        // CLWB, PTWRITE, VMPTRLD, XRSTORS, KMOVW, VLDMXCSR, VMOVSH.
        &[0x66, 0x0f, 0xae, 0x33],
        &[0xf3, 0x0f, 0xae, 0x23],
        &[0x0f, 0xc7, 0x33],
        &[0x0f, 0xc7, 0x1b],
        &[0xc5, 0xf8, 0x90, 0x0b],
        &[0xc5, 0xf8, 0xae, 0x13],
        &[0x62, 0xf5, 0x7e, 0x08, 0x10, 0x03],
        // FXRSTOR, LDMXCSR, MOVBE, CRC32, PINSRD.
        &[0x0f, 0xae, 0x0b],
        &[0x0f, 0xae, 0x13],
        &[0x0f, 0x38, 0xf0, 0x03],
        &[0xf2, 0x0f, 0x38, 0xf1, 0x03],
        &[0x66, 0x0f, 0x3a, 0x22, 0x03, 0x01],
        // AVX: VMOVUPS, VMOVDQU, VMOVDQA64, VMOVQ, VINSERTF128, VMASKMOVPS, VPMOVZXBD, VADDPS.
        &[0xc5, 0xfc, 0x10, 0x03],
        &[0xc5, 0x7e, 0x6f, 0x0b],
        &[0x62, 0xf1, 0xfd, 0x48, 0x6f, 0x03],
        &[0xc5, 0xfa, 0x7e, 0x03],
        &[0xc4, 0xe3, 0x7d, 0x18, 0x03, 0x01],
        &[0xc4, 0xe2, 0x75, 0x2c, 0x03],
        &[0x62, 0xf2, 0x7d, 0x48, 0x31, 0x03],
        &[0xc5, 0xf4, 0x58, 0x03],
    ];
    for code in others {
        assert!(!stores(code), "{code:02x?}");
    }
}
