//! Calls that an inherited filter may reject. They are made by libc, because debug builds of rustix
//! panic on a rejection.

#![expect(unsafe_code, reason = "libc reports the rejection instead")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Returns the effective user of this process.
pub fn user() -> u32 {
    // SAFETY: the call takes nothing and changes nothing.
    unsafe { libc::geteuid() }
}

/// Returns the effective group of this process.
pub fn group() -> u32 {
    // SAFETY: as above.
    unsafe { libc::getegid() }
}

/// Sets the permissions that new files do not get, and returns the previous ones.
pub fn umask(mask: libc::mode_t) -> libc::mode_t {
    // SAFETY: the call takes a number.
    unsafe { libc::umask(mask) }
}

/// Returns the ID of this thread. If a filter rejects the call, returns the ID of the process,
/// which is also that of the first thread.
pub fn thread() -> i32 {
    // SAFETY: the call takes nothing. libc's gettid is avoided: Rust's standard library makes it a
    // weak symbol, which static glibc leaves empty.
    match unsafe { libc::syscall(libc::SYS_gettid) } as i32 {
        -1 => std::process::id() as i32,
        thread => thread,
    }
}

/// Checks the rights of the effective user for `path`, relative to the directory `at`.
///
/// # Errors
/// The user lacks one of `rights`.
pub fn access(at: impl AsFd, path: &CStr, rights: rustix::fs::Access) -> io::Result<()> {
    let (at, rights) = (at.as_fd().as_raw_fd(), rights.bits() as libc::c_int);
    // SAFETY: the path ends with a NUL, and the rest are numbers.
    match unsafe { libc::faccessat(at, path.as_ptr(), rights, libc::AT_EACCESS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
