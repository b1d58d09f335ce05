//! Guests of any contents: memory, registers, tables and instructions at random, but mostly with
//! values that lead somewhere. `PROPTEST_CASES` sets the number of guests.

use proptest::prelude::*;

use super::instruction::LONGEST;
use super::*;
use crate::memory::{Access, Mapping};

const SIZE: u64 = 0x6000;
const READ_ONLY: u64 = 0x2000;
const CODE: u64 = 0x3000;
const CODE_END: u64 = 0x4000;

/// The random bytes of a guest; zeros follow.
struct Input<'i>(&'i [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// An address: near a border of memory, within it, near the ends of the address space, or any.
    fn address(&mut self) -> u64 {
        const BORDERS: [u64; 8] = [
            0,
            READ_ONLY,
            CODE,
            CODE_END,
            SIZE,
            u64::MAX,
            1 << 47,
            u64::MAX << 47,
        ];
        let kind = self.byte();
        let near = u64::from(self.byte() & 63).wrapping_sub(32);
        match kind >> 6 {
            0 => BORDERS[usize::from(kind & 7)].wrapping_add(near),
            1 | 2 => (u64::from(kind & 63) << 9).wrapping_add(near),
            _ => self.number(),
        }
    }
}

fn memory(input: &mut Input<'_>) -> GuestMemory {
    let mut memory = GuestMemory::new(SIZE).unwrap();
    let mapping = |range, access| Mapping { range, access };
    memory.protect(vec![
        mapping(0..READ_ONLY, Access::ReadWrite),
        mapping(READ_ONLY..CODE, Access::Read),
        mapping(CODE..CODE_END, Access::ReadExecute),
        mapping(CODE_END..SIZE, Access::ReadWrite),
    ]);
    for _ in 0..input.byte() % 16 {
        // A gate, or a descriptor of a task.
        let (place, stack) = (input.address() % (SIZE - 16), u64::from(input.byte() & 7));
        let low = input.address() & 0xffff_ffff | stack << 32 | 0x8e << 40;
        let bytes = [low.to_le_bytes(), (input.number() & 0xff).to_le_bytes()].concat();
        memory.place(GuestAddress(place), &bytes).unwrap();
    }
    memory
}

fn contents(memory: &GuestMemory) -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    let all = memory.bytes(GuestAddress(0), SIZE).unwrap();
    all.copy_to(&mut bytes);
    bytes
}

fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let code: [u8; LONGEST] = std::array::from_fn(|_| input.byte());
    let memory = memory(&mut input);
    let mut cpu = Cpu {
        counter: Counter {
            kilohertz: 1,
            is_emulated: false,
        },
        first: Cell::default(),
        system: RefCell::default(),
        kernel_gs: input.address(),
        debug: Cell::default(),
        breakpoint: Cell::default(),
        stepped: false,
    };
    let system = cpu.system.get_mut();
    for table in [&mut system.idt, &mut system.gdt] {
        (table.base, table.limit) = (input.address(), input.number() as u16);
    }
    system.tr.selector = input.number() as u16;
    let mut registers = Registers::default();
    for number in 0..16 {
        *registers.numbered(number) = input.address();
    }
    if input.byte() & 1 == 0 {
        registers.rcx = 0xc000_0100 + u64::from(input.byte() & 3);
    }
    (registers.rip, registers.eflags) = (input.address(), input.number());
    let before = contents(&memory);
    if let Some((instruction, length)) = instruction::decode(&code) {
        assert!((1..=LONGEST as u64).contains(&length));
        cpu.set_state(&memory, instruction, &mut registers);
    }
    assert_eq!(contents(&memory), before, "an instruction wrote to memory");
    let mut details = Details {
        run: kvm_bindings::kvm_run::default(),
        data: [0; 8],
    };
    for vector in [input.byte(), 14] {
        let rip = registers.rip;
        instruction::bytes(&memory, rip);
        let exception = match input.byte() & 3 {
            0 => Exception::software(vector),
            1 => Exception::page_fault(&memory, c_int::from(vector & 3), input.address(), rip),
            2 => Exception::system_call(&memory, &mut registers),
            _ => Exception::PROTECTION,
        };
        let next = cpu.deliver(&memory, &mut registers, exception, &mut details);
        let is_end = details.run.exit_reason == kvm_bindings::KVM_EXIT_SHUTDOWN;
        assert_eq!(next == Next::Exit, is_end);
        if is_end {
            break;
        }
        // Its frame is in memory that the guest may write.
        assert!(
            (0..READ_ONLY).contains(&registers.rsp) || (CODE_END..SIZE).contains(&registers.rsp)
        );
    }
    let (protected, after) = (READ_ONLY as usize..CODE_END as usize, contents(&memory));
    assert!(
        after[protected.clone()] == before[protected],
        "protected memory changed"
    );
}

/// Beginnings of instructions that are emulated.
const EMULATED: &[&[u8]] = &[
    &[0x0f, 0x00],
    &[0x0f, 0x01],
    &[0x0f, 0x20],
    &[0x0f, 0x22],
    &[0x0f, 0x30],
    &[0x0f, 0x32],
    &[0x0f, 0xa2],
    &[0x48, 0xcb],
    &[0x48, 0xcf],
    &[0xcb],
    &[0xcf],
    &[0x8e],
    &[0x64, 0x0f, 0x01],
    &[0x65, 0x48, 0x0f, 0x00],
    &[0x45, 0x8e],
];

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_guest_is_served_or_ends(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        check(&bytes);
    }

    /// As above, with an instruction that is emulated.
    #[test]
    fn any_guest_can_execute_what_is_emulated(
        start in prop::sample::select(EMULATED),
        rest in prop::collection::vec(any::<u8>(), 0..512),
    ) {
        check(&[start, &rest].concat());
    }
}
