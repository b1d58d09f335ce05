//! Landlock: denies access to any file, TCP port, abstract socket or other process, as far as the
//! kernel's version supports it. Makes three system calls; linux/landlock.h lists the additions of
//! each version.

#![expect(unsafe_code, reason = "Landlock has no functions in libc")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::c_long;

// The same numbers on every architecture, and not in libc for all targets.
const CREATE_RULESET: c_long = 444;
const ADD_RULE: c_long = 445;
const RESTRICT_SELF: c_long = 446;

/// Flag that requests the version instead of a ruleset.
const VERSION: u32 = 1;

/// The kernel's `struct landlock_ruleset_attr`; older kernels support a prefix.
#[repr(C)]
#[derive(Debug, PartialEq, Eq)]
struct Ruleset {
    files: u64,
    tcp: u64,
    scopes: u64,
}

/// The kernel's `struct landlock_path_beneath_attr`: rights below a directory. Version 1 supports
/// all of it.
#[repr(C, packed)]
struct Below {
    files: u64,
    directory: RawFd,
}

/// The type of a rule with this structure.
const PATH_BENEATH: u32 = 1;

/// File rights: to open for writing, and to create a regular file.
const WRITE_FILE: u64 = 1 << 1;
const MAKE_REG: u64 = 1 << 8;

/// Returns everything that a kernel of this version can deny, and how many bytes of the structure
/// it supports.
fn everything(version: i32) -> (Ruleset, usize) {
    let bits = |count: u32| (1_u64 << count) - 1;
    // 13 rights at first; later versions add linking and renaming across directories, truncation,
    // and ioctl on devices.
    let files = bits(match version {
        ..=1 => 13,
        2 => 14,
        3 | 4 => 15,
        5.. => 16,
    });
    // Bind and connect.
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

/// Denies all of it permanently to this thread and its future threads, except to create files below
/// `directory` and write to them. Open descriptors stay usable. Returns the active version.
pub(super) fn restrict(directory: Option<RawFd>) -> io::Result<i32> {
    // SAFETY: with this flag, the kernel reads no ruleset.
    let version = checked(unsafe {
        libc::syscall(
            CREATE_RULESET,
            std::ptr::null::<Ruleset>(),
            0_usize,
            VERSION,
        )
    })?;
    let (ruleset, size) = everything(version);
    // SAFETY: the kernel reads the first `size` bytes of the ruleset, which is at least as large.
    let fd = checked(unsafe { libc::syscall(CREATE_RULESET, &raw const ruleset, size, 0_u32) })?;
    // SAFETY: the descriptor is new and owned by nothing else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    if let Some(directory) = directory {
        let rule = Below {
            files: WRITE_FILE | MAKE_REG,
            directory,
        };
        // SAFETY: the kernel reads the one structure; both descriptors are open.
        checked(unsafe {
            libc::syscall(
                ADD_RULE,
                fd.as_raw_fd(),
                PATH_BENEATH,
                &raw const rule,
                0_u32,
            )
        })?;
    }
    // SAFETY: the call takes plain numbers; the descriptor is open.
    checked(unsafe { libc::syscall(RESTRICT_SELF, fd.as_raw_fd(), 0_u32) })?;
    Ok(version)
}

fn checked(result: c_long) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_gets_only_its_own_rights() {
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
