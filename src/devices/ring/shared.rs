//! The tender's view of the memory shared with the guest: atomic indices, and slots that are
//! copied.

use std::sync::atomic::{Ordering, fence};

use guest_abi::ring::{
    COM_TAIL, COMMITS_OFFSET, Commit, ENT_HEAD, ENT_TAIL, ENTRIES, ENTRIES_OFFSET, Entry,
    NEEDS_KICK, SIZE,
};
use vm_memory::{Bytes, VolatileSlice};
use zerocopy::{FromZeros, IntoBytes};

use crate::memory::{self, GuestAddress, GuestMemory};

/// The protocol's accesses to the shared memory. A trait so that tests can run its handshake in
/// every interleaving.
pub trait Shared {
    /// Returns the number of requests submitted so far, as claimed by the guest. Later reads see
    /// the submitted requests.
    fn submitted(&self) -> u32;
    /// Copies request `index` once.
    fn entry(&self, index: u32) -> Entry;
    /// Publishes the number of requests taken: the guest may reuse their slots.
    fn publish_taken(&self, taken: u32);
    /// Writes a reply into slot `index`.
    fn write_commit(&self, index: u32, commit: Commit);
    /// Publishes the number of replies given.
    fn publish_given(&self, given: u32);
    /// Publishes whether the guest should kick.
    fn want_kicks(&self, wanted: bool);
    /// Orders everything before it, reads and writes, before everything after it.
    fn barrier(&self);
}

/// The ring in guest memory.
#[derive(Clone, Copy, Debug)]
pub struct GuestRing<'m>(VolatileSlice<'m>);

impl<'m> GuestRing<'m> {
    /// Returns the ring at `address`.
    ///
    /// # Errors
    /// It is not inside guest memory.
    pub fn new(
        memory: &'m GuestMemory,
        address: GuestAddress,
    ) -> Result<GuestRing<'m>, memory::RangeError> {
        memory.volatile(address, SIZE as u64).map(GuestRing)
    }

    fn load(&self, offset: usize, order: Ordering) -> u32 {
        // The offsets are constants inside the ring, and aligned: this cannot fail.
        self.0.load(offset, order).unwrap_or_default()
    }

    fn store(&self, offset: usize, value: u32, order: Ordering) {
        let stored = self.0.store(value, offset, order);
        debug_assert!(
            stored.is_ok(),
            "the offsets are constants within the ring, and aligned"
        );
    }
}

fn slot(index: u32) -> usize {
    (index % ENTRIES) as usize
}

impl Shared for GuestRing<'_> {
    fn submitted(&self) -> u32 {
        self.load(ENT_TAIL, Ordering::Acquire)
    }

    fn entry(&self, index: u32) -> Entry {
        let mut entry = Entry::new_zeroed();
        let place = self.0.subslice(
            ENTRIES_OFFSET + slot(index) * size_of::<Entry>(),
            size_of::<Entry>(),
        );
        if let Ok(place) = place {
            place.copy_to(entry.as_mut_bytes());
        }
        entry
    }

    fn publish_taken(&self, taken: u32) {
        self.store(ENT_HEAD, taken, Ordering::Release);
    }

    fn write_commit(&self, index: u32, commit: Commit) {
        let place = self.0.subslice(
            COMMITS_OFFSET + slot(index) * size_of::<Commit>(),
            size_of::<Commit>(),
        );
        if let Ok(place) = place {
            place.copy_from(commit.as_bytes());
        }
    }

    fn publish_given(&self, given: u32) {
        self.store(COM_TAIL, given, Ordering::Release);
    }

    fn want_kicks(&self, wanted: bool) {
        self.store(NEEDS_KICK, wanted.into(), Ordering::Relaxed);
    }

    fn barrier(&self) {
        fence(Ordering::SeqCst);
    }
}
