//! Waits for room for output if a seccomp filter refuses `ppoll`.
//!
//! Until the tender's own filter is installed, each wait makes its own epoll set. The filter
//! forbids new sets, so [`seal`] makes one for standard output and one for standard error just
//! before.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFlags, Timespec};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdout};

/// Whether `ppoll` has been refused.
static NEEDED: AtomicBool = AtomicBool::new(false);

/// A set of one descriptor, or none if the descriptor always has room.
type Set = Result<Option<OwnedFd>, ErrorKind>;

/// The sets of standard output and standard error, once no further set can be made.
static SETS: OnceLock<[Set; 2]> = OnceLock::new();

pub(super) fn is_needed() -> bool {
    NEEDED.load(Ordering::Relaxed)
}

#[cold]
pub(super) fn need() {
    NEEDED.store(true, Ordering::Relaxed);
}

/// Makes the last sets, if they are needed; returns them.
pub(super) fn seal() -> Vec<RawFd> {
    let last = |fd| match is_needed() {
        true => set_of(fd, PollFlags::OUT),
        false => Err(ErrorKind::Unsupported),
    };
    let sets = SETS.get_or_init(|| [stdout(), stderr()].map(last));
    let made = sets.iter().flatten().flatten();
    made.map(OwnedFd::as_raw_fd).collect()
}

/// Waits like [`super::wait_for`].
#[cold]
pub(super) fn wait_for(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    patience: Duration,
) -> io::Result<bool> {
    if events.is_empty() {
        thread::park_timeout(patience);
        return Ok(false);
    }
    let Some(sets) = SETS.get() else {
        return set_of(fd, events)?.map_or(Ok(true), |set| wait_in(&set, patience));
    };
    let place = fd.as_raw_fd() - libc::STDOUT_FILENO;
    match sets.get(place as usize) {
        Some(Ok(Some(set))) => wait_in(set, patience),
        Some(Ok(None)) => Ok(true),
        Some(Err(_)) | None => Err(ErrorKind::Unsupported.into()),
    }
}

fn set_of(fd: BorrowedFd<'_>, events: PollFlags) -> Set {
    let set = epoll::create(CreateFlags::CLOEXEC).map_err(|_| ErrorKind::Unsupported)?;
    // epoll's event numbers are those of poll.
    let events = EventFlags::from_bits_retain(events.bits().into());
    match epoll::add(&set, fd, EventData::new_u64(0), events) {
        Ok(()) => Ok(Some(set)),
        // epoll refuses a descriptor that always has room, such as a file.
        Err(Errno::PERM) => Ok(None),
        Err(_) => Err(ErrorKind::Unsupported),
    }
}

fn wait_in(set: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let mut event = [MaybeUninit::uninit()];
    match epoll::wait(set, &mut event, Some(&timeout(patience))) {
        Ok((ready, _)) => Ok(!ready.is_empty()),
        Err(Errno::INTR) => Err(Errno::INTR.into()),
        Err(_) => Err(ErrorKind::Unsupported.into()),
    }
}

pub(super) fn timeout(patience: Duration) -> Timespec {
    Timespec {
        tv_sec: patience.as_secs() as i64,
        tv_nsec: patience.subsec_nanos().into(),
    }
}
