//! SIGUSR1: the figures so far, on standard error, whatever the guest is doing; neither its run nor its sleep ends.
//!
//! They are told by the signal's handler itself, so that nothing has to come to an end first, not even a write that waits
//! for a slow reader. That is sound as all of it is reading counters and writing to a buffer and a descriptor: no heap, no
//! lock.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::c_int;
use log::Level;

use super::{Registry, summary};
use crate::report::log_lines::{self, Line};

/// What to tell of, or null.
static REGISTRY: AtomicPtr<Registry> = AtomicPtr::new(ptr::null_mut());

/// While it lives, SIGUSR1 is answered.
#[derive(Debug)]
pub struct Guard<'r>(PhantomData<&'r Registry>);

/// Answers SIGUSR1, which must reach this thread only, with what `registry` has.
pub fn answer(registry: &Registry) -> Guard<'_> {
    REGISTRY.store(ptr::from_ref(registry).cast_mut(), Ordering::SeqCst);
    let handler: extern "C" fn(c_int) = on_signal;
    // SAFETY: the action is a plain value, and the handler does only what one may. What it interrupts goes on, where the
    // kernel can: POLL sees to the rest of its sleep by itself.
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
    // SAFETY: it is null, or what `answer` was given and its guard borrows; this thread, which the handler runs on, is the
    // only one that drops the guard.
    if let Some(registry) = unsafe { REGISTRY.load(Ordering::SeqCst).as_ref() } {
        summary(registry, |line| {
            log_lines::write_from_handler(&Line::log(Level::Info, line))
        });
    }
    // SAFETY: the place is this thread's own. What was interrupted may be about to look at it.
    unsafe { *libc::__errno_location() = error };
}
