//! How the process begins: with C's `main`, which does here what is worth its price of what Rust's own does first.
//!
//! A tender starts as often as its unikernels do, and a tenth of a start was Rust's: to be able to name a stack
//! overflow, it has the kernel print the whole memory map and reads it back. Without that, one is a plain SIGSEGV.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use crate::host::inherited_filter;
use crate::report::log_lines::{Line, Stderr};

/// The words of the command line, the program's name first.
///
/// # Safety
/// `count` and `words` must be what C's `main` was given.
pub unsafe fn arguments(count: c_int, args: *const *const c_char) -> Vec<OsString> {
    let word = |index| {
        // SAFETY: `main` is given `count` strings, which live as long as the process.
        let word = unsafe { CStr::from_ptr(*args.add(index)) };
        OsStr::from_bytes(word.to_bytes()).to_owned()
    };
    (0..usize::try_from(count).unwrap_or(0)).map(word).collect()
}

/// In place of a static glibc's own, which asks /proc where the program is, for libraries that it will never load, and so
/// dies behind a filter that does not know the call ([`inherited_filter`]), before anything of ours could prevent it. The
/// answer means that it is not known.
// SAFETY: nothing but glibc has a function of this name, and it takes this one where the linker meets it first.
#[unsafe(no_mangle)]
extern "C" fn _dl_get_origin() -> *const c_char {
    std::ptr::without_provenance(usize::MAX)
}

/// A mistake of ours ends the process with one line and status 1, as every error does: what Rust would do and say needs
/// system calls that the sandbox does not allow.
fn end_at_mistakes() {
    std::panic::set_hook(Box::new(|panic| {
        let line = Line::fatal(format_args!(
            "a mistake in tender itself, please report it: {panic}"
        ));
        let _ = Stderr.write_all(line.bytes());
        // SAFETY: it ends the process, whatever its threads are doing.
        unsafe { libc::_exit(1) }
    }));
}

/// Makes the process fit to run: a write to a closed pipe, or to a file that has reached its limit, becomes an error
/// like any other, and a standard stream that was closed is not taken by the next file that is opened.
pub fn prepare() {
    inherited_filter::bear();
    end_at_mistakes();
    // SAFETY: the calls take plain numbers, and a string that is a constant.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        // Asks a guest's run for its figures, and must not end what is not yet one.
        libc::signal(libc::SIGUSR1, libc::SIG_IGN);
        for stream in [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO] {
            let closed = libc::fcntl(stream, libc::F_GETFD) < 0;
            if closed && io::Error::last_os_error().raw_os_error() == Some(libc::EBADF) {
                // The lowest number that is free is this one. Where there is no such device, a root without rights
                // takes its place: else a guest's output might go into the guest's disk.
                if libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) < 0 {
                    libc::open(c"/".as_ptr(), libc::O_PATH);
                }
            }
        }
    }
}
