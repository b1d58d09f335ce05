use super::*;
use crate::arch::{Architecture, Native};
use crate::memory::{Access, Mapping};

/// Memory with the tables of a guest of 4 MiB: code, data that is read, data.
fn memory() -> GuestMemory {
    let mapping = |range, access| Mapping { range, access };
    let mappings = [
        mapping(0..0x10000, Access::None),
        mapping(0x1_0000..0x10_0000, Access::Read),
        mapping(0x10_0000..0x10_1000, Access::ReadExecute),
        mapping(0x10_1000..0x40_0000, Access::ReadWrite),
    ];
    let memory = GuestMemory::new(4 << 20).expect("4 MiB");
    Native::build_tables(&memory, &mappings).expect("few tables");
    memory
}

/// ldr w2, [x3]; str w2, [x3]; ldadd w1, w2, [x3]
const LOAD: u32 = 0xb940_0062;
const STORE: u32 = 0xb900_0062;
const ADD: u32 = 0xb821_0062;

/// Classes and fault status codes of the Arm Architecture Reference Manual, ESR_EL1.
#[test]
fn aborts_have_the_level_of_the_tables() {
    let memory = memory();
    for (address, word, syndrome) in [
        (0x8, LOAD, 0x9600_0007),
        (0x8, STORE, 0x9600_0047),
        (0x8, ADD, 0x9600_0007),
        (0x10_0000, STORE, 0x9600_004f),
        (0x10_0000, ADD, 0x9600_004f),
        (0x40_0000, LOAD, 0x9600_0006),
        (0x2_0000_0000, LOAD, 0x9600_0005),
        (0x80_0000_0000, LOAD, 0x9600_0004),
        (0x100_0000_0000, STORE, 0x9600_0044),
        (0xffff_ff00_0001_0000, LOAD, 0x9600_0004),
    ] {
        let exception = Exception::data(&memory, address, word);
        let expected = Exception::new(0, 0).at(address);
        assert_eq!(
            exception,
            Exception {
                syndrome,
                ..expected
            },
            "{address:#x} {word:#x}"
        );
    }
    for (address, syndrome) in [
        (0x8000, 0x8600_0007),
        (0x1_0000, 0x8600_000f),
        (0x3f_f000, 0x8600_000e),
        (0x1_0000_0000, 0x8600_000d),
    ] {
        let exception = Exception::fetch(&memory, address);
        assert_eq!(
            (exception.syndrome, exception.address),
            (syndrome, Some(address))
        );
    }
}

#[test]
fn a_tag_of_an_address_is_kept_but_not_looked_up() {
    let exception = Exception::data(&memory(), 0x5a << 56 | 0x10_0000, STORE);
    assert_eq!(exception.syndrome, 0x9600_004f);
    assert_eq!(exception.address, Some(0x5a << 56 | 0x10_0000));
}

#[test]
fn exceptions_of_instructions_have_their_numbers() {
    let memory = memory();
    // svc #3
    memory
        .place(GuestAddress(0x10_1000), &0xd400_0061_u32.to_le_bytes())
        .expect("in memory");
    let mut registers = Registers {
        pc: 0x10_1000,
        ..Registers::default()
    };
    let call = Exception::system_call(&memory, &mut registers, 0x10_1004);
    assert_eq!(
        (call.syndrome, call.address, registers.pc),
        (0x5600_0003, None, 0x10_1004)
    );
    // brk #5
    assert_eq!(Exception::breakpoint(0xd420_00a0).syndrome, 0xf200_0005);
    assert_eq!(Exception::UNDEFINED.syndrome, 0x0200_0000);
}

#[test]
fn misalignment_is_of_the_counter_the_stack_or_the_access() {
    let of = |pc, sp, word| {
        let registers = Registers {
            pc,
            sp,
            ..Registers::default()
        };
        Exception::misaligned(&registers, 0x10_2001, Some(word))
    };
    assert_eq!(
        of(0x10_0002, 0, LOAD),
        Exception::new(0x22, 0).at(0x10_0002)
    );
    // ldr w2, [sp]
    assert_eq!(of(0x10_0000, 8, 0xb940_03e2), Exception::new(0x26, 0));
    assert_eq!(
        of(0x10_0000, 8, LOAD),
        Exception::new(0x25, 0x21).at(0x10_2001)
    );
    assert_eq!(
        of(0x10_0000, 0, STORE),
        Exception::new(0x25, 0x61).at(0x10_2001)
    );
}
