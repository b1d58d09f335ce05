//! Waits for room for output if a seccomp filter refuses `ppoll`.
//!
//! Before the tender's own filter, each wait makes an epoll set. That filter forbids it, so [`seal`] makes one set each
//! for standard output and standard error first.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

/// Whether `ppoll` has been refused.
static NEEDED: AtomicBool = AtomicBool::new(false);

/// Whether [`seal`] was called: no set can be made any more.
static SEALED: AtomicBool = AtomicBool::new(false);

/// The sets of standard output and standard error, or one of the next two.
static SETS: [AtomicI32; 2] = [const { AtomicI32::new(NONE) }; 2];
const NONE: RawFd = -1;
/// Instead of a set: the descriptor always has room.
const ALWAYS: RawFd = -2;

pub(super) fn is_needed() -> bool {
    NEEDED.load(Ordering::Relaxed)
}

#[cold]
pub(super) fn need() {
    NEEDED.store(true, Ordering::Relaxed);
}

/// Makes the last sets, if they are needed; returns them.
pub(super) fn seal() -> Vec<RawFd> {
    if is_needed() {
        for (fd, kept) in (libc::STDOUT_FILENO..).zip(&SETS) {
            let set = match set_of(fd, libc::POLLOUT) {
                Ok(set) => set.map_or(ALWAYS, IntoRawFd::into_raw_fd),
                Err(_) => NONE,
            };
            kept.store(set, Ordering::Relaxed);
        }
    }
    SEALED.store(true, Ordering::Relaxed);
    SETS.iter()
        .map(|set| set.load(Ordering::Relaxed))
        .filter(|&set| set >= 0)
        .collect()
}

/// As [`super::wait_for`].
#[cold]
pub(super) fn wait_for(fd: RawFd, events: libc::c_short, patience: Duration) -> io::Result<bool> {
    if events == 0 {
        thread::park_timeout(patience);
        return Ok(false);
    }
    if !SEALED.load(Ordering::Relaxed) {
        return set_of(fd, events)?.map_or(Ok(true), |set| wait_in(set.as_raw_fd(), patience));
    }
    let kept = SETS
        .get((fd - libc::STDOUT_FILENO) as usize)
        .map_or(NONE, |set| set.load(Ordering::Relaxed));
    match kept {
        NONE => Err(io::ErrorKind::Unsupported.into()),
        ALWAYS => Ok(true),
        set => wait_in(set, patience),
    }
}

/// Returns a set of this descriptor alone, or none if the descriptor is always ready.
fn set_of(fd: RawFd, events: libc::c_short) -> io::Result<Option<OwnedFd>> {
    // epoll's event numbers are those of poll.
    let mut event = libc::epoll_event {
        events: events as u32,
        u64: 0,
    };
    // SAFETY: the call takes a number.
    let set = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if set < 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: the descriptor is new and passed to nothing else.
    let set = unsafe { OwnedFd::from_raw_fd(set) };
    // SAFETY: the kernel reads the event.
    match unsafe { libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) } {
        0 => Ok(Some(set)),
        // epoll refuses a descriptor that always has room, such as a file.
        _ if io::Error::last_os_error().raw_os_error() == Some(libc::EPERM) => Ok(None),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn wait_in(set: RawFd, patience: Duration) -> io::Result<bool> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: the kernel writes the one event; no mask is given.
    match unsafe {
        libc::epoll_pwait(
            set,
            &raw mut event,
            1,
            patience.as_millis() as libc::c_int,
            std::ptr::null(),
        )
    } {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Err(error),
            _ => Err(io::ErrorKind::Unsupported.into()),
        },
        ready => Ok(ready == 1),
    }
}
