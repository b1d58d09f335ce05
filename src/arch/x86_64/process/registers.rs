//! Registers of a child, between the forms of ptrace and of KVM.

use std::io;

use kvm_bindings::{
    KVM_GUESTDBG_INJECT_BP, KVM_GUESTDBG_USE_HW_BP, kvm_fpu, kvm_guest_debug, kvm_regs, kvm_sregs,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::super::core::FxSave;
use super::{Cpu, USER_CODE};
use crate::arch::process::{Child, Guest, Process, Set};

/// NT_PRFPREG and NT_X86_XSTATE.
const FLOATING: Set = Set(2);
const VECTOR: Set = Set(0x202);

const PTRACE_GETREGS: u64 = 12;
const PTRACE_PEEKUSER: u64 = 3;
const PTRACE_POKEUSER: u64 = 6;

/// Offsets in Linux's `struct user`.
const PROGRAM_COUNTER: usize = 16 * 8;
const DEBUG: usize = 848;

/// Numbers of the debug registers DR6 and DR7.
const STATUS: u8 = 6;
const CONTROL: u8 = 7;

/// Linux's `struct user_regs_struct`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

impl Registers {
    /// Reads those of a child. PTRACE_GETREGSET would have another form for 32-bit code.
    pub(super) fn of(child: &Child) -> io::Result<Registers> {
        let mut registers = Registers::default();
        child.request(PTRACE_GETREGS, 0, &raw mut registers as usize)?;
        Ok(registers)
    }

    /// Writes those that differ from `before`, which the child has. It can have given others values
    /// that Linux rejects: WRFSBASE accepts any address, and MOV to DS selectors of any privilege.
    pub(super) fn store(&self, child: &Child, before: &Registers) -> io::Result<()> {
        let [new, old]: [[u64; 27]; 2] =
            [zerocopy::transmute!(*self), zerocopy::transmute!(*before)];
        for (number, (new, old)) in new.into_iter().zip(old).enumerate() {
            if new != old {
                child.request(PTRACE_POKEUSER, 8 * number, new as usize)?;
            }
        }
        Ok(())
    }

    /// Returns the register with this number in an instruction.
    pub(super) fn numbered(&mut self, number: u8) -> &mut u64 {
        match number & 15 {
            0 => &mut self.rax,
            1 => &mut self.rcx,
            2 => &mut self.rdx,
            3 => &mut self.rbx,
            4 => &mut self.rsp,
            5 => &mut self.rbp,
            6 => &mut self.rsi,
            7 => &mut self.rdi,
            8 => &mut self.r8,
            9 => &mut self.r9,
            10 => &mut self.r10,
            11 => &mut self.r11,
            12 => &mut self.r12,
            13 => &mut self.r13,
            14 => &mut self.r14,
            _ => &mut self.r15,
        }
    }

    /// Becomes the registers of a guest's first instruction. Those of segments stay Linux's.
    pub(super) fn begin(&mut self, first: &kvm_regs) {
        *self = Registers {
            orig_rax: u64::MAX,
            cs: USER_CODE,
            ss: USER_CODE - 8,
            ..Registers::default()
        };
        self.assign(first);
    }

    fn assign(&mut self, from: &kvm_regs) {
        (self.rax, self.rbx, self.rcx, self.rdx) = (from.rax, from.rbx, from.rcx, from.rdx);
        (self.rsi, self.rdi, self.rsp, self.rbp) = (from.rsi, from.rdi, from.rsp, from.rbp);
        (self.r8, self.r9, self.r10, self.r11) = (from.r8, from.r9, from.r10, from.r11);
        (self.r12, self.r13, self.r14, self.r15) = (from.r12, from.r13, from.r14, from.r15);
        (self.rip, self.eflags) = (from.rip, from.rflags);
        self.orig_rax = u64::MAX;
    }

    fn general(&self) -> kvm_regs {
        kvm_regs {
            rax: self.rax,
            rbx: self.rbx,
            rcx: self.rcx,
            rdx: self.rdx,
            rsi: self.rsi,
            rdi: self.rdi,
            rsp: self.rsp,
            rbp: self.rbp,
            r8: self.r8,
            r9: self.r9,
            r10: self.r10,
            r11: self.r11,
            r12: self.r12,
            r13: self.r13,
            r14: self.r14,
            r15: self.r15,
            rip: self.rip,
            rflags: self.eflags,
        }
    }
}

/// Sets the program counter alone.
pub(super) fn set_program_counter(child: &Child, address: u64) -> io::Result<()> {
    child.request(PTRACE_POKEUSER, PROGRAM_COUNTER, address as usize)
}

/// Clears all vector registers, which are the tender's: an empty description of what is in use
/// gives each its initial value.
pub(super) fn clear_vector(child: &Child) -> io::Result<()> {
    const LARGEST: usize = 16 << 10;
    const CONTROL: usize = 0;
    const MXCSR: usize = 24;
    let mut state = vec![0; LARGEST];
    match child.get_bytes(VECTOR, &mut state) {
        Ok(length) => state.truncate(length),
        // A processor without XSAVE.
        Err(_) => state.truncate(size_of::<FxSave>()),
    }
    let set = if state.len() == size_of::<FxSave>() {
        FLOATING
    } else {
        VECTOR
    };
    state.fill(0);
    state[CONTROL..CONTROL + 2].copy_from_slice(&0x37f_u16.to_le_bytes());
    state[MXCSR..MXCSR + 4].copy_from_slice(&0x1f80_u32.to_le_bytes());
    child.set_bytes(set, &state)
}

/// Returns the floating-point registers.
pub(super) fn floating(child: &Child) -> io::Result<FxSave> {
    child.get(FLOATING)
}

/// Reads debug register `number`.
pub(super) fn debug_register(child: &Child, number: u8) -> io::Result<u64> {
    let mut value = 0_u64;
    let (address, to) = (DEBUG + 8 * usize::from(number), &raw mut value);
    child.request(PTRACE_PEEKUSER, address, to as usize)?;
    Ok(value)
}

/// Writes debug register `number`.
pub(super) fn set_debug_register(child: &Child, number: u8, value: u64) -> io::Result<()> {
    let address = DEBUG + 8 * usize::from(number);
    child.request(PTRACE_POKEUSER, address, value as usize)
}

/// What KVM's requests return for a process.
impl Process {
    fn child(&self) -> io::Result<&Child> {
        let guest = self.guest.as_ref().map(|Guest { child, .. }| child);
        guest.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
    }

    pub(in crate::arch) fn get_regs(&self) -> io::Result<kvm_regs> {
        match self.child() {
            Ok(child) => Ok(Registers::of(child)?.general()),
            Err(_) => Ok(self.cpu.first.get()),
        }
    }

    pub(in crate::arch) fn set_regs(&self, from: &kvm_regs) -> io::Result<()> {
        let Ok(child) = self.child() else {
            self.cpu.first.set(*from);
            return Ok(());
        };
        let before = Registers::of(child)?;
        let mut registers = before;
        registers.assign(from);
        registers.store(child, &before)
    }

    pub(in crate::arch) fn get_sregs(&self) -> io::Result<kvm_sregs> {
        let mut system = *self.cpu.system.borrow();
        if let Ok(child) = self.child() {
            let registers = Registers::of(child)?;
            (system.fs.base, system.gs.base) = (registers.fs_base, registers.gs_base);
        }
        Ok(system)
    }

    pub(in crate::arch) fn set_sregs(&self, system: &kvm_sregs) -> io::Result<()> {
        *self.cpu.system.borrow_mut() = *system;
        Ok(())
    }

    pub(in crate::arch) fn get_fpu(&self) -> io::Result<kvm_fpu> {
        Ok(floating(self.child()?)?.into())
    }

    pub(in crate::arch) fn set_fpu(&self, from: &kvm_fpu) -> io::Result<()> {
        self.child()?.set(FLOATING, &FxSave::from(from))
    }

    pub(in crate::arch) fn set_guest_debug(&self, debug: &kvm_guest_debug) -> io::Result<()> {
        self.cpu.set_debug(self.child()?, debug)
    }

    pub(in crate::arch) fn get_tsc_khz(&self) -> io::Result<u32> {
        Ok(self.cpu.counter.kilohertz)
    }
}

impl Cpu {
    /// Applies a debugger's request to the child.
    fn set_debug(&self, child: &Child, debug: &kvm_guest_debug) -> io::Result<()> {
        let points = if debug.control & KVM_GUESTDBG_USE_HW_BP != 0 {
            debug.arch.debugreg
        } else {
            [0; 8]
        };
        // Points are off while their addresses change.
        set_debug_register(child, CONTROL, 0)?;
        for number in 0..4 {
            set_debug_register(child, number, points[usize::from(number)])?;
        }
        set_debug_register(child, CONTROL, points[usize::from(CONTROL)])?;
        if debug.control & KVM_GUESTDBG_INJECT_BP != 0 {
            self.breakpoint.set(true);
        }
        self.debug.set(*debug);
        Ok(())
    }
}

/// Returns which points matched, and forgets them.
pub(super) fn debug_status(child: &Child) -> io::Result<u64> {
    let status = debug_register(child, STATUS)?;
    set_debug_register(child, STATUS, 0)?;
    Ok(status)
}
