//! Exceptions of a guest, delivered by its own tables as the processor would.

use std::io;

use kvm_bindings::KVM_EXIT_SHUTDOWN;
use libc::c_int;

use super::instruction::{self, LONGEST};
use super::registers::{self, Registers};
use super::{Cpu, TRAP_FLAG};
use crate::arch::process::{Child, Details, Next};
use crate::memory::{GuestAddress, GuestMemory};

/// An exception or a software interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exception {
    vector: u8,
    error: Option<u64>,
}

/// Error code of a page fault: the page is present, the access was a write or a fetch.
const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 4;

const SEGV_ACCERR: c_int = 2;
const FPE_INTDIV: c_int = 1;

/// RFLAGS: nested task and resume, which the processor clears.
const CLEARED: u64 = TRAP_FLAG | 1 << 14 | 1 << 16;

/// A gate: handler, selector, and the number of its stack in the task segment (0: the current one).
struct Gate {
    handler: u64,
    selector: u16,
    stack: u8,
}

impl Exception {
    pub(super) const DEBUG: Exception = Exception::of(1);
    pub(super) const UNDEFINED: Exception = Exception::of(6);
    const DOUBLE: Exception = Exception::with(8, 0);
    pub(super) const ALIGNMENT: Exception = Exception::with(17, 0);
    pub(super) const STACK: Exception = Exception::with(12, 0);
    pub(super) const PROTECTION: Exception = Exception::with(13, 0);

    const fn of(vector: u8) -> Exception {
        Exception {
            vector,
            error: None,
        }
    }

    const fn with(vector: u8, error: u64) -> Exception {
        Exception {
            vector,
            error: Some(error),
        }
    }

    /// Returns the interrupt of an INT instruction.
    pub(super) const fn software(vector: u8) -> Exception {
        Exception::of(vector)
    }

    /// Returns the exception of a system call, of which a guest has none. The program counter is
    /// after the instruction; afterwards it is where the processor would set it.
    pub(super) fn system_call(memory: &GuestMemory, registers: &mut Registers) -> Exception {
        let at = registers.rip.wrapping_sub(2);
        match instruction::bytes(memory, at) {
            [0xcd, vector, ..] => Exception::software(vector),
            [0x0f, 0x05, ..] => {
                registers.rip = at;
                Exception::UNDEFINED
            }
            _ => Exception::UNDEFINED,
        }
    }

    /// Returns the page fault of an access to `address` by the instruction at `at`. Linux does not
    /// report whether it was a write; the instruction shows it.
    pub(super) fn page_fault(
        memory: &GuestMemory,
        code: c_int,
        address: u64,
        at: u64,
    ) -> Exception {
        let present = if code == SEGV_ACCERR { PRESENT } else { 0 };
        let is_near = address.wrapping_sub(at) < LONGEST as u64;
        let kind = match is_near && !memory.is_executable(address) {
            true => FETCH,
            false if is_store(&instruction::bytes(memory, at)) => WRITE,
            false => 0,
        };
        Exception::with(14, present | kind)
    }

    /// Returns what the processor tries to deliver, one after the other. If the gate of a benign
    /// exception or of an interrupt is not valid, that is a general protection exception.
    fn attempts(self) -> [Option<Exception>; 3] {
        const GATE: u64 = 1 << 1;
        let is_benign = !matches!(self.vector, 0 | 8 | 10..=14);
        let protection = Exception::with(13, u64::from(self.vector) << 3 | GATE);
        let protection = is_benign.then_some(protection);
        [Some(self), protection, Some(Exception::DOUBLE)]
    }

    /// Returns the exception of a failed calculation.
    pub(super) fn arithmetic(code: c_int, child: &Child) -> io::Result<Exception> {
        const DIVISION: u8 = 0;
        const X87: u8 = 16;
        const VECTOR: u8 = 19;
        const PENDING: u16 = 1 << 7;
        if code == FPE_INTDIV {
            return Ok(Exception::of(DIVISION));
        }
        let floating = registers::floating(child)?;
        let is_x87 = floating.status & PENDING != 0;
        Ok(Exception::of(if is_x87 { X87 } else { VECTOR }))
    }
}

/// Returns whether an instruction with an operand in memory writes to it, for the usual ones.
fn is_store(code: &[u8; LONGEST]) -> bool {
    let is_prefix = |byte: &&u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let prefixes = code.iter().take_while(is_prefix).count();
    let byte = |at| code.get(prefixes + at).copied().unwrap_or_default();
    let (next, after) = (byte(1), byte(2));
    let has = |prefix| code[..prefixes].contains(&prefix);
    match code.get(prefixes) {
        // MOVQ from memory.
        Some(0x0f) if next == 0x7e && has(0xf3) => false,
        // BTS, BTR and BTC by a constant; FXSAVE, STMXCSR, XSAVE, XSAVEOPT.
        Some(0x0f) if next == 0xba => after >> 3 & 7 > 4,
        Some(0x0f) if next == 0xae => match after >> 3 & 7 {
            // With 66 or F3, these are CLWB and PTWRITE.
            0 | 3 => true,
            4 | 6 => !has(0x66) && !has(0xf3),
            _ => false,
        },
        // CMPXCHG8B, XSAVEC, XSAVES.
        Some(0x0f) if next == 0xc7 => matches!(after >> 3 & 7, 1 | 4 | 5),
        // MOVBE, which is CRC32 with F2, MOVDIRI, and parts of vectors.
        Some(0x0f) if next == 0x38 => matches!(after, 0xf1 | 0xf9) && !has(0xf2),
        Some(0x0f) if next == 0x3a => matches!(after, 0x14..=0x17),
        // Moves of vectors, and atomic operations.
        Some(0x0f) => {
            matches!(
                next,
                0x11 | 0x13 | 0x17 | 0x29 | 0x2b | 0x7e | 0x7f | 0x90..=0x9f
            ) || matches!(next, 0xa4 | 0xa5 | 0xab..=0xad | 0xb0 | 0xb1 | 0xb3 | 0xbb)
                || matches!(next, 0xc0 | 0xc1 | 0xc3 | 0xd6 | 0xe7)
        }
        // Arithmetic to memory, but no comparisons.
        Some(opcode @ 0x00..=0x37) => opcode & 7 < 2,
        Some(0x80..=0x83) => next >> 3 & 7 != 7,
        // PUSH, PUSHF, ENTER, CALL, MOV, string moves, shifts.
        Some(0x50..=0x57 | 0x68 | 0x6a | 0x9c | 0xc8 | 0xe8) => true,
        Some(0x86..=0x89 | 0x8c | 0x8f | 0xa2..=0xa5 | 0xaa | 0xab | 0xc6 | 0xc7) => true,
        Some(0xc0 | 0xc1 | 0xd0..=0xd3 | 0xfe) => true,
        Some(0xff) => next >> 3 & 7 < 2,
        Some(0xf6 | 0xf7) => matches!(next >> 3 & 7, 2 | 3),
        // x87.
        Some(0xd9) => matches!(next >> 3 & 7, 2 | 3 | 6 | 7),
        Some(0xdb) => matches!(next >> 3 & 7, 1..=3 | 7),
        Some(0xdd | 0xdf) => matches!(next >> 3 & 7, 1..=3 | 6 | 7),
        // AVX, in its three forms.
        Some(0xc5) => is_vector_store(1, next, [after, byte(3)]),
        Some(0xc4) => is_vector_store(next & 0x1f, after, [byte(3), byte(4)]),
        Some(0x62) => is_vector_store(next & 7, after, [byte(4), byte(5)]),
        _ => false,
    }
}

/// Returns whether an instruction of AVX writes to memory. `map` is that of its opcode, `last` the
/// byte of its prefix with the two bits that stand for 66, F3 or F2.
fn is_vector_store(map: u8, last: u8, [opcode, modrm]: [u8; 2]) -> bool {
    const F3: u8 = 2;
    match (map, opcode) {
        // VMOVQ from memory.
        (1, 0x7e) => last & 3 != F3,
        // VSTMXCSR.
        (1, 0xae) => modrm >> 3 & 7 == 3,
        (1, _) => matches!(
            opcode,
            0x11 | 0x13 | 0x17 | 0x29 | 0x2b | 0x7f | 0x91 | 0xd6 | 0xe7
        ),
        // Moves by a mask, narrowed moves, compressed ones, scattered ones.
        (2, 0x10..=0x15 | 0x20..=0x25 | 0x30..=0x35) => last & 3 == F3,
        (2, _) => matches!(
            opcode,
            0x2e | 0x2f | 0x63 | 0x8a | 0x8b | 0x8e | 0xa0..=0xa3
        ),
        // Parts of vectors, and conversions to half precision.
        (3, _) => matches!(opcode, 0x14..=0x17 | 0x19 | 0x1b | 0x1d | 0x39 | 0x3b),
        // VMOVSH and VMOVW.
        (5, _) => matches!(opcode, 0x11 | 0x7e) && last & 3 != 0,
        _ => false,
    }
}

impl Cpu {
    /// Delivers an exception: the guest continues in its handler. If that is impossible, the guest
    /// gets a double fault; if that is too, it ends.
    pub(super) fn deliver(
        &mut self,
        memory: &GuestMemory,
        registers: &mut Registers,
        exception: Exception,
        details: &mut Details,
    ) -> Next {
        for exception in exception.attempts().into_iter().flatten() {
            if self.enter(memory, registers, exception).is_some() {
                return Next::Resume;
            }
        }
        details.run.exit_reason = KVM_EXIT_SHUTDOWN;
        Next::Exit
    }

    /// Enters the handler of an exception. Returns none, and changes nothing but memory below the
    /// stack, if tables or stack are not valid.
    fn enter(
        &mut self,
        memory: &GuestMemory,
        registers: &mut Registers,
        exception: Exception,
    ) -> Option<()> {
        let system = self.system.get_mut();
        let gate = self::gate(memory, system.idt.base, system.idt.limit, exception.vector)?;
        let stack = match gate.stack {
            0 => registers.rsp,
            number => self.task_stack(memory, number)?,
        };
        let system = self.system.get_mut();
        let frame = [
            system.ss.selector.into(),
            registers.rsp,
            registers.eflags,
            system.cs.selector.into(),
            registers.rip,
        ];
        let mut stack = stack & !15;
        for value in frame.into_iter().chain(exception.error) {
            stack = stack.wrapping_sub(8);
            memory.write(GuestAddress(stack), value).ok()?;
        }
        (registers.rip, registers.rsp) = (gate.handler, stack);
        registers.eflags &= !CLEARED;
        system.cs.selector = gate.selector;
        Some(())
    }

    /// Returns the top of the stack with this number in the guest's task segment.
    fn task_stack(&self, memory: &GuestMemory, number: u8) -> Option<u64> {
        const FIRST: u64 = 0x24;
        let system = self.system.borrow();
        let selector = system.tr.selector & !7;
        let place = system.gdt.base.checked_add(selector.into())?;
        if selector == 0 || selector.checked_add(15)? > system.gdt.limit {
            return None;
        }
        let [low, high] = memory.read::<[u64; 2]>(GuestAddress(place)).ok()?;
        let base = low >> 16 & 0xff_ffff | low >> 32 & 0xff00_0000 | high << 32;
        let stack = base.checked_add(FIRST + 8 * u64::from(number - 1))?;
        memory.read(GuestAddress(stack)).ok()
    }
}

/// Returns the gate of a vector in the interrupt table, if it is valid.
fn gate(memory: &GuestMemory, base: u64, limit: u16, vector: u8) -> Option<Gate> {
    const PRESENT: u64 = 1 << 47;
    const INTERRUPT: u64 = 0xe;
    const TRAP: u64 = 0xf;
    let offset = 16 * u64::from(vector);
    if offset + 15 > limit.into() {
        return None;
    }
    let place = GuestAddress(base.checked_add(offset)?);
    let [low, high] = memory.read::<[u64; 2]>(place).ok()?;
    let kind = low >> 40 & 0xf;
    let gate = Gate {
        handler: low & 0xffff | low >> 32 & 0xffff_0000 | high << 32,
        selector: (low >> 16) as u16,
        stack: (low >> 32 & 7) as u8,
    };
    (low & PRESENT != 0 && matches!(kind, INTERRUPT | TRAP)).then_some(gate)
}

#[cfg(test)]
mod tests;
