//! Exceptions of a guest, with the syndromes of the processor.

use super::super::TABLES_ADDRESS;
use super::instruction::{LAST, is_store};
use super::registers::{Registers, without_tag};
use crate::memory::{GuestAddress, GuestMemory};

/// An exception: the value of ESR_EL1, and of FAR_EL1 if it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exception {
    pub syndrome: u64,
    pub address: Option<u64>,
}

/// Exception classes.
const UNKNOWN: u64 = 0;
const SYSTEM_CALL: u64 = 0x15;
const FETCH: u64 = 0x21;
const FETCH_ALIGNMENT: u64 = 0x22;
const DATA: u64 = 0x25;
const STACK_ALIGNMENT: u64 = 0x26;
const FLOATING: u64 = 0x2c;
const BREAKPOINT: u64 = 0x3c;

/// Bit of a data abort's syndrome: a write.
const WRITE: u64 = 1 << 6;

/// Fault status codes: a misaligned access; a missing descriptor, and one that forbids the access,
/// of the root of the tables.
const ALIGNMENT: u64 = 0x21;
const TRANSLATION: u64 = 0x04;
const PERMISSION: u64 = 0x0c;

impl Exception {
    pub(super) const UNDEFINED: Exception = Exception::new(UNKNOWN, 0);
    pub(super) const FLOATING: Exception = Exception::new(FLOATING, 0);

    /// Returns the exception of a 32-bit instruction.
    const fn new(class: u64, details: u64) -> Exception {
        Exception {
            syndrome: class << 26 | 1 << 25 | details,
            address: None,
        }
    }

    const fn at(self, address: u64) -> Exception {
        Exception {
            address: Some(address),
            ..self
        }
    }

    /// Returns the exception of a fetch from `address`.
    pub(super) fn fetch(memory: &GuestMemory, address: u64) -> Exception {
        Exception::new(FETCH, status(memory, address)).at(address)
    }

    /// Returns the exception of an access to `address` by `instruction`. Linux does not report
    /// writes as such. An access to mapped memory that fails is a write, as the guest can read all
    /// of it; otherwise the instruction decides.
    pub(super) fn data(memory: &GuestMemory, address: u64, instruction: u32) -> Exception {
        let status = status(memory, address);
        let is_write = status >= PERMISSION || is_store(instruction);
        let write = if is_write { WRITE } else { 0 };
        Exception::new(DATA, write | status).at(address)
    }

    /// Returns the exception of a misaligned access to `address`.
    pub(super) fn alignment(address: u64, is_write: bool) -> Exception {
        let write = if is_write { WRITE } else { 0 };
        Exception::new(DATA, write | ALIGNMENT).at(address)
    }

    /// Returns the exception of a misaligned program counter, stack pointer or access.
    pub(super) fn misaligned(
        registers: &Registers,
        address: u64,
        instruction: Option<u32>,
    ) -> Exception {
        let instruction = instruction.unwrap_or_default();
        if registers.pc % 4 != 0 {
            return Exception::new(FETCH_ALIGNMENT, 0).at(registers.pc);
        }
        if registers.sp % 16 != 0 && (instruction >> 5) as u8 & LAST == LAST {
            return Exception::new(STACK_ALIGNMENT, 0);
        }
        Exception::alignment(address, is_store(instruction))
    }

    /// Returns the exception of a system call. The program counter becomes `next`, the address
    /// after the instruction: Linux may have moved it.
    pub(super) fn system_call(
        memory: &GuestMemory,
        registers: &mut Registers,
        next: u64,
    ) -> Exception {
        registers.pc = next;
        let at = GuestAddress(next.wrapping_sub(4));
        Exception::new(SYSTEM_CALL, immediate(memory.read(at).unwrap_or_default()))
    }

    /// Returns the exception of a breakpoint instruction.
    pub(super) fn breakpoint(instruction: u32) -> Exception {
        Exception::new(BREAKPOINT, immediate(instruction))
    }
}

/// Returns the number in an instruction that causes an exception.
fn immediate(instruction: u32) -> u64 {
    u64::from(instruction >> 5 & 0xffff)
}

/// Returns why the guest's tables forbid an access to `address`: the fault status, by the level of
/// the descriptor.
fn status(memory: &GuestMemory, address: u64) -> u64 {
    const BITS: u32 = 40;
    const VALID: u64 = 1;
    const TABLE: u64 = 2;
    const NEXT: u64 = 0x0000_ffff_ffff_f000;
    const LAST_LEVEL: u64 = 3;
    let address = without_tag(address);
    if address >> BITS != 0 {
        return TRANSLATION;
    }
    let mut table = TABLES_ADDRESS;
    for level in 0..LAST_LEVEL {
        let descriptor = descriptor(memory, table, address, level);
        if descriptor & VALID == 0 {
            return TRANSLATION + level;
        }
        if descriptor & TABLE == 0 {
            return PERMISSION + level;
        }
        table = descriptor & NEXT;
    }
    let valid = descriptor(memory, table, address, LAST_LEVEL) & VALID;
    LAST_LEVEL + if valid == 0 { TRANSLATION } else { PERMISSION }
}

fn descriptor(memory: &GuestMemory, table: u64, address: u64, level: u64) -> u64 {
    let index = address >> (39 - 9 * level) & 0x1ff;
    let place = GuestAddress(table.wrapping_add(8 * index));
    memory.read(place).unwrap_or_default()
}

#[cfg(test)]
mod tests;
