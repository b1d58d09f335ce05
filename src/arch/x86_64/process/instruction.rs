//! The instructions of a guest that fault in a process, decoded. Pure, and fuzzed: bytes in, values
//! out.

use crate::memory::{GuestAddress, GuestMemory};

/// Longest instruction.
pub(super) const LONGEST: usize = 15;

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instruction {
    /// Writes to or reads from a port, of so many bytes.
    Port {
        /// In DX if none is given.
        port: Option<u8>,
        size: u8,
        is_write: bool,
    },
    /// The same, by DX, of a string in memory.
    String {
        size: u8,
        is_write: bool,
        is_repeated: bool,
    },
    Halt,
    /// Changes nothing that a guest can see: CLI, STI, INVLPG and the like.
    Nothing,
    WriteMsr,
    ReadMsr,
    SwapGs,
    /// LGDT or LIDT.
    LoadTable {
        is_interrupts: bool,
        from: Place,
    },
    LoadTask(Operand),
    LoadLocalTable(Operand),
    /// A move to segment register number `segment`.
    LoadSegment {
        segment: u8,
        from: Operand,
    },
    /// A move from or to a control register.
    Control {
        number: u8,
        general: u8,
        is_write: bool,
    },
    /// A move from or to a debug register.
    Debug {
        number: u8,
        general: u8,
        is_write: bool,
    },
    /// RETF; pops 8 or 4 bytes at a time.
    FarReturn {
        is_long: bool,
    },
    /// IRET, the same.
    InterruptReturn {
        is_long: bool,
    },
    Interrupt(u8),
    Cpuid,
    /// RDTSC; RDTSCP also reads the processor's number.
    Counter {
        with_processor: bool,
    },
}

/// A general register or a place in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    Register(u8),
    Memory(Place),
}

/// A place in memory: the sum of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub base: Option<u8>,
    /// A register and the power of two that it is multiplied by.
    pub index: Option<(u8, u8)>,
    pub displacement: i32,
    /// Relative to the next instruction.
    pub is_relative: bool,
    /// The base of FS (4) or GS (5) is part of it.
    pub segment: Option<u8>,
}

/// Returns the bytes at `address`, as far as there is memory with code.
pub(super) fn bytes(memory: &GuestMemory, address: u64) -> [u8; LONGEST] {
    let mut bytes = [0; LONGEST];
    for (offset, byte) in (0..).zip(&mut bytes) {
        let address = address.wrapping_add(offset);
        if !memory.is_executable(address) {
            break;
        }
        *byte = memory.read(GuestAddress(address)).unwrap_or_default();
    }
    bytes
}

/// The bytes of an instruction that are not yet decoded.
struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, others) = self.0.split_first()?;
        self.0 = others;
        Some(*first)
    }

    fn displacement(&mut self, is_long: bool) -> Option<i32> {
        if !is_long {
            return Some(i32::from(self.next()? as i8));
        }
        let (first, others) = self.0.split_first_chunk()?;
        self.0 = others;
        Some(i32::from_le_bytes(*first))
    }
}

/// What precedes an opcode.
#[derive(Clone, Copy, Debug, Default)]
struct Prefixes {
    /// 16-bit operands.
    is_short: bool,
    is_repeated: bool,
    /// REX: 64-bit operands, and the fourth bits of three register numbers.
    rex: u8,
    segment: Option<u8>,
}

impl Prefixes {
    fn of(bytes: &mut Bytes<'_>) -> Option<(Prefixes, u8)> {
        let mut prefixes = Prefixes::default();
        loop {
            match bytes.next()? {
                0x66 => prefixes.is_short = true,
                0x64 => prefixes.segment = Some(4),
                0x65 => prefixes.segment = Some(5),
                0xf2 | 0xf3 => prefixes.is_repeated = true,
                0x26 | 0x2e | 0x36 | 0x3e | 0xf0 => {}
                rex @ 0x40..=0x4f => {
                    prefixes.rex = rex;
                    continue;
                }
                opcode => return Some((prefixes, opcode)),
            }
            // It counts directly before the opcode only.
            prefixes.rex = 0;
        }
    }

    fn is_long(self) -> bool {
        self.rex & 8 != 0
    }

    /// Returns a register number with the bit of REX that belongs to it.
    fn register(self, number: u8, bit: u32) -> u8 {
        number & 7 | (self.rex >> bit & 1) << 3
    }

    /// Decodes the operands of an instruction: the number in the middle of ModRM, and the operand.
    fn operands(self, bytes: &mut Bytes<'_>) -> Option<(u8, Operand)> {
        let modrm = bytes.next()?;
        let (kind, middle, low) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
        if kind == 3 {
            return Some((middle, Operand::Register(self.register(low, 0))));
        }
        let mut place = Place {
            segment: self.segment,
            ..Place::default()
        };
        let mut has_long = kind == 2;
        if low == 4 {
            let sib = bytes.next()?;
            let index = self.register(sib >> 3, 1);
            place.index = (index != 4).then_some((index, sib >> 6));
            place.base = Some(self.register(sib, 0));
            if sib & 7 == 5 && kind == 0 {
                (place.base, has_long) = (None, true);
            }
        } else if low == 5 && kind == 0 {
            (place.is_relative, has_long) = (true, true);
        } else {
            place.base = Some(self.register(low, 0));
        }
        if kind == 1 || has_long {
            place.displacement = bytes.displacement(has_long)?;
        }
        Some((middle, Operand::Memory(place)))
    }
}

/// Decodes the instruction that `code` begins with. Returns it and its length; none if it is not
/// one of those that fault and can be emulated.
pub(super) fn decode(code: &[u8; LONGEST]) -> Option<(Instruction, u64)> {
    let mut bytes = Bytes(code);
    let (prefixes, opcode) = Prefixes::of(&mut bytes)?;
    let is_long = prefixes.is_long();
    let wide = if prefixes.is_short && !is_long { 2 } else { 4 };
    let port = |port, size, is_write| Instruction::Port {
        port,
        size,
        is_write,
    };
    let instruction = match opcode {
        0x6c..=0x6f => Instruction::String {
            size: if opcode & 1 == 0 { 1 } else { wide },
            is_write: opcode & 2 != 0,
            is_repeated: prefixes.is_repeated,
        },
        0xe4 | 0xe6 => port(Some(bytes.next()?), 1, opcode == 0xe6),
        0xe5 | 0xe7 => port(Some(bytes.next()?), wide, opcode == 0xe7),
        0xec | 0xee => port(None, 1, opcode == 0xee),
        0xed | 0xef => port(None, wide, opcode == 0xef),
        0x8e => {
            let (segment, from) = prefixes.operands(&mut bytes)?;
            Instruction::LoadSegment { segment, from }
        }
        0xcb => Instruction::FarReturn { is_long },
        0xcd => Instruction::Interrupt(bytes.next()?),
        0xcf => Instruction::InterruptReturn { is_long },
        0xf4 => Instruction::Halt,
        0xfa | 0xfb => Instruction::Nothing,
        0x0f => of_two_bytes(prefixes, &mut bytes)?,
        _ => return None,
    };
    Some((instruction, (code.len() - bytes.0.len()) as u64))
}

/// Decodes an instruction whose opcode begins with 0F.
fn of_two_bytes(prefixes: Prefixes, bytes: &mut Bytes<'_>) -> Option<Instruction> {
    Some(match bytes.next()? {
        0x00 => match prefixes.operands(bytes)? {
            (2, from) => Instruction::LoadLocalTable(from),
            (3, from) => Instruction::LoadTask(from),
            _ => return None,
        },
        0x01 => match (bytes.0.first()?, prefixes.operands(bytes)?) {
            (0xf8, _) => Instruction::SwapGs,
            (0xf9, _) => Instruction::Counter {
                with_processor: true,
            },
            (_, (number @ 2..=3, Operand::Memory(from))) => Instruction::LoadTable {
                is_interrupts: number == 3,
                from,
            },
            (_, (7, Operand::Memory(_))) => Instruction::Nothing,
            _ => return None,
        },
        0x06 | 0x08 | 0x09 => Instruction::Nothing,
        opcode @ 0x20..=0x23 => {
            // Both operands are registers; the two upper bits do not count.
            let modrm = bytes.next()?;
            let (number, general) = (
                prefixes.register(modrm >> 3, 2),
                prefixes.register(modrm, 0),
            );
            let is_write = opcode & 2 != 0;
            if opcode & 1 == 0 {
                Instruction::Control {
                    number,
                    general,
                    is_write,
                }
            } else {
                Instruction::Debug {
                    number,
                    general,
                    is_write,
                }
            }
        }
        0x30 => Instruction::WriteMsr,
        0x31 => Instruction::Counter {
            with_processor: false,
        },
        0x32 => Instruction::ReadMsr,
        0xa2 => Instruction::Cpuid,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
