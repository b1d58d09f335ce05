//! Calls that an inherited filter may reject. They are made by libc, because debug builds of rustix
//! panic on a rejection.

#![expect(unsafe_code, reason = "libc reports the rejection instead")]

use std::ffi::CStr;
use std::fs;
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

/// Returns what precedes a command in a hint that needs root: nothing if this user is root.
pub fn sudo() -> &'static str {
    if user() == 0 { "" } else { "sudo " }
}

/// Returns the name of a user in /etc/passwd, or else its number, for messages.
pub fn user_name(uid: u32) -> String {
    name_in("/etc/passwd", uid).unwrap_or_else(|| uid.to_string())
}

/// Returns the name of a group in /etc/group, or else its number, for messages.
pub fn group_name(gid: u32) -> String {
    name_in("/etc/group", gid).unwrap_or_else(|| gid.to_string())
}

/// Returns the name of this user or group in `file`, if it has one.
pub fn name_in(file: &str, id: u32) -> Option<String> {
    name_of(id, &fs::read_to_string(file).ok()?).map(str::to_owned)
}

/// Finds the line `name:password:id:…` in the text of /etc/passwd or /etc/group.
fn name_of(id: u32, text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(id)).then_some(name)
    })
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

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn names_are_found_by_number() {
        let groups = "root:x:0:\nkvm:x:104:pirate\nbroken\n";
        assert_eq!(name_of(104, groups), Some("kvm"));
        assert_eq!(name_of(10, groups), None);
    }
}
