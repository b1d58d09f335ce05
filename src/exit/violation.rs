//! Contract violations by a guest.

use crate::arch::Stop;
use crate::devices::ring;
use crate::guest::manifest::Kind;
use crate::memory;

/// A contract violation by the guest, which ends its run.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// It stopped in a way that no unikernel should.
    #[error("{0}")]
    Stop(Stop),
    /// It performed a hypercall that does not exist.
    #[error("unknown hypercall {number} (valid: 1 to {last})")]
    Number {
        /// Its number.
        number: u32,
        /// The largest there is.
        last: u32,
    },
    /// It broke the rules of the shared ring.
    #[error("{0}")]
    Ring(ring::Error),
    /// It used a device that was not attached, which only a guest of an era without manifest can do.
    #[error("guest used a {kind} device, but none is attached; add {}", hint(*kind))]
    NoDevice {
        /// What it uses.
        kind: Kind,
    },
    /// It named memory that it does not have, or may not write.
    #[error("hypercall {name} with its argument structure at {argument:#x}: {error}")]
    Memory {
        /// Which hypercall.
        name: &'static str,
        /// Address of its argument structure.
        argument: u64,
        /// What is wrong with the memory.
        error: memory::RangeError,
    },
}

fn hint(kind: Kind) -> &'static str {
    match kind {
        Kind::Net => "--net=IFACE",
        Kind::Block => "--disk=PATH",
    }
}
