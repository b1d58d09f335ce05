//! Decodes the instructions of a guest that a process cannot execute.

use crate::memory::{GuestAddress, GuestMemory};

/// Number of the stack pointer as a base register, and of the zero register elsewhere.
pub(super) const LAST: u8 = 31;

/// An instruction that only EL1 may execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instruction {
    /// ERET.
    Return,
    /// HVC.
    Hypervisor,
    /// MRS.
    Read { register: u16, general: u8 },
    /// MSR with a register.
    Write { register: u16, general: u8 },
    /// MSR DAIFSet or DAIFClr.
    Mask { bits: u64, is_set: bool },
    /// MSR SPSel.
    SelectStack { is_own: bool },
    /// Maintenance of caches and of translations, which has nothing to do in a process.
    Nothing,
}

/// A load or a store of one general register, without write-back: an access that KVM can emulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    /// Bytes, as a power of two.
    pub size: u32,
    pub is_write: bool,
    /// The register loaded or stored.
    pub data: u8,
    pub base: u8,
    pub offset: Offset,
}

/// What is added to the base of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offset {
    Immediate(i64),
    Register {
        number: u8,
        /// Width and sign.
        option: u8,
        shift: u32,
    },
}

/// Returns the instruction at `address`, if the guest may execute what is there.
pub(super) fn fetch(memory: &GuestMemory, address: u64) -> Option<u32> {
    if !memory.is_executable(address) {
        return None;
    }
    memory.read(GuestAddress(address)).ok()
}

/// Decodes an instruction; returns none if EL1 may not execute it either.
pub(super) fn decode(word: u32) -> Option<Instruction> {
    const ERET: u32 = 0xd69f_03e0;
    let (register, general) = ((word >> 5) as u16, (word & 31) as u8);
    // MSR with an immediate: two fields that select what is set.
    let (selected, immediate) = (word & 0x7_00e0, u64::from(word >> 8 & 0xf));
    Some(match word {
        ERET => Instruction::Return,
        _ if word & 0xffe0_001f == 0xd400_0002 => Instruction::Hypervisor,
        _ if word & 0xfff0_0000 == 0xd530_0000 => Instruction::Read { register, general },
        _ if word & 0xfff0_0000 == 0xd510_0000 => Instruction::Write { register, general },
        _ if word & 0xfff8_f01f == 0xd500_401f => match selected {
            0x3_00c0 | 0x3_00e0 => Instruction::Mask {
                bits: immediate << 6,
                is_set: selected == 0x3_00c0,
            },
            0xa0 if immediate < 2 => Instruction::SelectStack {
                is_own: immediate == 1,
            },
            _ => return None,
        },
        // TLBI.
        _ if word & 0xffff_f000 == 0xd508_8000 => Instruction::Nothing,
        // DC; but no IC, which would have something to do, and no AT.
        _ if word & 0xffff_f000 == 0xd508_7000 => match word >> 5 & 0x7f {
            0x31 | 0x32 | 0x52 | 0x72 => Instruction::Nothing,
            _ => return None,
        },
        _ => return None,
    })
}

/// Decodes a load or a store of one general register without write-back.
pub(super) fn access(word: u32) -> Option<Access> {
    let field = |from: u32, bits: u32| word >> from & ((1 << bits) - 1);
    let size = field(30, 2);
    let access = |offset| Access {
        size,
        is_write: field(22, 2) == 0,
        data: field(0, 5) as u8,
        base: field(5, 5) as u8,
        offset,
    };
    // LDAR and STLR.
    if word & 0x3fbf_7c00 == 0x089f_7c00 {
        let is_write = field(22, 1) == 0;
        return Some(Access {
            is_write,
            ..access(Offset::Immediate(0))
        });
    }
    // Prefetches have no data.
    let is_single = word & 0x3e00_0000 == 0x3800_0000 && (size < 3 || field(23, 1) == 0);
    let offset = match (field(24, 1), field(21, 1), field(10, 2)) {
        _ if !is_single => return None,
        (1, ..) => Offset::Immediate(i64::from(field(10, 12)) << size),
        (0, 0, 0) => Offset::Immediate(i64::from((field(12, 9) << 23) as i32 >> 23)),
        (0, 1, 2) if field(14, 1) == 1 => Offset::Register {
            number: field(16, 5) as u8,
            option: field(13, 3) as u8,
            shift: size * field(12, 1),
        },
        _ => return None,
    };
    Some(access(offset))
}

/// Returns whether an instruction writes to memory that is not mapped. One that also reads fails as
/// a read.
pub(super) fn is_store(word: u32) -> bool {
    let bit = |number: u32| word >> number & 1 == 1;
    let (opcode, is_vector) = (word >> 22 & 3, bit(26));
    match word >> 24 & 0x3f {
        // Exclusive and ordered accesses; compare and swap.
        0x08 => !bit(22) && !(bit(21) && (bit(23) || !bit(31))),
        // Structures of vectors.
        0x0c | 0x0d => !bit(22),
        // Ordered accesses with an offset.
        0x19 => opcode == 0,
        // Pairs.
        0x28 | 0x29 | 0x2c | 0x2d => !bit(22),
        // Atomic operations.
        0x38 if bit(21) && word >> 10 & 3 == 0 => false,
        0x38 | 0x39 | 0x3c | 0x3d => opcode == 0 || (is_vector && opcode == 2 && word >> 30 == 0),
        0x15 => is_maintenance(word),
        _ => false,
    }
}

/// Returns whether an instruction maintains caches by address (or zeroes a line of one), which
/// counts as a write.
pub(super) fn is_maintenance(word: u32) -> bool {
    word & 0xffff_f000 == 0xd50b_7000
}

#[cfg(test)]
mod tests;
