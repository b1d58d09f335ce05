//! Privileged instructions of a guest, emulated.

use kvm_bindings::{KVM_EXIT_HLT, kvm_sregs};

use super::super::{cpuid, msr};
use super::instruction::{self, Instruction, LONGEST, Operand, Place};
use super::registers::{Registers, debug_register, set_debug_register};
use super::{Cpu, Exception, RESUME_FLAG, port_exit};
use crate::arch::process::{Details, Guest, Next};
use crate::memory::{GuestAddress, GuestMemory};
use crate::report::clock;

/// RFLAGS: those that a guest sees and changes. Interrupts stay on, as Linux shows them.
const FLAGS: u64 = 0x24_4dd5;

/// RFLAGS: string instructions go backwards.
const BACKWARDS: u64 = 1 << 10;

impl Cpu {
    /// Emulates the instruction at the program counter, which begins with `code` and raised a
    /// general protection exception. Returns an exception of the guest instead, if there is one.
    pub(super) fn emulate(
        &mut self,
        guest: &Guest,
        code: &[u8; LONGEST],
        registers: &mut Registers,
        details: &mut Details,
    ) -> Result<Next, Exception> {
        let (instruction, length) = instruction::decode(code).ok_or(Exception::PROTECTION)?;
        let before = *registers;
        registers.rip = registers.rip.wrapping_add(length);
        if let Instruction::Interrupt(vector) = instruction {
            return Err(Exception::software(vector));
        }
        let next = self.perform(guest, instruction, registers, details);
        match next {
            Some(_) => {
                registers.eflags &= !RESUME_FLAG;
                self.stepped = self.is_stepping();
            }
            None => *registers = before,
        }
        next.ok_or(Exception::PROTECTION)
    }

    /// Performs an instruction. Returns none if it raises a general protection exception.
    fn perform(
        &mut self,
        guest: &Guest,
        instruction: Instruction,
        registers: &mut Registers,
        details: &mut Details,
    ) -> Option<Next> {
        match instruction {
            Instruction::Port {
                port,
                size,
                is_write,
            } => {
                let port = port.map_or(registers.rdx as u16, u16::from);
                let value = registers.rax as u32;
                port_exit(details, port, (size, 1), is_write.then_some(value));
            }
            Instruction::String {
                size,
                is_write,
                is_repeated,
            } => {
                let count = if is_repeated { registers.rcx } else { 1 };
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                if count == 0 {
                    return Some(Next::Resume);
                }
                let value = is_write.then(|| element(&guest.memory, registers.rsi, size));
                let value = value.map_or(Some(None), |value| value.map(Some))?;
                port_exit(details, registers.rdx as u16, (size, count), value);
                if is_repeated {
                    registers.rcx -= u64::from(count);
                }
                let moved = i64::from(count) * i64::from(size);
                let moved = if registers.eflags & BACKWARDS == 0 {
                    moved
                } else {
                    -moved
                };
                registers.rsi = registers.rsi.wrapping_add_signed(moved);
            }
            Instruction::Halt => details.run.exit_reason = KVM_EXIT_HLT,
            Instruction::Debug {
                number,
                general,
                is_write: true,
            } => {
                set_debug_register(&guest.child, number, *registers.numbered(general)).ok()?;
                return Some(Next::Resume);
            }
            Instruction::Debug {
                number, general, ..
            } => {
                *registers.numbered(general) = debug_register(&guest.child, number).ok()?;
                return Some(Next::Resume);
            }
            other => {
                self.set_state(&guest.memory, other, registers)?;
                return Some(Next::Resume);
            }
        }
        Some(Next::Exit)
    }

    /// Performs an instruction that changes nothing but registers. Returns none if it raises a general
    /// protection exception.
    pub(super) fn set_state(
        &mut self,
        memory: &GuestMemory,
        instruction: Instruction,
        registers: &mut Registers,
    ) -> Option<()> {
        let system = self.system.get_mut();
        match instruction {
            Instruction::Nothing => {}
            Instruction::Control {
                number,
                general,
                is_write,
            } => control(system, number, registers.numbered(general), is_write)?,
            Instruction::WriteMsr => {
                let value = registers.rdx << 32 | registers.rax & u64::from(u32::MAX);
                *msr(&mut self.kernel_gs, registers)? = user_address(value)?;
            }
            Instruction::ReadMsr => {
                let value = *msr(&mut self.kernel_gs, registers)?;
                (registers.rax, registers.rdx) = (value & u64::from(u32::MAX), value >> 32);
            }
            Instruction::SwapGs => {
                let base = user_address(self.kernel_gs)?;
                self.kernel_gs = std::mem::replace(&mut registers.gs_base, base);
            }
            Instruction::LoadTable {
                is_interrupts,
                from,
            } => {
                let address = place(&from, registers);
                let limit = memory.read(GuestAddress(address)).ok()?;
                let base = address.checked_add(2)?;
                let base = memory.read(GuestAddress(base)).ok()?;
                let table = if is_interrupts {
                    &mut system.idt
                } else {
                    &mut system.gdt
                };
                (table.limit, table.base) = (limit, base);
            }
            Instruction::LoadTask(from) => {
                system.tr.selector = operand(&from, memory, registers)?;
            }
            Instruction::LoadLocalTable(from) => {
                system.ldt.selector = operand(&from, memory, registers)?;
            }
            Instruction::LoadSegment { segment, from } => {
                let selector = operand(&from, memory, registers)?;
                *segments(system).into_iter().nth(segment.into())?? = selector;
            }
            Instruction::FarReturn { is_long } => {
                let [to, selector] = pop(memory, registers, is_long)?;
                (registers.rip, system.cs.selector) = (to, selector as u16);
            }
            Instruction::InterruptReturn { is_long } => {
                let [to, code, flags, stack, selector] = pop(memory, registers, is_long)?;
                (system.cs.selector, system.ss.selector) = (code as u16, selector as u16);
                registers.eflags = registers.eflags & !FLAGS | flags & FLAGS;
                (registers.rip, registers.rsp) = (to, stack);
            }
            Instruction::Cpuid => {
                let [eax, ebx, ecx, edx] =
                    cpuid::answer(registers.rax as u32, registers.rcx as u32).map(u64::from);
                (registers.rax, registers.rbx) = (eax, ebx);
                (registers.rcx, registers.rdx) = (ecx, edx);
            }
            Instruction::Counter { with_processor } => {
                let time = clock::since_zero(libc::CLOCK_MONOTONIC).as_nanos() as u64;
                (registers.rax, registers.rdx) = (time & u64::from(u32::MAX), time >> 32);
                if with_processor {
                    registers.rcx = 0;
                }
            }
            // `perform` has the others.
            _ => return None,
        }
        Some(())
    }
}

/// Returns the element of a string of `size` bytes each.
fn element(memory: &GuestMemory, address: u64, size: u8) -> Option<u32> {
    let mut element = [0; 4];
    let bytes = memory.bytes(GuestAddress(address), size.into()).ok()?;
    bytes.copy_to(&mut element[..size.into()]);
    Some(u32::from_le_bytes(element))
}

/// Returns an address that a process can have as base of a segment.
fn user_address(address: u64) -> Option<u64> {
    const END: u64 = 0x7fff_ffff_f000;
    (address < END).then_some(address)
}

/// Returns the model-specific register of RDMSR or WRMSR, if a guest has it.
fn msr<'r>(kernel_gs: &'r mut u64, registers: &'r mut Registers) -> Option<&'r mut u64> {
    match (registers.rcx as u32).checked_sub(msr::FIRST)? {
        0 => Some(&mut registers.fs_base),
        1 => Some(&mut registers.gs_base),
        2 => Some(kernel_gs),
        _ => None,
    }
}

/// Returns the selectors of segments by number; CS cannot be loaded.
fn segments(system: &mut kvm_sregs) -> [Option<&mut u16>; 6] {
    [
        Some(&mut system.es.selector),
        None,
        Some(&mut system.ss.selector),
        Some(&mut system.ds.selector),
        Some(&mut system.fs.selector),
        Some(&mut system.gs.selector),
    ]
}

/// Reads or writes a control register. Returns none for a write that changes what a process cannot
/// change: its page tables and modes.
fn control(system: &mut kvm_sregs, number: u8, value: &mut u64, is_write: bool) -> Option<()> {
    let register = match number {
        0 => &mut system.cr0,
        2 => &mut system.cr2,
        3 => &mut system.cr3,
        4 => &mut system.cr4,
        8 => &mut system.cr8,
        _ => return None,
    };
    match (is_write, number) {
        (false, _) => *value = *register,
        (true, 2) => *register = *value,
        (true, _) if register == value => {}
        (true, _) => return None,
    }
    Some(())
}

/// Returns the address of a place. The program counter is that of the next instruction.
fn place(place: &Place, registers: &mut Registers) -> u64 {
    let base = place.base.map_or(0, |number| *registers.numbered(number));
    let index = place
        .index
        .map_or(0, |(number, shift)| *registers.numbered(number) << shift);
    let relative = if place.is_relative { registers.rip } else { 0 };
    let segment = match place.segment {
        Some(4) => registers.fs_base,
        Some(5) => registers.gs_base,
        _ => 0,
    };
    [base, index, relative, segment]
        .into_iter()
        .fold(place.displacement as u64, u64::wrapping_add)
}

/// Returns a selector.
fn operand(operand: &Operand, memory: &GuestMemory, registers: &mut Registers) -> Option<u16> {
    match operand {
        Operand::Register(number) => Some(*registers.numbered(*number) as u16),
        Operand::Memory(from) => memory.read(GuestAddress(place(from, registers))).ok(),
    }
}

/// Pops values of 8 or 4 bytes from the stack.
fn pop<const N: usize>(
    memory: &GuestMemory,
    registers: &mut Registers,
    is_long: bool,
) -> Option<[u64; N]> {
    let mut values = [0; N];
    let mut stack = registers.rsp;
    for value in &mut values {
        let at = GuestAddress(stack);
        *value = if is_long {
            memory.read::<u64>(at).ok()?
        } else {
            memory.read::<u32>(at).ok()?.into()
        };
        stack = stack.checked_add(if is_long { 8 } else { 4 })?;
    }
    registers.rsp = stack;
    Some(values)
}

#[cfg(test)]
mod tests;
