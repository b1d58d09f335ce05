//! Capabilities of this process, and how to drop them.

use std::io;

use libc::{c_int, c_ulong};

/// Capability numbers of linux/capability.h.
pub const SETGID: u32 = 6;
/// See [`SETGID`].
pub const SETUID: u32 = 7;
/// See [`SETGID`].
pub const NET_ADMIN: u32 = 12;
/// See [`SETGID`].
pub const CHROOT: u32 = 18;

/// Version of [`Header`] and [`Set`] that kernels since 2.6.26 support.
const VERSION: u32 = 0x2008_0522;

/// From linux/securebits.h: no privileges for root at exec or at a change of user; no capability is
/// kept or raised. Each bit is followed by the one that locks it.
const NO_ROOT: c_ulong = 0b11;
const NO_SETUID_FIXUP: c_ulong = 0b11 << 2;
const KEEP_CAPS_LOCKED: c_ulong = 1 << 5;
const NO_AMBIENT: c_ulong = 0b11 << 6;

/// The kernel's `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

/// The kernel's `struct __user_cap_data_struct`: 32 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Set {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The capabilities of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities([Set; 2]);

impl Capabilities {
    /// Returns those of this thread.
    pub fn get() -> io::Result<Capabilities> {
        let header = Header {
            version: VERSION,
            pid: 0,
        };
        let mut sets = [Set::default(); 2];
        // SAFETY: the kernel reads the header and writes the two sets of its version.
        checked(unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) })?;
        Ok(Capabilities(sets))
    }

    /// Returns the same with an empty effective set.
    pub fn without_effective(self) -> Capabilities {
        Capabilities(self.0.map(|set| Set {
            effective: 0,
            ..set
        }))
    }

    /// Sets the capabilities of this thread, unless it has exactly these.
    pub fn set(&self) -> io::Result<()> {
        if Capabilities::get().is_ok_and(|now| now == *self) {
            return Ok(());
        }
        let header = Header {
            version: VERSION,
            pid: 0,
        };
        // SAFETY: the kernel reads the header and the two sets of its version.
        checked(unsafe { libc::syscall(libc::SYS_capset, &raw const header, self.0.as_ptr()) })
    }
}

/// Returns whether this process has a capability in its effective set.
pub fn has(capability: u32) -> bool {
    let is_effective = |Capabilities(sets): Capabilities| {
        sets[capability as usize / 32].effective & 1 << (capability % 32) != 0
    };
    Capabilities::get().is_ok_and(is_effective)
}

/// Prevents this process permanently from gaining privileges by exec, even if the program's file
/// grants some.
pub fn forbid_new_privileges() -> io::Result<()> {
    // SAFETY: the call takes plain numbers.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())
}

/// Drops every capability permanently. The ambient set is a subset of the others, so it is emptied
/// too. Instead of removing forty capabilities from the bounding set one by one, one call removes
/// root's privileges.
///
/// A process without capabilities makes neither call. They would change nothing, and a unit can
/// forbid them (`SystemCallFilter=~@privileged`).
pub fn drop_all() -> io::Result<()> {
    let none = Capabilities([Set::default(); 2]);
    if Capabilities::get().is_ok_and(|now| now == none) {
        return Ok(());
    }
    let bits = NO_ROOT | NO_SETUID_FIXUP | KEEP_CAPS_LOCKED | NO_AMBIENT;
    // SAFETY: the call takes plain numbers. Without CAP_SETPCAP it fails and changes nothing.
    unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0) };
    none.set()
}

/// Returns the supplementary groups of this process.
pub fn groups() -> Vec<u32> {
    let mut groups = vec![0; 65536];
    // SAFETY: the list has room for the given number of groups, the most that the kernel allows a
    // process.
    let count = unsafe { libc::getgroups(groups.len() as c_int, groups.as_mut_ptr()) };
    groups.truncate(usize::try_from(count).unwrap_or(0));
    groups
}

fn checked(result: i64) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
