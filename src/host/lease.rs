//! A read lease on the unikernel's file, whose pages guest memory shares with the file.
//!
//! While the tender holds the lease, a process that opens the file for writing or truncates it
//! waits, and the kernel sends the tender a signal. The handler puts copies in the place of the
//! shared pages and gives the lease back. The writer waits for milliseconds, and the guest's memory
//! does not change. (Copy-on-write is not enough: truncating the file also removes private copies.)
//!
//! A writer waits no longer than `/proc/sys/fs/lease-break-time`. If the tender is stopped for
//! longer, the kernel takes the lease away. The tender then ends the run, because the guest's
//! memory may have changed.

#![expect(unsafe_code, reason = "signal handlers, fcntl and guest memory")]

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use libc::{c_int, c_void, siginfo_t};

use super::files::Look;
use super::signal;
use crate::report::log_lines::{self, Line, Subject};

/// Smallest file whose pages are shared. Reading a smaller one costs less than the lease.
const SMALLEST: u64 = 256 << 10;

/// The signal to give the lease back; its default action is to ignore it. It may come from anyone:
/// the kernel's own one merges with another that is pending.
const SIGNAL: c_int = libc::SIGURG;

/// Chooses the signal of a lease. libc lacks it on some targets.
const F_SETSIG: c_int = 10;

/// Flags that move a mapping over another one.
const MOVE: c_int = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;

/// File systems whose files only this kernel changes, and only through the file itself. (The layers
/// of an overlay may be changed from outside.)
const LOCAL: [i64; 6] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0xf2f5_2010, // F2FS
    0x7371_7368, // SquashFS
    0xe0f5_e1e2, // EROFS
];

/// The same, but a write through a mapping changes no time of the file, see [`give_back`].
const TIMELESS: [i64; 2] = [
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
];

/// A lease on a file whose pages are not shared yet.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Opened separately: a mapping would keep the lease after `close`.
    file: File,
    name: PathBuf,
    /// When the file was last changed; `None` if the call failed.
    changed: Option<Changed>,
}

/// Keeps the shared pages protected until it is dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    descriptor: RawFd,
    lengths: Vec<u64>,
}

/// The state for the handlers.
struct Shared {
    lease: Lease,
    /// Host addresses of the shared pages.
    pages: Vec<Range<usize>>,
}

/// Times of the last changes of content and properties, and the size.
type Changed = [i64; 5];

/// Null if no pages are shared. Only the guest's thread changes it.
static SHARED: AtomicPtr<Shared> = AtomicPtr::new(ptr::null_mut());

/// Whether the kernel has requested the lease.
static ASKED: AtomicBool = AtomicBool::new(false);

impl Lease {
    /// Takes a lease on a file: `None` if it is too small to be worth it, if another process has it
    /// open for writing, or if the user or the file system has no leases. `changes_user` if the
    /// process will become another user, who may not give the lease back.
    pub(crate) fn take(look: &Look, changes_user: bool) -> Option<Lease> {
        if !look.metadata().is_file() || look.metadata().len() < SMALLEST {
            return None;
        }
        let file = look.open(OpenOptions::new().read(true)).ok()?;
        let mut lease = Lease {
            file,
            name: look.path().to_owned(),
            changed: None,
        };
        match lease.request(changes_user) {
            Ok(()) => Some(lease),
            Err(error) => {
                log::debug!("no lease on the unikernel: {error}; its file is copied");
                None
            }
        }
    }

    fn request(&mut self, changes_user: bool) -> io::Result<()> {
        let kind = rustix::fs::fstatfs(&self.file)?.f_type;
        if !LOCAL.contains(&kind) && (changes_user || !TIMELESS.contains(&kind)) {
            return Err(io::Error::other(format!("file system {kind:#x}")));
        }
        ASKED.store(false, Ordering::Relaxed);
        handle(SIGNAL, on_request, libc::SA_RESTART)?;
        handle(libc::SIGBUS, on_unreadable, libc::SA_RESETHAND)?;
        signal::unblock(&[SIGNAL, libc::SIGBUS]);
        if !may_move() {
            return Err(io::Error::other("an inherited filter rejects mremap"));
        }
        let fd = self.file.as_raw_fd();
        signal::own(fd)?;
        // SAFETY: the calls take numbers.
        let taken = unsafe {
            libc::fcntl(fd, F_SETSIG, SIGNAL) == 0
                && libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0
        };
        if taken {
            self.changed = changed(fd);
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Protects `pages`, which are private mappings of the file, until the result is dropped.
    ///
    /// # Safety
    /// The pages must stay mapped as long as the result exists. Only this thread may write to them,
    /// and no thread may have a reference to them.
    pub(crate) unsafe fn protect(self, pages: Vec<Range<usize>>) -> Guard {
        let guard = Guard {
            descriptor: self.file.as_raw_fd(),
            lengths: pages.iter().map(|pages| pages.len() as u64).collect(),
        };
        let shared = Box::new(Shared { lease: self, pages });
        SHARED.store(Box::into_raw(shared), Ordering::SeqCst);
        if ASKED.load(Ordering::SeqCst) {
            give_back();
        }
        guard
    }
}

impl Guard {
    /// Returns the descriptor of the lease, and the lengths of the mappings.
    pub(crate) fn parameters(&self) -> (RawFd, Vec<u64>) {
        (self.descriptor, self.lengths.clone())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let shared = SHARED.swap(ptr::null_mut(), Ordering::SeqCst);
        if !shared.is_null() {
            // SAFETY: `protect` created it from a box. The handler runs on this thread only, and
            // has not consumed it.
            drop(unsafe { Box::from_raw(shared) });
        }
    }
}

/// Takes the signals of the lease `fd` again, as the user that the process has become. In the
/// meantime the kernel may have dropped one.
pub(crate) fn renew(fd: RawFd) {
    // SAFETY: the call takes numbers.
    let is_held = || unsafe { libc::fcntl(fd, libc::F_GETLEASE) } == libc::F_RDLCK;
    if signal::own(fd).is_err() || !is_held() {
        give_back();
    }
}

extern "C" fn on_request(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    ASKED.store(true, Ordering::SeqCst);
    // SAFETY: the error number belongs to this thread. The code that was interrupted may be about
    // to read it.
    unsafe {
        let error = libc::__errno_location();
        let before = *error;
        give_back();
        *error = before;
    }
}

/// Makes the shared pages the guest's own and gives the lease back, or ends the process. Allocates
/// nothing.
fn give_back() {
    let shared = SHARED.load(Ordering::SeqCst);
    // SAFETY: while it is not null, it is a valid box that does not change.
    let Some(shared) = (unsafe { shared.as_ref() }) else {
        return;
    };
    for pages in &shared.pages {
        replace(shared, pages);
    }
    let fd = shared.lease.file.as_raw_fd();
    // SAFETY: the call takes numbers.
    let given_back = unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) } == 0;
    // Some users may not give it back. Closing the file does so, too, but does not report whether
    // the lease still existed.
    if !given_back
        && (io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)
            || shared.lease.changed.is_none()
            || changed(fd) != shared.lease.changed)
    {
        end(
            shared,
            "the file was changed while tender was stopped for longer than the kernel waits \
             (/proc/sys/fs/lease-break-time); replace the file by renaming (mv, install)",
        );
    }
    // The box stays: a handler must not free memory.
    SHARED.store(ptr::null_mut(), Ordering::SeqCst);
    // SAFETY: the file belongs to the box, which is neither dropped nor used any more.
    unsafe { libc::close(fd) };
}

/// Puts a copy in the place of pages. If a page cannot be read, [`on_unreadable`] ends the process.
fn replace(shared: &Shared, pages: &Range<usize>) {
    let (old, length) = (pages.start as *mut c_void, pages.len());
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: the new mapping is ours and as long as the old one, to which `protect` gives access;
    // no thread writes to that in the meantime. The last call moves the copy there in one step.
    let replaced = unsafe {
        let new = libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0);
        new != libc::MAP_FAILED && {
            libc::madvise(new, length, libc::MADV_DONTDUMP);
            ptr::copy_nonoverlapping(old.cast::<u8>(), new.cast(), length);
            libc::mremap(new, length, length, MOVE, old) == old
        }
    };
    if !replaced {
        end(
            shared,
            "no memory for a copy of the file, which is about to change; free memory",
        );
    }
}

/// Returns whether a filter lets [`replace`] move a mapping: the kernel rejects a length of 0.
fn may_move() -> bool {
    // SAFETY: the call fails without an effect.
    unsafe { libc::mremap(ptr::null_mut(), 0, 0, 0) };
    io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
}

fn changed(fd: RawFd) -> Option<Changed> {
    // SAFETY: the structure is plain numbers, and the kernel writes all of it. The bare call is the
    // one that the sandbox allows.
    unsafe {
        let mut file: libc::stat = std::mem::zeroed();
        let result = libc::syscall(libc::SYS_fstat, fd, &raw mut file);
        (result == 0).then_some([
            file.st_mtime,
            file.st_mtime_nsec,
            file.st_ctime,
            file.st_ctime_nsec,
            file.st_size,
        ])
    }
}

extern "C" fn on_unreadable(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a valid structure; while the pointer is not null, it is a valid box.
    let (code, address, shared) = unsafe {
        let shared = SHARED.load(Ordering::SeqCst).as_ref();
        ((*info).si_code, (*info).si_addr() as usize, shared)
    };
    let is_shared = |shared: &&Shared| shared.pages.iter().any(|pages| pages.contains(&address));
    match shared.filter(is_shared) {
        Some(shared) if code > 0 => end(
            shared,
            "a page of the file cannot be read; see dmesg for its disk",
        ),
        // The access is repeated, and the default action, which SA_RESETHAND has restored, ends the
        // process.
        _ if code > 0 => {}
        // Another process sent the signal.
        // SAFETY: the call takes a number.
        _ => unsafe { libc::_exit(128 + libc::SIGBUS) },
    }
}

/// Installs a signal handler that other signals may interrupt.
fn handle(
    signal: c_int,
    handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void),
    flags: c_int,
) -> io::Result<()> {
    // SAFETY: the action is a plain value, whose mask is empty; the handler has the signature for
    // SA_SIGINFO.
    let installed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = flags | libc::SA_SIGINFO;
        libc::sigaction(signal, &raw const action, ptr::null_mut())
    };
    if installed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn end(shared: &Shared, why: &str) -> ! {
    log_lines::write_from_handler(&Line::fatal(
        Subject::default(),
        format_args!("{}: {why}", shared.lease.name.display()),
    ));
    // SAFETY: the call takes a number.
    unsafe { libc::_exit(1) }
}
