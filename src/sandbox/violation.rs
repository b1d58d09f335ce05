//! A call that the sandbox does not allow: one line that names it, and death by SIGSYS.
//!
//! The kernel sends SIGSYS instead of making the call. An attacker who already controls this
//! process cannot exploit the handler: the kernel resets the action as the handler begins
//! (SA_RESETHAND), no rule allows setting it again, and the handler itself ends with a call that no
//! rule allows.

#![expect(unsafe_code, reason = "a signal handler")]

use std::mem::MaybeUninit;

use libc::{c_int, c_long, c_void, siginfo_t};

use super::rules::name;
use crate::report::log_lines::{self, Line, Subject};

/// The kernel's `siginfo_t` with its `_sigsys` member.
#[repr(C)]
struct Violation {
    signal: c_int,
    error: c_int,
    code: c_int,
    address: *mut c_void,
    call: c_int,
    arch: u32,
}

const _: () = assert!(size_of::<Violation>() <= size_of::<siginfo_t>());

/// `SYS_SECCOMP`: the value of `code` for a seccomp violation.
const SYS_SECCOMP: c_int = 1;

/// A call without effect that no rule allows.
const FORBIDDEN: c_long = libc::SYS_getppid;

/// Installs a SIGSYS handler that reports rejected calls.
pub(super) fn report() {
    // SAFETY: the action is a plain value; the handler has the signature for SA_SIGINFO, and only
    // makes async-signal-safe calls: it writes, and dies.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_violation;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut());
    }
}

extern "C" fn on_violation(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a complete `siginfo_t`, of which this is one form.
    let Violation { code, call, .. } = unsafe { info.cast::<Violation>().read() };
    if code == SYS_SECCOMP {
        let name = name(call.into()).unwrap_or("unknown");
        log_lines::write_from_handler(&Line::fatal(
            Subject::default(),
            format_args!(
                "system call {call} ({name}) is not allowed by the sandbox: this is a bug in tender, or an attack; the run ends"
            ),
        ));
    }
    // SAFETY: the first call has no effect except its rejection, and the signal's action is the
    // default again. The second is reached only if another process sent SIGSYS before there was a
    // filter.
    unsafe {
        libc::syscall(FORBIDDEN);
        libc::_exit(128 + libc::SIGSYS);
    }
}
