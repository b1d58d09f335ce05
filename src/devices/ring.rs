//! The shared network ring of newer guests: frames without a hypercall each. Section 11 of
//! `docs/hvt-abi.md`.
//!
//! A guest submits requests, and kicks if the ring asks for kicks. The guest's thread serves them,
//! so guest and tender never work on the ring at the same time. `worker.rs` decides when.
//!
//! The guest controls the whole ring: indices are the tender's own copies, distances are bounded,
//! each request is copied out once.

mod shared;
#[cfg(test)]
mod tests;
mod worker;

use guest_abi::hypercall::Status;
use guest_abi::ring::{Commit, ENTRIES, Entry, OP_READ, OP_WRITE};

use crate::memory::{self, GuestAddress, GuestMemory};
use crate::net::Nic;

pub use shared::{GuestRing, Shared};
pub use worker::Worker;

/// Address of the ring: in low memory that no guest uses otherwise, so that it takes none of the
/// operator's `--mem`.
pub const ADDRESS: u64 = 0x20000;

/// First address after the pages that hold the ring.
pub const END: u64 = 0x2d000;

/// How the guest violated the ring's contract.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("guest's ring index claims {distance} requests, limit {}", ENTRIES)]
    Distance { distance: u32 },
    #[error("ring request {index}: {error}")]
    Memory {
        index: u32,
        error: memory::RangeError,
    },
}

/// One guest's ring: takes requests out of it and performs them.
#[derive(Debug)]
pub struct Ring {
    /// Requests taken, and replies given: the tender's own counts, which the guest cannot change.
    taken: u32,
    given: u32,
    /// The interfaces by handle.
    nics: Vec<Option<Nic>>,
}

/// Result of one [`Ring::drain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Requests taken.
    pub requests: u32,
    /// Replies given: one for each request to receive.
    pub replies: u32,
}

impl Ring {
    /// Returns a ring for these interfaces, each with its handle.
    pub fn new(nics: impl IntoIterator<Item = (usize, Nic)>) -> Ring {
        let mut by_handle = Vec::new();
        for (handle, nic) in nics {
            if by_handle.len() <= handle {
                by_handle.resize_with(handle + 1, || None);
            }
            by_handle[handle] = Some(nic);
        }
        Ring {
            taken: 0,
            given: 0,
            nics: by_handle,
        }
    }

    /// Performs all requests that are submitted now, [`ENTRIES`] at most; returns their number.
    pub fn drain(&mut self, ring: &impl Shared, memory: &GuestMemory) -> Result<Drained, Error> {
        let given = self.given;
        let distance = ring.submitted().wrapping_sub(self.taken);
        if distance > ENTRIES {
            return Err(Error::Distance { distance });
        }
        for _ in 0..distance {
            let entry = ring.entry(self.taken);
            self.perform(&entry, ring, memory)
                .map_err(|error| Error::Memory {
                    index: self.taken,
                    error,
                })?;
            self.taken = self.taken.wrapping_add(1);
            ring.publish_taken(self.taken);
        }
        Ok(Drained {
            requests: distance,
            replies: self.given.wrapping_sub(given),
        })
    }

    fn perform(
        &mut self,
        entry: &Entry,
        ring: &impl Shared,
        memory: &GuestMemory,
    ) -> Result<(), memory::RangeError> {
        match entry.operation {
            OP_WRITE => {
                // A write gets no reply: a frame for an unknown handle is dropped without a count.
                if let Some(nic) = self.nic_mut(entry.handle) {
                    nic.write(memory, GuestAddress(entry.data), entry.len.into())?;
                }
            }
            OP_READ => {
                let (status, len) = match self.nic_mut(entry.handle) {
                    Some(nic) => nic.read(memory, GuestAddress(entry.data), entry.len.into())?,
                    None => (Status::Invalid, 0),
                };
                // No longer than the buffer, whose length is 32 bits wide.
                let commit = Commit {
                    id: entry.id,
                    ret: status as u32,
                    len: len as u32,
                    reserved: 0,
                };
                ring.write_commit(self.given, commit);
                self.given = self.given.wrapping_add(1);
                ring.publish_given(self.given);
            }
            _ => {}
        }
        Ok(())
    }

    fn nic_mut(&mut self, handle: u32) -> Option<&mut Nic> {
        self.nics.get_mut(handle as usize)?.as_mut()
    }

    /// Returns all interfaces.
    pub fn nics(&self) -> impl Iterator<Item = &Nic> {
        self.nics.iter().flatten()
    }

    /// Returns the interface with this handle, for statistics.
    pub fn nic(&self, handle: usize) -> Option<&Nic> {
        self.nics.get(handle)?.as_ref()
    }
}
