//! Landlock: no way to any file, TCP port, abstract socket or other process, as far as this kernel's version knows them.
//! Three system calls; what each version adds is in linux/landlock.h.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use libc::c_long;

// The same numbers on every architecture, and not in libc for all targets.
const CREATE_RULESET: c_long = 444;
const RESTRICT_SELF: c_long = 446;

/// Asks for the version instead of a ruleset.
const VERSION: u32 = 1;

/// The kernel's `struct landlock_ruleset_attr`; older kernels know its beginning.
#[repr(C)]
#[derive(Debug, PartialEq, Eq)]
struct Ruleset {
    files: u64,
    tcp: u64,
    scopes: u64,
}

/// What can be forbidden by a kernel of this version, and how many bytes of it that kernel knows.
fn everything(version: i32) -> (Ruleset, usize) {
    let bits = |count: u32| (1_u64 << count) - 1;
    // 13 rights at first; then to link and rename across directories, to truncate, and ioctl on devices.
    let files = bits(match version {
        ..=1 => 13,
        2 => 14,
        3 | 4 => 15,
        5.. => 16,
    });
    // To bind and to connect.
    let tcp = if version >= 4 { bits(2) } else { 0 };
    // Abstract Unix sockets, and signals.
    let scopes = if version >= 6 { bits(2) } else { 0 };
    let size = match version {
        ..=3 => 8,
        4 | 5 => 16,
        6.. => 24,
    };
    (Ruleset { files, tcp, scopes }, size)
}

/// Forbids this thread, and those that it will start, all of it for good. Descriptors that are open stay usable.
/// Returns the version in force.
pub fn restrict() -> io::Result<i32> {
    // SAFETY: with this flag, the kernel takes no ruleset.
    let version = checked(unsafe { libc::syscall(CREATE_RULESET, std::ptr::null::<Ruleset>(), 0_usize, VERSION) })?;
    let (ruleset, size) = everything(version);
    // SAFETY: the kernel reads the first `size` bytes of the ruleset, which has no fewer.
    let fd = checked(unsafe { libc::syscall(CREATE_RULESET, &raw const ruleset, size, 0_u32) })?;
    // SAFETY: the descriptor is new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the call takes plain numbers; the descriptor is open.
    checked(unsafe { libc::syscall(RESTRICT_SELF, std::os::fd::AsRawFd::as_raw_fd(&fd), 0_u32) })?;
    Ok(version)
}

fn checked(result: c_long) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_asked_for_what_it_knows() {
        let of = |version| {
            let (Ruleset { files, tcp, scopes }, size) = everything(version);
            (files, tcp, scopes, size)
        };
        assert_eq!(of(1), (0x1fff, 0, 0, 8));
        assert_eq!(of(2), (0x3fff, 0, 0, 8));
        assert_eq!(of(3), (0x7fff, 0, 0, 8));
        assert_eq!(of(4), (0x7fff, 3, 0, 16));
        assert_eq!(of(5), (0xffff, 3, 0, 16));
        assert_eq!(of(6), (0xffff, 3, 3, 24));
        assert_eq!(of(7), of(6));
    }
}
