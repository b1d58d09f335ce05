//! Registers of a child, between the forms of ptrace and of KVM.

use std::io;
use std::mem::offset_of;

use kvm_bindings::{
    KVM_GUESTDBG_USE_HW, KVM_REG_ARM_COPROC_MASK, KVM_REG_ARM_CORE, KVM_REG_ARM64_SYSREG,
    kvm_guest_debug, kvm_regs,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::super::debug::LEAST_POINTS;
use super::Cpu;
use super::instruction::{Access, LAST, Offset};
use super::system::System;
use crate::arch::process::{Child, Guest, Process, Set};

/// NT_PRSTATUS, NT_PRFPREG, NT_ARM_TLS, NT_ARM_HW_BREAK and NT_ARM_HW_WATCH.
pub(super) const GENERAL: Set = Set(1);
const FLOATING: Set = Set(2);
const THREAD: Set = Set(0x401);
const BREAKPOINTS: Set = Set(0x402);
const WATCHPOINTS: Set = Set(0x403);

/// PSTATE: N, Z, C and V, which alone a process shares with a guest at EL1.
pub(super) const CONDITIONS: u64 = 0xf << 28;

/// Linux's `struct user_pt_regs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Registers {
    pub general: [u64; 31],
    pub sp: u64,
    pub pc: u64,
    pub pstate: u64,
}

impl Registers {
    /// Returns a register that is an operand; number 31 is zero.
    pub(super) fn operand(&self, number: u8) -> u64 {
        let register = self.general.get(usize::from(number));
        register.copied().unwrap_or_default()
    }

    /// Sets a register that is an operand; number 31 ignores it.
    pub(super) fn set_operand(&mut self, number: u8, value: u64) {
        if let Some(register) = self.general.get_mut(usize::from(number)) {
            *register = value;
        }
    }

    /// Returns the address of an access, without its tag.
    pub(super) fn address(&self, access: &Access) -> u64 {
        let base = if access.base == LAST {
            self.sp
        } else {
            self.operand(access.base)
        };
        let offset = match access.offset {
            Offset::Immediate(offset) => offset as u64,
            Offset::Register {
                number,
                option,
                shift,
            } => {
                let value = self.operand(number);
                let extended = match option {
                    0b010 => u64::from(value as u32),
                    0b110 => value as i32 as u64,
                    _ => value,
                };
                extended << shift
            }
        };
        without_tag(base.wrapping_add(offset))
    }
}

/// Returns an address as the processor uses it: the upper byte repeats the bit below.
pub(super) fn without_tag(address: u64) -> u64 {
    ((address << 8) as i64 >> 8) as u64
}

/// Linux's `struct user_fpsimd_state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Floating {
    vectors: [u128; 32],
    status: u32,
    control: u32,
    reserved: [u32; 2],
}

/// The registers that KVM calls those of the core: `struct kvm_regs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Core {
    /// The stack pointer is that of EL0.
    pub registers: Registers,
    pub sp_el1: u64,
    pub elr: u64,
    pub spsr: [u64; 5],
    pub padding: u64,
    pub floating: Floating,
}

const _: () = assert!(size_of::<Core>() == size_of::<kvm_regs>());
const _: () = assert!(offset_of!(Core, floating) == offset_of!(kvm_regs, fp_regs));

/// Gives a new child the registers of the guest's first instruction; the others are the tender's.
pub(super) fn begin(child: &Child, system: &mut System, first: &Core) -> io::Result<()> {
    let none = Registers::default();
    let registers = system.take(first, &none).ok_or_else(invalid)?;
    child.set(FLOATING, &first.floating)?;
    // TPIDR_EL0 and TPIDR2_EL0.
    child.set(THREAD, &[0_u64; 2])?;
    child.set(GENERAL, &registers)
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

/// What KVM's requests return for a process.
impl Process {
    fn child(&self) -> Option<&Child> {
        self.guest.as_ref().map(|Guest { child, .. }| child)
    }

    /// Returns all registers but those of the system.
    fn core(&self) -> io::Result<Core> {
        let Some(child) = self.child() else {
            return Ok(*self.cpu.first.borrow());
        };
        let (registers, floating) = (child.get(GENERAL)?, child.get(FLOATING)?);
        Ok(self.cpu.system.borrow().show(registers, floating))
    }

    fn set_core(&self, core: &Core) -> io::Result<()> {
        let Some(child) = self.child() else {
            *self.cpu.first.borrow_mut() = *core;
            return Ok(());
        };
        let mut system = self.cpu.system.borrow_mut();
        let registers = system.take(core, &child.get(GENERAL)?);
        child.set(GENERAL, &registers.ok_or_else(invalid)?)?;
        child.set(FLOATING, &core.floating)
    }

    pub(in crate::arch) fn get_one_reg(&self, id: u64, value: &mut [u8]) -> io::Result<usize> {
        let length = value.len();
        if is(id, KVM_REG_ARM_CORE) {
            let core = self.core()?;
            let from = core.as_bytes().get(offset(id)..).unwrap_or_default();
            value.copy_from_slice(from.get(..length).ok_or_else(invalid)?);
            return Ok(length);
        }
        let mut system = self.cpu.system.borrow_mut();
        let (register, _) = system_register(&mut system, id).ok_or_else(invalid)?;
        value.copy_from_slice(register.as_bytes().get(..length).ok_or_else(invalid)?);
        Ok(length)
    }

    pub(in crate::arch) fn set_one_reg(&self, id: u64, value: &[u8]) -> io::Result<usize> {
        let length = value.len();
        if is(id, KVM_REG_ARM_CORE) {
            let mut core = self.core()?;
            let to = core
                .as_mut_bytes()
                .get_mut(offset(id)..)
                .unwrap_or_default();
            to.get_mut(..length)
                .ok_or_else(invalid)?
                .copy_from_slice(value);
            self.set_core(&core)?;
            return Ok(length);
        }
        let mut system = self.cpu.system.borrow_mut();
        let (register, _) = system_register(&mut system, id).ok_or_else(invalid)?;
        let to = register.as_mut_bytes().get_mut(..length);
        to.ok_or_else(invalid)?.copy_from_slice(value);
        Ok(length)
    }

    pub(in crate::arch) fn set_guest_debug(&self, debug: &kvm_guest_debug) -> io::Result<()> {
        let child = self.child().ok_or_else(invalid)?;
        self.cpu.set_debug(child, debug)
    }
}

/// Returns whether a register is of this kind.
fn is(id: u64, kind: u32) -> bool {
    id & u64::from(KVM_REG_ARM_COPROC_MASK) == u64::from(kind)
}

/// Returns where a register of the core is.
fn offset(id: u64) -> usize {
    4 * usize::from(id as u16)
}

fn system_register(system: &mut System, id: u64) -> Option<(&mut u64, u64)> {
    if !is(id, KVM_REG_ARM64_SYSREG) {
        return None;
    }
    system.register(id as u16)
}

/// Linux's `struct user_hwdebug_state`, as far as it is used.
#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
struct Points {
    /// Of the processor, and padding.
    information: [u32; 2],
    points: [Point; LEAST_POINTS],
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
struct Point {
    address: u64,
    control: u32,
    padding: u32,
}

impl Points {
    fn new(addresses: &[u64], controls: &[u64]) -> Points {
        let mut points = Points::default();
        let given = addresses.iter().zip(controls);
        for (point, (address, control)) in points.points.iter_mut().zip(given) {
            (point.address, point.control) = (*address, *control as u32);
        }
        points
    }
}

impl Cpu {
    /// Applies a debugger's request to the child.
    fn set_debug(&self, child: &Child, debug: &kvm_guest_debug) -> io::Result<()> {
        let uses_points = |debug: &kvm_guest_debug| debug.control & KVM_GUESTDBG_USE_HW != 0;
        let before = self.debug.replace(*debug);
        if !uses_points(&before) && !uses_points(debug) {
            return Ok(());
        }
        let of = debug.arch;
        for (set, points) in [
            (BREAKPOINTS, Points::new(&of.dbg_bvr, &of.dbg_bcr)),
            (WATCHPOINTS, Points::new(&of.dbg_wvr, &of.dbg_wcr)),
        ] {
            // Points are off while their addresses change.
            child.set(set, &Points::default())?;
            child.set(set, &points)?;
        }
        Ok(())
    }

    /// Returns whether a debugger's breakpoint is at `address`.
    pub(super) fn has_breakpoint(&self, address: u64) -> bool {
        let points = self.debug.get().arch;
        let mut points = points.dbg_bvr.iter().zip(points.dbg_bcr);
        points.any(|(at, control)| control & 1 != 0 && *at == address)
    }
}
