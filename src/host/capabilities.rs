//! Capabilities of this process, and how to drop them.

use std::io;

pub use rustix::thread::CapabilitySet;
use rustix::thread::{self, CapabilitiesSecureBits as Bits, CapabilitySets};

/// Sets the capabilities of this thread, unless it has exactly these.
pub fn set(sets: CapabilitySets) -> io::Result<()> {
    if thread::capabilities(None).is_ok_and(|now| now == sets) {
        return Ok(());
    }
    Ok(thread::set_capabilities(None, sets)?)
}

/// Returns whether this process has these capabilities in its effective set.
pub fn has(capabilities: CapabilitySet) -> bool {
    thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(capabilities))
}

/// Prevents this process permanently from gaining privileges by exec, even if the program's file
/// grants some.
pub fn forbid_new_privileges() -> io::Result<()> {
    Ok(thread::set_no_new_privs(true)?)
}

/// Drops every capability permanently. The ambient set is a subset of the others, so it is emptied
/// too. Instead of removing forty capabilities from the bounding set one by one, one call removes
/// root's privileges.
///
/// A process without capabilities makes neither call. They would change nothing, and a unit can
/// forbid them (`SystemCallFilter=~@privileged`).
pub fn drop_all() -> io::Result<()> {
    let empty = CapabilitySet::empty();
    let none = CapabilitySets {
        effective: empty,
        permitted: empty,
        inheritable: empty,
    };
    if thread::capabilities(None).is_ok_and(|now| now == none) {
        return Ok(());
    }
    // No privileges for root at exec or at a change of user; no capability is kept or raised.
    let bits = Bits::NO_ROOT
        | Bits::NO_ROOT_LOCKED
        | Bits::NO_SETUID_FIXUP
        | Bits::NO_SETUID_FIXUP_LOCKED
        | Bits::KEEP_CAPS_LOCKED
        | Bits::NO_CAP_AMBIENT_RAISE
        | Bits::NO_CAP_AMBIENT_RAISE_LOCKED;
    // Without CAP_SETPCAP the call fails and changes nothing.
    let _ = thread::set_capabilities_secure_bits(bits);
    set(none)
}

/// Returns the supplementary groups of this process.
pub fn groups() -> Vec<u32> {
    let groups = rustix::process::getgroups().unwrap_or_default();
    groups.into_iter().map(|group| group.as_raw()).collect()
}
