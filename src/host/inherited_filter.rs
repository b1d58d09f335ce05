//! Seccomp filters installed before the tender starts. urunc starts the tender of a container
//! behind a filter that allows the calls of Solo5's own tender. The filter sends SIGSYS at any
//! other call, which would end the process.
//!
//! This module makes such a call fail with ENOSYS instead, as in a kernel that lacks it. The
//! callers have fallbacks: POLL has another way to wait ([`crate::devices`]), the ring wants a kick
//! for each frame, images are not locked. The tender's own sandbox replaces the handler, if filters
//! can be installed.

#![expect(
    unsafe_code,
    reason = "a signal handler changes the registers of its thread"
)]

use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, c_void, siginfo_t};
use vmm_sys_util::signal::register_signal_handler;

/// `SYS_SECCOMP`: the code of a SIGSYS from a filter.
const SYS_SECCOMP: c_int = 1;

/// Whether the filter rejected a call.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Installs a SIGSYS handler that turns calls rejected by an inherited filter into ENOSYS. Call it
/// first.
pub fn install() {
    // The registration cannot fail for SIGSYS.
    let _ = register_signal_handler(libc::SIGSYS, on_refusal);
}

/// Returns whether such a filter rejected a call so far.
pub fn has_rejected() -> bool {
    REFUSED.load(Ordering::Relaxed)
}

extern "C" fn on_refusal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes complete structures of the thread that it interrupted.
    unsafe {
        if (*info).si_code == SYS_SECCOMP {
            REFUSED.store(true, Ordering::Relaxed);
            answer(context.cast(), -libc::ENOSYS);
        } else {
            // Another process sent the signal: take the default action.
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    }
}

/// Sets `result` as the result of the interrupted system call.
///
/// # Safety
/// `context` must be the kernel's argument to the handler.
unsafe fn answer(context: *mut libc::ucontext_t, result: c_int) {
    // SAFETY: the caller guarantees that it is the interrupted thread's context, which only this
    // handler uses.
    let registers = unsafe { &mut (*context).uc_mcontext };
    #[cfg(target_arch = "aarch64")]
    (registers.regs[0] = result as u64);
    #[cfg(target_arch = "x86_64")]
    (registers.gregs[libc::REG_RAX as usize] = result.into());
}
