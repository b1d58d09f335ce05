//! The shared network ring of newer guests: frames without a hypercall each. Section 11 of `docs/hvt-abi.md`.
//!
//! A guest submits requests and, when the ring says so, kicks. By default it says so, and the kick is served at once
//! by the thread that runs the guest: a request then costs what a hypercall costs, and nothing runs when the guest is
//! idle. When frames are sent one after the other, a second thread takes over and looks after the ring, and the guest
//! need not kick until it has calmed down. So a ping is as quick as without a ring, and a flood quicker.
//!
//! The whole ring is in the guest's hands: indices are the tender's own copies, distances are bounded, each request is
//! copied out once.

mod shared;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::{Mutex, MutexGuard, PoisonError};

use guest_abi::hypercall::Status;
use guest_abi::ring::{Commit, ENTRIES, Entry, OP_READ, OP_WRITE};

use crate::memory::{self, GuestAddress, GuestMemory};
use crate::net::Nic;

pub use shared::{GuestRing, Shared};
pub use worker::{Parallel, Worker};

/// Where the ring lies: in the low memory that no guest uses for anything else, so that it costs none of what the
/// operator gave.
pub const ADDRESS: u64 = 0x20000;

/// First address after the pages that hold the ring.
pub const END: u64 = 0x2d000;

/// How the guest broke the ring's rules.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its index is further ahead than there are slots.
    #[error(
        "the guest's ring index claims {distance} requests at once; {} is the most",
        ENTRIES
    )]
    Distance {
        /// Requests claimed.
        distance: u32,
    },
    /// A request names memory that the guest does not have, or may not write.
    #[error("ring request {index}: {error}")]
    Memory {
        /// The request's index, counted from the start.
        index: u32,
        /// What is wrong with its buffer.
        error: memory::RangeError,
    },
}

/// Takes requests out of the ring and does them. Whoever holds it is the only one who does.
#[derive(Debug)]
pub struct Consumer {
    /// Requests taken, and replies given: the tender's own counts, not those that the guest could change.
    taken: u32,
    given: u32,
    /// The interfaces by handle.
    nics: Vec<Option<Nic>>,
}

/// What was done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Requests taken.
    pub requests: u32,
    /// Replies given: one to each request to receive.
    pub replies: u32,
}

/// One guest's ring.
#[derive(Debug)]
pub struct Ring {
    consumer: Mutex<Consumer>,
}

impl Ring {
    /// A ring for these interfaces, each with its handle.
    pub fn new(nics: impl IntoIterator<Item = (usize, Nic)>) -> Ring {
        let mut by_handle = Vec::new();
        for (handle, nic) in nics {
            if by_handle.len() <= handle {
                by_handle.resize_with(handle + 1, || None);
            }
            by_handle[handle] = Some(nic);
        }
        Ring {
            consumer: Mutex::new(Consumer {
                taken: 0,
                given: 0,
                nics: by_handle,
            }),
        }
    }

    /// The right to take requests. A thread that died with it left whole requests behind, done or not.
    pub fn consumer(&self) -> MutexGuard<'_, Consumer> {
        self.consumer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Consumer {
    /// Does every request that is there now, [`ENTRIES`] at most, and says how many.
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
                // A write gets no reply, so a handle of nothing is a frame sent nowhere.
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

    /// Every interface.
    pub fn nics(&self) -> impl Iterator<Item = &Nic> {
        self.nics.iter().flatten()
    }

    /// The interface with this handle, for figures.
    pub fn nic(&self, handle: usize) -> Option<&Nic> {
        self.nics.get(handle)?.as_ref()
    }
}

/// Announces that kicks are wanted, then looks again: true if nothing was submitted before the guest could know.
///
/// The guest submits first and looks for the announcement second, with a full barrier between; this does the same
/// the other way round. So one of the two always sees the other.
pub fn may_sleep(ring: &impl Shared, taken: u32) -> bool {
    ring.want_kicks(true);
    ring.barrier();
    ring.submitted() == taken
}
