//! A read lease on the unikernel's file, whose pages guest memory shares with the file.
//!
//! While the tender has the lease, the kernel makes everyone wait who opens the file for writing or
//! truncates it, and sends a signal. The handler puts copies in the place of the shared pages and
//! gives the lease back. The writer waits for milliseconds, and the guest's memory does not change.
//! (Private copies that the kernel makes are not enough: truncating the file takes them away.)
//!
//! The kernel waits no longer than `/proc/sys/fs/lease-break-time`. A tender that was stopped for
//! longer than that has lost the lease: it ends the run, as the guest's memory may have changed.

#![expect(unsafe_code, reason = "signal handlers, fcntl and guest memory")]

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use libc::{c_int, c_void, siginfo_t};

use super::files::Look;
use super::signal;
use crate::report::log_lines::{self, Line};

/// Smallest file whose pages are shared. Reading a smaller one costs less than the lease.
const SMALLEST: u64 = 256 << 10;

/// The kernel's signal to give the lease back; its default action is to ignore it.
pub(super) const SIGNAL: c_int = libc::SIGURG;

/// Chooses the signal of a lease. libc lacks it on some targets.
const F_SETSIG: c_int = 10;

/// Flags that move a mapping over another one.
const MOVE: c_int = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;

/// File systems whose files only this kernel changes, and only through the file itself. (The layers
/// of an overlay may be changed from outside.)
const LOCAL: [i64; 8] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0xf2f5_2010, // F2FS
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x7371_7368, // SquashFS
    0xe0f5_e1e2, // EROFS
];

/// A lease on a file whose pages are not shared yet.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Opened separately: a mapping would keep the lease after `close`.
    file: File,
    name: PathBuf,
}

/// While this exists, the handler protects the pages.
#[derive(Debug)]
pub(crate) struct Guard {
    descriptor: RawFd,
    lengths: Vec<u64>,
}

/// What the handlers need.
struct Shared {
    lease: Lease,
    /// Host addresses of the shared pages.
    pages: Vec<Range<usize>>,
    /// When the file was last changed, as far as this can be found out.
    changed: Option<Changed>,
}

/// Times of the last changes of content and properties, and the size.
type Changed = [i64; 5];

/// Null if no pages are shared. Only the guest's thread changes it.
static SHARED: AtomicPtr<Shared> = AtomicPtr::new(ptr::null_mut());

/// Whether the kernel has asked for the lease.
static ASKED: AtomicBool = AtomicBool::new(false);

impl Lease {
    /// Takes a lease on a file: `None` if it is too small to be worth it, if another process has it open
    /// for writing, or if the user or the file system has no leases.
    pub(crate) fn take(look: &Look) -> Option<Lease> {
        if !look.metadata().is_file() || look.metadata().len() < SMALLEST {
            return None;
        }
        let file = look.open(OpenOptions::new().read(true)).ok()?;
        let lease = Lease {
            file,
            name: look.path().to_owned(),
        };
        match lease.request() {
            Ok(()) => Some(lease),
            Err(error) => {
                log::debug!("no lease on the unikernel: {error}; its file is copied");
                None
            }
        }
    }

    fn request(&self) -> io::Result<()> {
        let kind = rustix::fs::fstatfs(&self.file)?.f_type;
        if !LOCAL.contains(&kind) {
            return Err(io::Error::other(format!("file system {kind:#x}")));
        }
        ASKED.store(false, Ordering::Relaxed);
        handle(SIGNAL, on_request, libc::SA_RESTART)?;
        handle(libc::SIGBUS, on_unreadable, libc::SA_RESETHAND)?;
        signal::own(self.file.as_fd())?;
        let fd = self.file.as_raw_fd();
        // SAFETY: the calls take numbers.
        let taken = unsafe {
            libc::fcntl(fd, F_SETSIG, SIGNAL) == 0
                && libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0
        };
        if taken {
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
        let shared = Box::new(Shared {
            changed: changed(guard.descriptor),
            lease: self,
            pages,
        });
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
            // SAFETY: `protect` made it of a box, and the handler, which runs on this thread only,
            // has not used it up.
            drop(unsafe { Box::from_raw(shared) });
        }
    }
}

extern "C" fn on_request(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a valid structure, and the error number belongs to this thread.
    let (is_from_kernel, error) = unsafe { ((*info).si_code > 0, libc::__errno_location()) };
    if is_from_kernel {
        ASKED.store(true, Ordering::SeqCst);
        // SAFETY: as above. The code that was interrupted may be about to read the number.
        unsafe {
            let before = *error;
            give_back();
            *error = before;
        }
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
    // Not every user may give it back; closing the file does so, too, but does not show whether the
    // lease was still there.
    if !given_back
        && (io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)
            || shared.changed.is_none()
            || changed(fd) != shared.changed)
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
    // SAFETY: as in `on_request`.
    let (is_from_kernel, shared) =
        unsafe { ((*info).si_code > 0, SHARED.load(Ordering::SeqCst).as_ref()) };
    match shared {
        Some(shared) if is_from_kernel => end(
            shared,
            "a page of the file cannot be read; see dmesg for its disk",
        ),
        // The access is repeated, and the default action, which SA_RESETHAND has restored, ends the
        // process.
        None if is_from_kernel => {}
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
    log_lines::write_from_handler(&Line::fatal(format_args!(
        "{}: {why}",
        shared.lease.name.display()
    )));
    // SAFETY: the call takes a number.
    unsafe { libc::_exit(1) }
}
