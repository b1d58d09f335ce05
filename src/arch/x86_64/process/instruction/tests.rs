//! Encodings by GNU as; each length is also that of `objdump -d`, except where the processor's rules
//! are not objdump's: prefixes after REX, and fourteen of one kind.

use super::Instruction::*;
use super::Operand::{Memory, Register};
use super::*;
use crate::memory::{Access, Mapping};

fn port(port: Option<u8>, size: u8, is_write: bool) -> Instruction {
    Port {
        port,
        size,
        is_write,
    }
}

fn string(size: u8, is_write: bool, is_repeated: bool) -> Instruction {
    String {
        size,
        is_write,
        is_repeated,
    }
}

fn control(number: u8, general: u8, is_write: bool) -> Instruction {
    Control {
        number,
        general,
        is_write,
    }
}

fn debug(number: u8, general: u8, is_write: bool) -> Instruction {
    Debug {
        number,
        general,
        is_write,
    }
}

fn counter(with_processor: bool) -> Instruction {
    Counter { with_processor }
}

fn segment(segment: u8, from: Operand) -> Instruction {
    LoadSegment { segment, from }
}

fn table(is_interrupts: bool, from: Place) -> Instruction {
    LoadTable {
        is_interrupts,
        from,
    }
}

fn place(base: Option<u8>, index: Option<(u8, u8)>, displacement: i32) -> Place {
    Place {
        base,
        index,
        displacement,
        ..Place::default()
    }
}

fn at(base: Option<u8>, index: Option<(u8, u8)>, displacement: i32) -> Operand {
    Memory(place(base, index, displacement))
}

/// Decodes `code`, which is followed by the byte `next`.
fn decoded(code: &[u8], next: u8) -> Option<(Instruction, u64)> {
    let mut bytes = [next; LONGEST];
    bytes[..code.len()].copy_from_slice(code);
    decode(&bytes)
}

#[test]
fn instructions_are_decoded_with_their_lengths() {
    let cases: &[(&[u8], Instruction)] = &[
        (&[0xf4], Halt),
        (&[0xfa], Nothing),
        (&[0xfb], Nothing),
        (&[0x0f, 0x06], Nothing),
        (&[0x0f, 0x08], Nothing),
        (&[0x0f, 0x09], Nothing),
        (&[0x0f, 0x01, 0x38], Nothing),
        (
            &[0x43, 0x0f, 0x01, 0xbc, 0xf5, 0x78, 0x56, 0x34, 0x12],
            Nothing,
        ),
        (&[0xef], port(None, 4, true)),
        (&[0x66, 0xef], port(None, 2, true)),
        (&[0xee], port(None, 1, true)),
        (&[0xe7, 0x80], port(Some(0x80), 4, true)),
        (&[0x66, 0xe7, 0x81], port(Some(0x81), 2, true)),
        (&[0xe6, 0xff], port(Some(0xff), 1, true)),
        (&[0xed], port(None, 4, false)),
        (&[0x66, 0xed], port(None, 2, false)),
        (&[0xec], port(None, 1, false)),
        (&[0xe5, 0x60], port(Some(0x60), 4, false)),
        (&[0xe4, 0x60], port(Some(0x60), 1, false)),
        (&[0x66, 0xe5, 0x60], port(Some(0x60), 2, false)),
        (&[0x48, 0xef], port(None, 4, true)),
        (&[0x66, 0x48, 0xef], port(None, 4, true)),
        (&[0x48, 0x66, 0xef], port(None, 2, true)),
        (&[0x40, 0x48, 0xef], port(None, 4, true)),
        (&[0x6e], string(1, true, false)),
        (&[0x66, 0x6f], string(2, true, false)),
        (&[0x6f], string(4, true, false)),
        (&[0x6c], string(1, false, false)),
        (&[0x66, 0x6d], string(2, false, false)),
        (&[0x6d], string(4, false, false)),
        (&[0xf3, 0x6e], string(1, true, true)),
        (&[0x66, 0xf3, 0x6f], string(2, true, true)),
        (&[0xf3, 0x6d], string(4, false, true)),
        (&[0xf2, 0x6f], string(4, true, true)),
        (&[0x0f, 0x30], WriteMsr),
        (&[0x0f, 0x32], ReadMsr),
        (&[0x0f, 0x01, 0xf8], SwapGs),
        (&[0x0f, 0xa2], Cpuid),
        (&[0x0f, 0x31], counter(false)),
        (&[0x0f, 0x01, 0xf9], counter(true)),
        (&[0xcb], FarReturn { is_long: false }),
        (&[0x48, 0xcb], FarReturn { is_long: true }),
        (&[0xcf], InterruptReturn { is_long: false }),
        (&[0x48, 0xcf], InterruptReturn { is_long: true }),
        (&[0xcd, 0x80], Interrupt(0x80)),
        (&[0xcd, 0xff], Interrupt(0xff)),
        (&[0x0f, 0x20, 0xc0], control(0, 0, false)),
        (&[0x0f, 0x22, 0xc0], control(0, 0, true)),
        (&[0x41, 0x0f, 0x20, 0xd1], control(2, 9, false)),
        (&[0x41, 0x0f, 0x22, 0xdf], control(3, 15, true)),
        (&[0x44, 0x0f, 0x20, 0xc7], control(8, 7, false)),
        (&[0x45, 0x0f, 0x22, 0xc4], control(8, 12, true)),
        (&[0x0f, 0x21, 0xf8], debug(7, 0, false)),
        (&[0x41, 0x0f, 0x23, 0xc0], debug(0, 8, true)),
        (&[0x0f, 0x23, 0xf3], debug(6, 3, true)),
        (&[0x0f, 0x20, 0x00], control(0, 0, false)),
        (&[0x44, 0x0f, 0x23, 0xf8], debug(15, 0, true)),
        (&[0x8e, 0xd8], segment(3, Register(0))),
        (&[0x41, 0x8e, 0xc2], segment(0, Register(10))),
        (&[0x8e, 0x13], segment(2, at(Some(3), None, 0))),
        (&[0x8e, 0xe1], segment(4, Register(1))),
        (
            &[0x64, 0x8e, 0x2e],
            segment(
                5,
                Memory(Place {
                    segment: Some(4),
                    ..place(Some(6), None, 0)
                }),
            ),
        ),
        (&[0x8e, 0xf8], segment(7, Register(0))),
        (&[0x0f, 0x00, 0xd8], LoadTask(Register(0))),
        (&[0x41, 0x0f, 0x00, 0xd9], LoadTask(Register(9))),
        (
            &[0x0f, 0x00, 0x5c, 0x24, 0x08],
            LoadTask(at(Some(4), None, 8)),
        ),
        (&[0x0f, 0x00, 0xd2], LoadLocalTable(Register(2))),
        (&[0x0f, 0x00, 0x17], LoadLocalTable(at(Some(7), None, 0))),
        (&[0x0f, 0x01, 0x1f], table(true, place(Some(7), None, 0))),
        (&[0x0f, 0x01, 0x10], table(false, place(Some(0), None, 0))),
        (
            &[0x0f, 0x01, 0x14, 0x24],
            table(false, place(Some(4), None, 0)),
        ),
        (
            &[0x0f, 0x01, 0x55, 0x00],
            table(false, place(Some(5), None, 0)),
        ),
        (
            &[0x41, 0x0f, 0x01, 0x1c, 0x24],
            table(true, place(Some(12), None, 0)),
        ),
        (
            &[0x41, 0x0f, 0x01, 0x5d, 0x00],
            table(true, place(Some(13), None, 0)),
        ),
        (
            &[0x0f, 0x01, 0x53, 0xff],
            table(false, place(Some(3), None, -1)),
        ),
        (
            &[0x0f, 0x01, 0x93, 0x80, 0x00, 0x00, 0x00],
            table(false, place(Some(3), None, 0x80)),
        ),
        (
            &[0x41, 0x0f, 0x01, 0x9b, 0x00, 0x00, 0x00, 0x80],
            table(true, place(Some(11), None, i32::MIN)),
        ),
        (
            &[0x0f, 0x01, 0x1d, 0x78, 0x56, 0x34, 0x12],
            table(
                true,
                Place {
                    is_relative: true,
                    ..place(None, None, 0x1234_5678)
                },
            ),
        ),
        (
            &[0x0f, 0x01, 0x1c, 0x25, 0x00, 0x00, 0x01, 0x00],
            table(true, place(None, None, 0x1_0000)),
        ),
        (
            &[0x0f, 0x01, 0x14, 0x08],
            table(false, place(Some(0), Some((1, 0)), 0)),
        ),
        (
            &[0x42, 0x0f, 0x01, 0x14, 0xe0],
            table(false, place(Some(0), Some((12, 3)), 0)),
        ),
        (
            &[0x41, 0x0f, 0x01, 0x54, 0xad, 0x08],
            table(false, place(Some(13), Some((5, 2)), 8)),
        ),
        (
            &[0x0f, 0x01, 0x14, 0x55, 0x00, 0x10, 0x00, 0x00],
            table(false, place(None, Some((2, 1)), 0x1000)),
        ),
        (
            &[0x42, 0x0f, 0x01, 0x54, 0x64, 0x04],
            table(false, place(Some(4), Some((12, 1)), 4)),
        ),
        (
            &[0x65, 0x0f, 0x01, 0x1c, 0x25, 0x10, 0x00, 0x00, 0x00],
            table(
                true,
                Place {
                    segment: Some(5),
                    ..place(None, None, 16)
                },
            ),
        ),
        (
            &[0x64, 0x43, 0x0f, 0x01, 0x1c, 0x48],
            table(
                true,
                Place {
                    segment: Some(4),
                    ..place(Some(8), Some((9, 1)), 0)
                },
            ),
        ),
        (
            &[
                0x2e, 0x3e, 0x26, 0x36, 0xf0, 0x0f, 0x01, 0x1c, 0x25, 0x01, 0x00, 0x00, 0x00,
            ],
            table(true, place(None, None, 1)),
        ),
        (
            &[
                0x66, 0x65, 0x2e, 0x2e, 0x2e, 0x2e, 0x44, 0x0f, 0x01, 0x9c, 0xe0, 0x78, 0x56, 0x34,
                0x12,
            ],
            table(
                true,
                Place {
                    segment: Some(5),
                    ..place(Some(0), None, 0x1234_5678)
                },
            ),
        ),
        (
            &[
                0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
                0xf4,
            ],
            Halt,
        ),
    ];
    for (code, instruction) in cases {
        for next in [0, 0x24, 0x90, 0xff] {
            let expected = Some((*instruction, code.len() as u64));
            assert_eq!(decoded(code, next), expected, "{code:02x?} {next:#x}");
        }
    }
}

#[test]
fn other_bytes_are_no_instruction_that_is_emulated() {
    let cases: &[&[u8]] = &[
        &[0x00, 0x00],
        // NOP, RET, INT3, INT1, SYSCALL, SYSENTER, UD2.
        &[0x90],
        &[0xc3],
        &[0xcc],
        &[0xf1],
        &[0x0f, 0x05],
        &[0x0f, 0x34],
        &[0x0f, 0x0b],
        // SGDT, SIDT, LMSW, SLDT, STR, VERR, XSETBV, MONITOR, VMCALL, VMRUN.
        &[0x0f, 0x01, 0x00],
        &[0x0f, 0x01, 0x08],
        &[0x0f, 0x01, 0xf0],
        &[0x0f, 0x00, 0xc0],
        &[0x0f, 0x00, 0xc8],
        &[0x0f, 0x00, 0xe0],
        &[0x0f, 0x01, 0xd1],
        &[0x0f, 0x01, 0xc8],
        &[0x0f, 0x01, 0xc1],
        &[0x0f, 0x01, 0xd8],
        // LGDT of a register; MWAITX.
        &[0x0f, 0x01, 0xd0],
        &[0x0f, 0x01, 0xfb],
        // Test registers, the map 0F 38, VEX, EVEX.
        &[0x0f, 0x24, 0xc0],
        &[0x0f, 0x38, 0x82, 0x00],
        &[0xc5, 0xf8, 0x77],
        &[0x62, 0xf1, 0x7c, 0x48],
        // An address of 32 bits.
        &[0x67, 0x0f, 0x01, 0x1f],
        // Far calls and jumps, INTO, LES: not in 64-bit mode, or not emulated.
        &[0x9a],
        &[0xea],
        &[0xce],
        &[0xc4],
    ];
    for code in cases {
        assert_eq!(decoded(code, 0x90), None, "{code:02x?}");
    }
}

/// The processor does not read what comes after the fifteenth byte.
#[test]
fn longer_instructions_are_refused() {
    let cases: &[&[u8]] = &[
        &[0x66],
        &[0x66, 0x66, 0x66, 0xe6],
        &[0x66, 0x66, 0x66, 0x0f],
        &[0x66, 0x66, 0x0f, 0x01],
        &[0x66, 0x66, 0x0f, 0x20],
        &[0x66, 0x0f, 0x01, 0x1c],
        &[0x66, 0x0f, 0x01, 0x5f],
        &[0x0f, 0x01, 0x9f, 0x00],
        &[0x01, 0x1d, 0x00, 0x00],
        &[0x66, 0x66, 0x48, 0x66],
        &[0x66, 0x66, 0x66, 0xcd],
    ];
    for end in cases {
        let mut code = [0x66; LONGEST];
        code[LONGEST - end.len()..].copy_from_slice(end);
        if end[0] == 0x01 {
            code[LONGEST - end.len() - 1] = 0x0f;
        }
        assert_eq!(decode(&code), None, "{code:02x?}");
    }
}

/// All beginnings of two bytes, and some of three: none panics, and each length is 1 to 15.
#[test]
fn any_bytes_are_decoded_or_refused() {
    for start in 0..=u16::MAX {
        let [first, second] = start.to_le_bytes();
        for third in (0..=u8::MAX).step_by(17) {
            if let Some((_, length)) = decoded(&[first, second, third], 0x65) {
                assert!(
                    (1..=LONGEST as u64).contains(&length),
                    "{start:#x} {third:#x}"
                );
            }
        }
    }
}

#[test]
fn code_ends_where_memory_with_code_ends() {
    let mut memory = GuestMemory::new(0x4000).unwrap();
    memory.place(GuestAddress(0), &[0xf4; 0x4000]).unwrap();
    let mapping = |range, access| Mapping { range, access };
    memory.protect(vec![
        mapping(0..0x1000, Access::ReadWrite),
        mapping(0x1000..0x2000, Access::ReadExecute),
        mapping(0x2000..0x3000, Access::Read),
        mapping(0x3000..0x4000, Access::All),
    ]);
    let count = |address| {
        bytes(&memory, address)
            .iter()
            .filter(|byte| **byte == 0xf4)
            .count()
    };
    for (address, expected) in [
        (0x0fff, 0),
        (0x1000, 15),
        (0x1ff1, 15),
        (0x1ff2, 14),
        (0x1fff, 1),
        (0x2000, 0),
        (0x3ffe, 2),
        (0x4000, 0),
        (u64::MAX - 3, 0),
        (u64::MAX, 0),
    ] {
        assert_eq!(count(address), expected, "{address:#x}");
    }
}
