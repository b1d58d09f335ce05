//! Starts from C `main` instead of Rust's runtime, and does the useful part of the runtime's
//! start-up.
//!
//! A tender starts as often as its unikernels do, and Rust's runtime took a tenth of a start: to
//! report stack overflows, it makes the kernel print the whole memory map and parses it. Without
//! it, a stack overflow is a plain SIGSEGV.

#![expect(unsafe_code, reason = "C start-up and its arguments")]

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::io::Write;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, fcntl_getfd};
use rustix::stdio::{stderr, stdin, stdout};

use crate::host::inherited_filter;
use crate::report::log_lines::{Line, Stderr, Subject};

/// Returns the arguments of the command line, the program's name first.
///
/// # Safety
/// `count` and `args` must be the arguments of C's `main`.
pub unsafe fn arguments(count: c_int, args: *const *const c_char) -> Vec<OsString> {
    let word = |index| {
        // SAFETY: `main` has `count` strings, which live as long as the process.
        let word = unsafe { CStr::from_ptr(*args.add(index)) };
        OsStr::from_bytes(word.to_bytes()).to_owned()
    };
    (0..usize::try_from(count).unwrap_or(0)).map(word).collect()
}

/// Replaces a function of static glibc that queries /proc for the program's path, to find libraries
/// that a static program never loads. Behind a filter that rejects the call ([`inherited_filter`])
/// the process would die before any code of the tender runs. The return value means "unknown".
// SAFETY: only glibc has a function of this name, and it uses ours, because the linker finds ours
// first.
#[unsafe(no_mangle)]
extern "C" fn _dl_get_origin() -> *const c_char {
    std::ptr::without_provenance(usize::MAX)
}

/// Installs a panic hook: a bug of the tender ends the process with one line and status 1, as every
/// error does. Rust's default hook needs system calls that the sandbox does not allow.
fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let line = Line::fatal(
            Subject::default(),
            format_args!("internal error, please report it: {panic}"),
        );
        let _ = Stderr.write_all(line.bytes());
        // SAFETY: the call ends the process in any state of its threads.
        unsafe { libc::_exit(1) }
    }));
}

/// Prepares the process: a write to a closed pipe, or to a file at its size limit, becomes an
/// ordinary error, and the next opened file cannot take the number of a closed standard stream.
pub fn prepare() {
    inherited_filter::install();
    install_panic_hook();
    // SIGUSR1 requests statistics of a run; it must not end the process before the run.
    for signal in [libc::SIGPIPE, libc::SIGXFSZ, libc::SIGUSR1] {
        // SAFETY: the call takes plain numbers.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    for stream in [stdin(), stdout(), stderr()] {
        if fcntl_getfd(stream) == Err(Errno::BADF) {
            // The lowest free number is that of the closed stream. If /dev/null is missing, an
            // O_PATH descriptor of the root directory takes its place: otherwise the guest's
            // output might go to the guest's disk.
            let opened = openat(CWD, c"/dev/null", OFlags::RDWR, Mode::empty())
                .or_else(|_| openat(CWD, c"/", OFlags::PATH, Mode::empty()));
            let _ = opened.map(OwnedFd::into_raw_fd);
        }
    }
}

/// Returns memory to the kernel that only the start has used: 16 of 32 KiB of the heap.
pub(crate) fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call releases memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}
