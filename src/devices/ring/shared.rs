//! The tender's view of the memory shared with the guest: atomic indices, and slots that are
//! copied.

use std::sync::atomic::Ordering;

use guest_abi::ring::{
    COM_TAIL, COMMITS_OFFSET, Commit, ENT_HEAD, ENT_TAIL, ENTRIES, ENTRIES_OFFSET, Entry,
    NEEDS_KICK, SIZE,
};
use vm_memory::{Bytes, VolatileSlice};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::memory::{self, GuestAddress, GuestMemory};

/// The protocol's accesses to the shared memory. A trait so that fuzzing can check them against a
/// model.
pub trait Shared {
    /// Returns the number of requests submitted so far, as claimed by the guest.
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

    // The guest is stopped while the tender works on the ring: one thread runs both. So no access
    // needs an order. The offsets are constants inside the ring, and aligned: no access can fail.

    #[inline]
    fn load(&self, offset: usize) -> u32 {
        self.0.load(offset, Ordering::Relaxed).unwrap_or_default()
    }

    fn store(&self, offset: usize, value: u32) {
        let stored = self.0.store(value, offset, Ordering::Relaxed);
        debug_assert!(
            stored.is_ok(),
            "the offsets are constants within the ring, and aligned"
        );
    }

    /// Returns slot `index` of the slots at `offset`, which are `T`s.
    fn place<T>(
        &self,
        offset: usize,
        index: u32,
    ) -> Result<VolatileSlice<'_>, vm_memory::VolatileMemoryError> {
        let slot = (index % ENTRIES) as usize;
        self.0
            .subslice(offset + slot * size_of::<T>(), size_of::<T>())
    }
}

impl Shared for GuestRing<'_> {
    #[inline]
    fn submitted(&self) -> u32 {
        self.load(ENT_TAIL)
    }

    fn entry(&self, index: u32) -> Entry {
        let mut entry = Entry::new_zeroed();
        if let (Ok(place), Ok(units)) = (
            self.place::<Entry>(ENTRIES_OFFSET, index),
            <[u64]>::mut_from_bytes(entry.as_mut_bytes()),
        ) {
            place.copy_to(units);
        }
        entry
    }

    fn publish_taken(&self, taken: u32) {
        self.store(ENT_HEAD, taken);
    }

    fn write_commit(&self, index: u32, commit: Commit) {
        if let (Ok(place), Ok(units)) = (
            self.place::<Commit>(COMMITS_OFFSET, index),
            <[u32]>::ref_from_bytes(commit.as_bytes()),
        ) {
            place.copy_from(units);
        }
    }

    fn publish_given(&self, given: u32) {
        self.store(COM_TAIL, given);
    }

    fn want_kicks(&self, wanted: bool) {
        self.store(NEEDS_KICK, wanted.into());
    }
}
