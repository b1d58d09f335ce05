//! A filter of system calls that was there before the tender. urunc starts the tender of a container behind one that
//! knows the calls of upstream's and sends SIGSYS at any other, which would be the end.
//!
//! Here the call fails with ENOSYS instead, as in a kernel that lacks it, and whoever made it does without: POLL has
//! another way ([`crate::devices`]), the ring has no second thread, images are not locked. The sandbox of our own
//! replaces the handler, where there can be one.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, c_void, siginfo_t};

/// `SYS_SECCOMP`: the code of a SIGSYS from a filter.
const SYS_SECCOMP: c_int = 1;

/// Whether a call has been refused.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// From now on, calls that such a filter refuses fail. To be called first of all.
pub fn bear() {
    // SAFETY: the action is a plain value; the handler is of the form that SA_SIGINFO asks for, and makes no call but
    // when it is to die.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_refusal;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut());
    }
}

/// Whether there is such a filter, as far as it has been met.
pub fn is_there() -> bool {
    REFUSED.load(Ordering::Relaxed)
}

extern "C" fn on_refusal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives complete structures, of the thread that it has stopped for this.
    unsafe {
        if (*info).si_code == SYS_SECCOMP {
            REFUSED.store(true, Ordering::Relaxed);
            answer(context.cast(), -libc::ENOSYS);
        } else {
            // Somebody has sent it, and means what it says.
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    }
}

/// Makes `result` the result of the system call that the signal interrupted.
///
/// # Safety
/// `context` must be what the kernel passed to the handler.
unsafe fn answer(context: *mut libc::ucontext_t, result: c_int) {
    // SAFETY: the caller promises that it is the interrupted thread's context, which only this handler uses.
    let registers = unsafe { &mut (*context).uc_mcontext };
    #[cfg(target_arch = "aarch64")]
    (registers.regs[0] = result as u64);
    #[cfg(target_arch = "x86_64")]
    (registers.gregs[libc::REG_RAX as usize] = result.into());
}
