//! Runs a guest as a process without any system call, where there is no KVM. A child of the tender
//! has the guest's RAM at guest-physical addresses and no other memory; the tender drives it by
//! ptrace. Hypercalls and privileged instructions of the guest are faults of the child: the tender
//! emulates them, and describes exits as KVM does, in a `kvm_run` structure.
//! docs/without-kvm.md.

#![expect(
    unsafe_code,
    reason = "a description of exits that signal handlers write to"
)]

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::kvm_run;
use libc::c_int;

#[cfg(target_arch = "aarch64")]
use super::aarch64::process as native;
#[cfg(target_arch = "x86_64")]
use super::x86_64::process as native;
use crate::memory::GuestMemory;
use placement::Placement;

mod child;
mod pages;
mod placement;
mod steps;

pub use child::Error;
pub(super) use child::{Child, Set};
pub(super) use native::Cpu;
pub use pages::writable_code;
#[cfg(target_arch = "x86_64")]
pub(super) use steps::must;
pub(super) use steps::{Step, may};

/// Requests of ptrace that a run makes.
pub const PTRACE_REQUESTS: &[u64] = native::PTRACE_REQUESTS;

/// Whether the guest goes on after a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It resumes.
    Resume,
    /// The trap is an exit, which is described.
    Exit,
}

/// Where an exit is described. As for KVM, the data of port I/O follows the structure.
#[repr(C)]
pub(super) struct Details {
    pub run: kvm_run,
    pub data: [u8; 8],
}

/// The child and its memory.
#[derive(Debug)]
pub(super) struct Guest {
    pub child: Child,
    pub memory: Arc<GuestMemory>,
    placement: Placement,
}

/// A guest that is a process.
pub(super) struct Process {
    /// Owned, from `Box::leak`. The vCPU reads it too, and signal handlers write one byte.
    details: NonNull<Details>,
    /// kernel.yama.ptrace_scope, which cannot be read from within the sandbox.
    scope: Option<u8>,
    pub(super) cpu: Cpu,
    /// None before the start.
    pub(super) guest: Option<Guest>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Process").field(&self.guest).finish()
    }
}

impl Process {
    pub(super) fn new() -> Process {
        let details = Details {
            run: kvm_run::default(),
            data: [0; 8],
        };
        Process {
            details: NonNull::from(Box::leak(Box::new(details))),
            scope: yama_scope(),
            cpu: Cpu::new(),
            guest: None,
        }
    }

    /// Returns the place of the description of exits; valid as long as `self`.
    pub(super) fn exit(&mut self) -> NonNull<kvm_run> {
        // The first field.
        self.details.cast()
    }

    /// Creates the child, which stops before the guest's first instruction; returns its ID.
    ///
    /// # Errors
    /// The host forbids it.
    pub(super) fn start(&mut self, memory: &Arc<GuestMemory>) -> Result<i32, Error> {
        let mut placement = Placement::new();
        let child = Child::start(memory, &self.cpu, self.scope)?;
        let id = child.id();
        placement.begin(id);
        let guest = self.guest.insert(Guest {
            child,
            memory: memory.clone(),
            placement,
        });
        self.cpu.start(guest).map_err(Error::Registers)?;
        Ok(id)
    }

    /// Ends the child.
    pub(super) fn end(&mut self) {
        self.guest = None;
    }

    /// Runs the guest until its next exit.
    ///
    /// # Errors
    /// EINTR if the run is interrupted; any other if the child is gone.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        let Some(guest) = &mut self.guest else {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        };
        loop {
            // A guest that traps without end is interrupted here.
            if interrupt_flag(self.details).load(Ordering::SeqCst) != 0 {
                return Err(io::Error::from_raw_os_error(libc::EINTR));
            }
            // SAFETY: the box exists, and the vCPU has no reference to it while it enters the guest.
            let details = unsafe { self.details.as_mut() };
            if self.cpu.prepare(guest, details)? == Next::Exit {
                return Ok(());
            }
            let signal = guest.child.resume(self.cpu.is_stepping())?;
            if signal == libc::SIGSTOP {
                // By a handler of the tender: see `signal::interrupts_process`.
                guest.placement.release();
                return Err(io::Error::from_raw_os_error(libc::EINTR));
            }
            guest.placement.share();
            let next = match signal {
                signal if is_fault(signal) => self.cpu.trap(guest, signal, details)?,
                // Sent by another process. A guest has no signals.
                _ => Next::Resume,
            };
            if next == Next::Exit {
                return Ok(());
            }
        }
    }

    /// Returns why the child cannot run the guest any longer.
    pub(super) fn failure(&self, source: io::Error) -> Error {
        // Otherwise the child is stopped, and to wait for it would be in vain.
        let is_gone = source.raw_os_error() == Some(libc::ESRCH);
        let guest = self.guest.as_ref().filter(|_| is_gone);
        match guest.and_then(|guest| guest.child.end()) {
            Some(signal) => Error::Killed { signal },
            None => Error::Registers(source),
        }
    }
}

/// Returns kernel.yama.ptrace_scope, if this kernel has it.
fn yama_scope() -> Option<u8> {
    let text = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?;
    text.trim().parse().ok()
}

/// Returns an error as KVM's requests return it.
pub(super) fn errno(error: io::Error) -> kvm_ioctls::Error {
    kvm_ioctls::Error::new(error.raw_os_error().unwrap_or(libc::EIO))
}

/// The exit of a guest that left 64-bit mode; KVM has no such exit.
#[cfg(target_arch = "x86_64")]
pub(super) const EXIT_MODE: u32 = u32::MAX;

/// Returns the byte that signal handlers set.
fn interrupt_flag<'d>(details: NonNull<Details>) -> &'d AtomicU8 {
    // SAFETY: the byte is valid as long as the vCPU, and all accesses are atomic while handlers know
    // it. There is no reference to the whole while this one is used.
    unsafe { AtomicU8::from_ptr(&raw mut (*details.as_ptr()).run.immediate_exit) }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: the pointer is that of the box, and the vCPU ends with this value.
        drop(unsafe { Box::from_raw(self.details.as_ptr()) });
    }
}

/// Returns whether an instruction can cause this signal.
fn is_fault(signal: c_int) -> bool {
    [
        libc::SIGSEGV,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGFPE,
        libc::SIGBUS,
        libc::SIGSYS,
    ]
    .contains(&signal)
}
