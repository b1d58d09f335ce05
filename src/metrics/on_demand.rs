//! SIGUSR1: logs the statistics so far on standard error, in any state of the guest; neither its
//! run nor its sleep ends.
//!
//! The signal handler itself logs them, so that nothing has to finish first, not even a write that
//! waits for a slow reader. This is sound because it only reads counters and writes to a buffer and
//! a descriptor: no heap, no lock.

#![expect(unsafe_code, reason = "a signal handler")]

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::c_int;
use log::Level;

use super::{Registry, summary};
use crate::report::log_lines::{self, Line, Subject};

/// The registry to log, or null.
static REGISTRY: AtomicPtr<Registry> = AtomicPtr::new(ptr::null_mut());

/// Guard: while it exists, SIGUSR1 is handled.
#[derive(Debug)]
pub(crate) struct Guard<'r>(PhantomData<&'r Registry>);

/// Installs a handler that logs the statistics of `registry` on SIGUSR1. All other threads must
/// block that signal.
pub(crate) fn install(registry: &Registry) -> Guard<'_> {
    REGISTRY.store(ptr::from_ref(registry).cast_mut(), Ordering::SeqCst);
    let handler: extern "C" fn(c_int) = on_signal;
    // SAFETY: the action is a plain value, and the handler is async-signal-safe. The kernel
    // restarts interrupted calls where it can; POLL resumes its sleep itself.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut());
    }
    Guard(PhantomData)
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        REGISTRY.store(ptr::null_mut(), Ordering::SeqCst);
    }
}

extern "C" fn on_signal(_: c_int) {
    let error = vmm_sys_util::errno::Error::last().errno();
    // SAFETY: the pointer is null or the reference passed to `install`, which the guard borrows.
    // Only this thread drops the guard, and the handler runs on this thread.
    if let Some(registry) = unsafe { REGISTRY.load(Ordering::SeqCst).as_ref() } {
        summary(registry, |device, line| {
            let subject = Subject {
                device,
                cause: None,
            };
            let line = Line::log(Level::Info, subject, format_args!("so far: {line}"));
            log_lines::write_from_handler(&line)
        });
    }
    // SAFETY: errno is this thread's own. The interrupted code may be about to read it.
    unsafe { *libc::__errno_location() = error };
}
