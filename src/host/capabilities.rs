//! Capabilities of this process, and how it gives them up.

use std::io;

use libc::{c_int, c_ulong};

/// Capabilities by number, of linux/capability.h.
pub const SETGID: u32 = 6;
/// See [`SETGID`].
pub const SETUID: u32 = 7;
/// See [`SETGID`].
pub const NET_ADMIN: u32 = 12;
/// See [`SETGID`].
pub const CHROOT: u32 = 18;

/// Form of [`Header`] and [`Set`] that kernels since 2.6.26 know.
const VERSION: u32 = 0x2008_0522;

/// Of linux/securebits.h: root is no exception at exec, nor at a change of user; no capability is kept or raised. Each
/// is followed by the bit that makes it final.
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
    /// Those of this thread.
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

    /// The same, of which none is in effect.
    pub fn at_rest(self) -> Capabilities {
        Capabilities(self.0.map(|set| Set {
            effective: 0,
            ..set
        }))
    }

    /// Makes them those of this thread, unless they are.
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

/// Whether this process has a capability now.
pub fn has(capability: u32) -> bool {
    let is_effective = |Capabilities(sets): Capabilities| {
        sets[capability as usize / 32].effective & 1 << (capability % 32) != 0
    };
    Capabilities::get().is_ok_and(is_effective)
}

/// No program that this process might start has more rights than it, whatever its file says. For good.
pub fn no_new() -> io::Result<()> {
    // SAFETY: the call takes plain numbers.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())
}

/// Gives up every capability permanently. The ambient set is a part of the others, so it goes with them; instead of
/// taking forty capabilities out of the bounding set one by one, root is made a user like any other in one call.
///
/// A process without capabilities makes neither call. They would change nothing, and a unit can forbid them
/// (`SystemCallFilter=~@privileged`).
pub fn drop_all() -> io::Result<()> {
    let none = Capabilities([Set::default(); 2]);
    if Capabilities::get().is_ok_and(|now| now == none) {
        return Ok(());
    }
    let bits = NO_ROOT | NO_SETUID_FIXUP | KEEP_CAPS_LOCKED | NO_AMBIENT;
    // SAFETY: the call takes plain numbers. It needs CAP_SETPCAP; without that it fails and changes nothing.
    unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0) };
    none.set()
}

/// The supplementary groups of this process.
pub fn groups() -> Vec<u32> {
    let mut groups = vec![0; 65536];
    // SAFETY: the list has room for the given number of groups, the most that the kernel allows a process.
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
