//! An ARM64 guest as a process: its processor, as far as Linux does not provide it. Hypercalls and
//! instructions of EL1 are faults, which are emulated here; exceptions are delivered by the guest's
//! own vectors.

#![expect(
    unsafe_code,
    reason = "the code of a child's start, and details of its stops"
)]

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;

use guest_abi::hypercall::MMIO_BASE;
use kvm_bindings::{
    KVM_EXIT_ARM_NISV, KVM_EXIT_DEBUG, KVM_EXIT_MEMORY_FAULT, KVM_EXIT_MMIO,
    KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW, KVM_GUESTDBG_USE_SW_BP, kvm_debug_exit_arch,
    kvm_guest_debug, kvm_run__bindgen_ty_1__bindgen_ty_5, kvm_run__bindgen_ty_1__bindgen_ty_6,
    kvm_run__bindgen_ty_1__bindgen_ty_22, kvm_run__bindgen_ty_1__bindgen_ty_27,
};
use libc::{c_int, siginfo_t};

use super::debug::{EC_BREAKPOINT, EC_STEP, EC_WATCHPOINT};
use crate::arch::process::{Details, Guest, Next};
use crate::memory::GuestMemory;

mod exception;
mod instruction;
mod registers;
mod start;
mod system;

use exception::Exception;
use instruction::Access;
use registers::{Core, GENERAL, Registers, without_tag};
pub(in crate::arch) use start::{jump, restartable_sequences, synchronize, top};
use system::System;

/// PTRACE_CONT, PTRACE_SINGLESTEP, PTRACE_GETREGSET, PTRACE_SETREGSET, PTRACE_GETSIGINFO.
pub(in crate::arch) const PTRACE_REQUESTS: &[u64] = &[7, 9, 0x4204, 0x4205, 0x4202];

/// Addresses that the guest's tables map for hypercalls, where there is no memory.
const WINDOW: Range<u64> = MMIO_BASE..MMIO_BASE + (1 << 30);

/// Exception class of BRK.
const EC_INSTRUCTION: u32 = 0x3c;

/// The state of the guest's processor that is not the child's.
pub(in crate::arch) struct Cpu {
    /// Registers before the start.
    first: RefCell<Core>,
    system: RefCell<System>,
    debug: Cell<kvm_guest_debug>,
    /// An instruction was emulated, or an exception entered, during a single step.
    stepped: bool,
}

impl Cpu {
    pub(in crate::arch) fn new() -> Cpu {
        Cpu {
            first: RefCell::default(),
            system: RefCell::default(),
            debug: Cell::default(),
            stepped: false,
        }
    }

    /// Gives a new child the registers of the guest's first instruction.
    pub(in crate::arch) fn start(&self, guest: &Guest) -> io::Result<()> {
        let mut system = self.system.borrow_mut();
        registers::begin(&guest.child, &mut system, &self.first.borrow())
    }

    /// Whether the guest runs a single instruction.
    pub(in crate::arch) fn is_stepping(&self) -> bool {
        self.debug.get().control & KVM_GUESTDBG_SINGLESTEP != 0
    }

    /// Does what precedes the guest's next instruction: ends a single step that was emulated.
    pub(in crate::arch) fn prepare(
        &mut self,
        _: &Guest,
        details: &mut Details,
    ) -> io::Result<Next> {
        if std::mem::take(&mut self.stepped) && self.is_stepping() {
            debug_exit(details, EC_STEP, 0);
            return Ok(Next::Exit);
        }
        Ok(Next::Resume)
    }

    /// Handles a fault of the guest.
    pub(in crate::arch) fn trap(
        &mut self,
        guest: &Guest,
        signal: c_int,
        details: &mut Details,
    ) -> io::Result<Next> {
        let mut registers: Registers = guest.child.get(GENERAL)?;
        let code = instruction::fetch(&guest.memory, registers.pc);
        // The usual case, which needs no more than the registers: a hypercall.
        let outside = code
            .filter(|_| signal == libc::SIGSEGV)
            .and_then(instruction::access)
            .map(|access| (access, registers.address(&access)))
            .filter(|(_, address)| WINDOW.contains(address));
        let next = match outside {
            Some((access, address)) => self.leave(&access, address, &mut registers, details),
            None => {
                let cause = guest.child.cause()?;
                // Sent by another process.
                if cause.si_code <= 0 {
                    return Ok(Next::Resume);
                }
                self.fault(
                    &guest.memory,
                    (signal, &cause),
                    code,
                    &mut registers,
                    details,
                )
            }
        };
        guest.child.set(GENERAL, &registers)?;
        Ok(next)
    }

    /// Describes an access to an address without memory, and completes it.
    fn leave(
        &mut self,
        access: &Access,
        address: u64,
        registers: &mut Registers,
        details: &mut Details,
    ) -> Next {
        let width = 1 << access.size;
        if address % width != 0 {
            return self.deliver(registers, Exception::alignment(address, access.is_write));
        }
        self.stepped = self.is_stepping();
        registers.pc = registers.pc.wrapping_add(4);
        let mut data = registers.operand(access.data).to_le_bytes();
        data[width as usize..].fill(0);
        details.run.exit_reason = KVM_EXIT_MMIO;
        details.run.__bindgen_anon_1.mmio = kvm_run__bindgen_ty_1__bindgen_ty_6 {
            phys_addr: address,
            data: if access.is_write { data } else { [0; 8] },
            len: width as u32,
            is_write: access.is_write.into(),
        };
        Next::Exit
    }

    /// Handles any other fault; `code` is the instruction at the program counter, if the guest may
    /// execute what is there.
    fn fault(
        &mut self,
        memory: &GuestMemory,
        (signal, cause): (c_int, &siginfo_t),
        code: Option<u32>,
        registers: &mut Registers,
        details: &mut Details,
    ) -> Next {
        // SAFETY: with the signals that use it, the address is set: of an access, or of the
        // instruction after a system call.
        let address = unsafe { cause.si_addr() } as u64;
        let exception = match (signal, code) {
            (libc::SIGTRAP, _) => return self.debug_trap(cause, address, code, registers, details),
            (libc::SIGSYS, _) => Exception::system_call(memory, registers, address),
            (libc::SIGFPE, _) => Exception::FLOATING,
            (libc::SIGBUS, _) if cause.si_code == libc::BUS_ADRALN => {
                Exception::misaligned(registers, address, code)
            }
            (libc::SIGBUS, _) => return no_memory(details, address),
            (_, None) => Exception::fetch(memory, registers.pc),
            (libc::SIGSEGV, Some(word)) if WINDOW.contains(&without_tag(address)) => {
                return undecoded(details, address, word, registers);
            }
            (libc::SIGSEGV, Some(word)) => Exception::data(memory, address, word),
            (_, Some(word)) => match self.emulate(word, registers) {
                Some(()) => return Next::Resume,
                None => Exception::UNDEFINED,
            },
        };
        self.deliver(registers, exception)
    }

    /// Emulates an instruction of EL1. Returns none if it is undefined.
    fn emulate(&mut self, word: u32, registers: &mut Registers) -> Option<()> {
        let instruction = instruction::decode(word)?;
        self.stepped = self.is_stepping();
        self.system.get_mut().emulate(instruction, registers)
    }

    /// Delivers an exception: the guest continues in its handler.
    fn deliver(&mut self, registers: &mut Registers, exception: Exception) -> Next {
        self.stepped = self.is_stepping();
        let Exception { syndrome, address } = exception;
        self.system.get_mut().enter(registers, syndrome, address);
        Next::Resume
    }

    /// Handles a breakpoint, a single step, or a hardware point.
    fn debug_trap(
        &mut self,
        cause: &siginfo_t,
        address: u64,
        code: Option<u32>,
        registers: &mut Registers,
        details: &mut Details,
    ) -> Next {
        let control = self.debug.get().control;
        match cause.si_code {
            libc::TRAP_BRKPT if control & KVM_GUESTDBG_USE_SW_BP != 0 => {
                debug_exit(details, EC_INSTRUCTION, 0);
            }
            libc::TRAP_BRKPT => {
                let breakpoint = Exception::breakpoint(code.unwrap_or_default());
                return self.deliver(registers, breakpoint);
            }
            libc::TRAP_TRACE if self.is_stepping() => debug_exit(details, EC_STEP, 0),
            libc::TRAP_HWBKPT if control & KVM_GUESTDBG_USE_HW != 0 => {
                if address == registers.pc && self.has_breakpoint(address) {
                    debug_exit(details, EC_BREAKPOINT, address);
                } else {
                    debug_exit(details, EC_WATCHPOINT, address);
                }
            }
            _ => return Next::Resume,
        }
        Next::Exit
    }
}

fn debug_exit(details: &mut Details, class: u32, far: u64) {
    details.run.exit_reason = KVM_EXIT_DEBUG;
    details.run.__bindgen_anon_1.debug = kvm_run__bindgen_ty_1__bindgen_ty_5 {
        arch: kvm_debug_exit_arch {
            hsr: class << 26,
            hsr_high: 0,
            far,
        },
    };
}

/// Describes an access to an address without memory that KVM could not emulate either. It skips
/// maintenance of caches.
fn undecoded(details: &mut Details, address: u64, word: u32, registers: &mut Registers) -> Next {
    if instruction::is_maintenance(word) {
        registers.pc = registers.pc.wrapping_add(4);
        return Next::Resume;
    }
    details.run.exit_reason = KVM_EXIT_ARM_NISV;
    details.run.__bindgen_anon_1.arm_nisv = kvm_run__bindgen_ty_1__bindgen_ty_22 {
        esr_iss: 0,
        fault_ipa: without_tag(address),
    };
    Next::Exit
}

/// Describes an access to guest memory that the host could not provide.
fn no_memory(details: &mut Details, address: u64) -> Next {
    details.run.exit_reason = KVM_EXIT_MEMORY_FAULT;
    details.run.__bindgen_anon_1.memory_fault = kvm_run__bindgen_ty_1__bindgen_ty_27 {
        flags: 0,
        gpa: without_tag(address),
        size: 1,
    };
    Next::Exit
}
