//! The shared network ring of Solo5 0.11 and later (section 11): requests from the guest and
//! replies from the host, in one block of memory that both use concurrently. It carries network
//! frames only.
//!
//! The ring begins with two cache lines of indices: the guest writes one, the host the other. An
//! index is a free-running counter modulo 2^32; index *i* is in slot `i % ENTRIES`. Neither side
//! may trust the other's indices.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Number of request slots, and of reply slots.
pub const ENTRIES: u32 = 1024;

/// Size of the whole ring in bytes; it is page aligned, and zero when the guest starts.
pub const SIZE: usize = 49280;

/// Offset of the `u32` that counts the requests submitted; the guest writes it.
pub const ENT_TAIL: usize = 0;

/// Offset of the `u32` that counts the replies taken; the guest writes it.
pub const COM_HEAD: usize = 4;

/// Offset of the `u32` that counts the requests taken; the host writes it.
pub const ENT_HEAD: usize = 64;

/// Offset of the `u32` that counts the replies given; the host writes it.
pub const COM_TAIL: usize = 68;

/// Offset of the `u32` that is non-zero while the host wants a kick; the host writes it.
pub const NEEDS_KICK: usize = 72;

/// Offset of the requests.
pub const ENTRIES_OFFSET: usize = 128;

/// Offset of the replies.
pub const COMMITS_OFFSET: usize = 32896;

/// [`Entry::operation`]: send a frame. It gets no reply.
pub const OP_WRITE: u32 = 1;

/// [`Entry::operation`]: receive a frame. It gets one reply, in the order of the requests.
pub const OP_READ: u32 = 2;

/// Longest frame that a guest sends by the ring; it sends longer ones by hypercall.
pub const MAX_FRAME: u32 = 2048;

/// The ring's number, which a kick stores. There is only one ring.
pub const ID: u32 = 0;

/// Where a kick is stored on ARM64, 32 bits wide. Section A1.
pub const KICK_MMIO: u64 = 0x1_0000_0100;

/// The port of a kick on x86_64, 32 bits wide. Section B1.
pub const KICK_PORT: u16 = 0x600;

/// The bit of [`crate::boot::BootInfo::host_features`] that offers the ring.
pub const FEATURE: u32 = 1;

/// A request.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Entry {
    /// [`OP_WRITE`] or [`OP_READ`]; others are skipped.
    pub operation: u32,
    /// The device's handle, its index in the manifest.
    pub handle: u32,
    /// Address of the buffer.
    pub data: u64,
    /// Length of the frame (write) or of the buffer (read) in bytes.
    pub len: u32,
    /// Value that the reply repeats.
    pub id: u32,
    /// Zero.
    pub reserved: u64,
}
crate::assert_layout!(Entry, 32, operation: 0, handle: 4, data: 8, len: 16, id: 20, reserved: 24);

/// A reply.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Commit {
    /// [`Entry::id`] of the request.
    pub id: u32,
    /// A [`crate::hypercall::Status`].
    pub ret: u32,
    /// Length of the frame, if there is one.
    pub len: u32,
    /// Zero.
    pub reserved: u32,
}
crate::assert_layout!(Commit, 16, id: 0, ret: 4, len: 8, reserved: 12);

const _: () = {
    assert!(ENTRIES.is_power_of_two());
    assert!(ENTRIES_OFFSET & (align_of::<Entry>() - 1) == 0);
    assert!(COMMITS_OFFSET == ENTRIES_OFFSET + ENTRIES as usize * size_of::<Entry>());
    assert!(SIZE == COMMITS_OFFSET + ENTRIES as usize * size_of::<Commit>());
};
