//! Contract violations by a guest.

use crate::arch::Stop;
use crate::devices::ring;
use crate::guest::manifest::Kind;
use crate::memory;

/// A contract violation by the guest, which ends its run.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub(crate) enum Violation {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Stop(Stop),
    #[error("unknown hypercall {number} (valid: 1 to {last})")]
    Number { number: u32, last: u32 },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Ring(ring::Error),
    /// Only a guest of an era without manifest can use a device that is not attached.
    #[error("guest used a {kind} device, but none is attached")]
    #[diagnostic(help("add {}", hint(*kind)))]
    NoDevice { kind: Kind },
    #[error("hypercall {name} with its argument structure at {argument:#x}: {error}")]
    Memory {
        name: &'static str,
        argument: u64,
        error: memory::RangeError,
    },
}

fn hint(kind: Kind) -> &'static str {
    match kind {
        Kind::Net => "--net=IFACE",
        Kind::Block => "--disk=PATH",
    }
}
