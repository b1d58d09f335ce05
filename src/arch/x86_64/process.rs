//! An x86_64 guest as a process: its processor, as far as Linux does not provide it. Hypercalls and
//! privileged instructions are faults, which are emulated here; exceptions are delivered by the
//! guest's own tables.

#![expect(
    unsafe_code,
    reason = "the code of a child's start, and details of its stops"
)]

use std::cell::{Cell, RefCell};
use std::io;

use kvm_bindings::{
    KVM_EXIT_DEBUG, KVM_EXIT_IO, KVM_EXIT_IO_IN, KVM_EXIT_IO_OUT, KVM_EXIT_MEMORY_FAULT,
    KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP, kvm_debug_exit_arch,
    kvm_guest_debug, kvm_regs, kvm_run__bindgen_ty_1__bindgen_ty_4,
    kvm_run__bindgen_ty_1__bindgen_ty_5, kvm_sregs,
};
use libc::{c_int, siginfo_t};

use crate::arch::process::{Details, EXIT_MODE, Guest, Next};
use crate::memory::{GuestAddress, GuestMemory};

mod counter;
mod emulate;
mod exception;
mod instruction;
mod registers;
mod start;

use counter::Counter;
use exception::Exception;
use registers::Registers;
pub(in crate::arch) use start::{jump, restartable_sequences, synchronize, top};

/// PTRACE_CONT, PTRACE_SINGLESTEP, PTRACE_GETREGS, PTRACE_GETREGSET, PTRACE_SETREGSET, PTRACE_GETSIGINFO,
/// PTRACE_PEEKUSER, PTRACE_POKEUSER.
pub(in crate::arch) const PTRACE_REQUESTS: &[u64] = &[7, 9, 12, 0x4204, 0x4205, 0x4202, 3, 6];

/// `out %eax, (%dx)`.
const OUT: u8 = 0xef;

/// RFLAGS: no breakpoint at the next instruction; a fault sets it.
const RESUME_FLAG: u64 = 1 << 16;

/// RFLAGS: the trap flag.
const TRAP_FLAG: u64 = 1 << 8;

/// Linux's selector for 64-bit code of processes.
const USER_CODE: u64 = 0x33;

/// The state of the guest's processor that is not the child's.
pub(in crate::arch) struct Cpu {
    /// General registers before the start.
    first: Cell<kvm_regs>,
    /// System registers. The bases of FS and GS are the child's.
    system: RefCell<kvm_sregs>,
    /// KERNEL_GS_BASE.
    kernel_gs: u64,
    debug: Cell<kvm_guest_debug>,
    /// The guest's own breakpoint is to be delivered.
    breakpoint: Cell<bool>,
    /// An instruction was emulated during a single step.
    stepped: bool,
    counter: Counter,
}

impl Cpu {
    pub(in crate::arch) fn new() -> Cpu {
        Cpu {
            first: Cell::default(),
            system: RefCell::default(),
            kernel_gs: 0,
            debug: Cell::default(),
            breakpoint: Cell::default(),
            stepped: false,
            counter: Counter::of_host(),
        }
    }

    /// Gives a new child the registers of the guest's first instruction.
    pub(in crate::arch) fn start(&self, guest: &Guest) -> io::Result<()> {
        registers::clear_vector(&guest.child)?;
        let before = Registers::of(&guest.child)?;
        let mut registers = before;
        registers.begin(&self.first.get());
        registers.store(&guest.child, &before)
    }

    /// Whether the guest runs a single instruction.
    pub(in crate::arch) fn is_stepping(&self) -> bool {
        self.debug.get().control & KVM_GUESTDBG_SINGLESTEP != 0
    }

    /// Does what precedes the guest's next instruction: ends a single step that was emulated, and
    /// delivers the guest's own breakpoint if the debugger asks for it.
    pub(in crate::arch) fn prepare(
        &mut self,
        guest: &Guest,
        details: &mut Details,
    ) -> io::Result<Next> {
        if std::mem::take(&mut self.stepped) && self.is_stepping() {
            debug_exit(details, 1, DR6_STEP);
            return Ok(Next::Exit);
        }
        if !self.breakpoint.take() {
            return Ok(Next::Resume);
        }
        let before = Registers::of(&guest.child)?;
        let mut registers = before;
        registers.rip = registers.rip.wrapping_add(1);
        let next = self.deliver(
            &guest.memory,
            &mut registers,
            Exception::software(3),
            details,
        );
        registers.store(&guest.child, &before)?;
        Ok(next)
    }

    /// Handles a fault of the guest.
    pub(in crate::arch) fn trap(
        &mut self,
        guest: &Guest,
        signal: c_int,
        details: &mut Details,
    ) -> io::Result<Next> {
        let before = Registers::of(&guest.child)?;
        let mut registers = before;
        if registers.cs != USER_CODE {
            // 32-bit code, to which a guest can jump by Linux's segments.
            details.run.exit_reason = EXIT_MODE;
            return Ok(Next::Exit);
        }
        if signal == libc::SIGSEGV && is_out(&guest.memory, registers.rip) {
            self.stepped = self.is_stepping();
            registers.rip = registers.rip.wrapping_add(1);
            if self.debug.get().control == 0 {
                registers::set_program_counter(&guest.child, registers.rip)?;
            } else {
                registers.eflags &= !RESUME_FLAG;
                registers.store(&guest.child, &before)?;
            }
            port_exit(
                details,
                registers.rdx as u16,
                (4, 1),
                Some(registers.rax as u32),
            );
            return Ok(Next::Exit);
        }
        let cause = guest.child.cause()?;
        // Sent by another process.
        if cause.si_code <= 0 {
            return Ok(Next::Resume);
        }
        registers.orig_rax = u64::MAX;
        let next = self.fault(guest, signal, &cause, &mut registers, details)?;
        registers.store(&guest.child, &before)?;
        Ok(next)
    }

    fn fault(
        &mut self,
        guest: &Guest,
        signal: c_int,
        cause: &siginfo_t,
        registers: &mut Registers,
        details: &mut Details,
    ) -> io::Result<Next> {
        let code = instruction::bytes(&guest.memory, registers.rip);
        let exception = match signal {
            libc::SIGTRAP => return self.debug_trap(guest, cause, registers, details),
            libc::SIGSEGV if cause.si_code == SI_KERNEL => {
                match self.emulate(guest, &code, registers, details) {
                    Ok(next) => return Ok(next),
                    Err(exception) => exception,
                }
            }
            libc::SIGSEGV => {
                // SAFETY: with this code, the address is set.
                let address = unsafe { cause.si_addr() } as u64;
                self.system.get_mut().cr2 = address;
                Exception::page_fault(&guest.memory, cause.si_code, address, registers.rip)
            }
            libc::SIGSYS => Exception::system_call(&guest.memory, registers),
            libc::SIGFPE => Exception::arithmetic(cause.si_code, &guest.child)?,
            libc::SIGBUS if cause.si_code == libc::BUS_ADRALN => {
                if registers.eflags & ALIGNMENT_CHECK == 0 {
                    // A locked access across cache lines, where Linux forbids it.
                    Exception::ALIGNMENT
                } else {
                    // A guest under KVM has no alignment checks.
                    registers.eflags &= !ALIGNMENT_CHECK;
                    return Ok(Next::Resume);
                }
            }
            libc::SIGBUS if cause.si_code == SI_KERNEL => Exception::STACK,
            libc::SIGBUS => {
                // SAFETY: with this code, the address is set.
                let gpa = unsafe { cause.si_addr() } as u64;
                details.run.exit_reason = KVM_EXIT_MEMORY_FAULT;
                details.run.__bindgen_anon_1.memory_fault.gpa = gpa;
                return Ok(Next::Exit);
            }
            _ => Exception::UNDEFINED,
        };
        Ok(self.deliver(&guest.memory, registers, exception, details))
    }

    /// Handles a breakpoint, a single step, or a debug register.
    fn debug_trap(
        &mut self,
        guest: &Guest,
        cause: &siginfo_t,
        registers: &mut Registers,
        details: &mut Details,
    ) -> io::Result<Next> {
        let control = self.debug.get().control;
        if cause.si_code == SI_KERNEL {
            // INT3; the program counter is after it.
            if control & KVM_GUESTDBG_USE_SW_BP == 0 {
                let breakpoint = Exception::software(3);
                return Ok(self.deliver(&guest.memory, registers, breakpoint, details));
            }
            registers.rip = registers.rip.wrapping_sub(1);
            debug_exit(details, 3, 0);
            return Ok(Next::Exit);
        }
        if control & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP) != 0 {
            let status = registers::debug_status(&guest.child)?;
            debug_exit(
                details,
                1,
                status | if self.is_stepping() { DR6_STEP } else { 0 },
            );
            return Ok(Next::Exit);
        }
        Ok(self.deliver(&guest.memory, registers, Exception::DEBUG, details))
    }
}

/// DR6: a single step completed.
const DR6_STEP: u64 = 1 << 14;

/// RFLAGS: alignment checks.
const ALIGNMENT_CHECK: u64 = 1 << 18;

/// `si_code` of a fault that is no page fault.
const SI_KERNEL: c_int = 0x80;

/// Returns whether the guest executes `out %eax, (%dx)` at this address, in memory with code.
fn is_out(memory: &GuestMemory, address: u64) -> bool {
    memory.is_executable(address) && memory.read(GuestAddress(address)).ok() == Some(OUT)
}

/// Describes `count` accesses of `size` bytes to an I/O port, as KVM does; a read has no value.
fn port_exit(details: &mut Details, port: u16, (size, count): (u8, u32), value: Option<u32>) {
    details.run.exit_reason = KVM_EXIT_IO;
    let direction = value.map_or(KVM_EXIT_IO_IN, |_| KVM_EXIT_IO_OUT) as u8;
    details.run.__bindgen_anon_1.io = kvm_run__bindgen_ty_1__bindgen_ty_4 {
        direction,
        size,
        port,
        count,
        data_offset: std::mem::offset_of!(Details, data) as u64,
    };
    details.data = u64::from(value.unwrap_or_default()).to_le_bytes();
}

fn debug_exit(details: &mut Details, exception: u32, dr6: u64) {
    details.run.exit_reason = KVM_EXIT_DEBUG;
    details.run.__bindgen_anon_1.debug = kvm_run__bindgen_ty_1__bindgen_ty_5 {
        arch: kvm_debug_exit_arch {
            exception,
            dr6,
            ..Default::default()
        },
    };
}

#[cfg(test)]
mod tests;
