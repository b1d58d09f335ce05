//! Hypercall numbers, their transport and their argument structures (sections A1, B1 and 4), ABI
//! versions 1 and 2.
//!
//! A guest passes the 32-bit guest-physical address of one of these structures. Fields are marked
//! *IN* (set by the guest) or *OUT* (set by the tender). A tender writes OUT fields only, and never
//! past the structure: it usually lies on the guest's stack.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How a hypercall leaves the guest on ARM64: a 32-bit store to `MMIO_BASE + 8 * number`. Section
/// A1.
pub const MMIO_BASE: u64 = 0x1_0000_0000;

/// Distance between the store addresses of two neighbouring hypercall numbers, in bytes. Section
/// A1.
pub const MMIO_STRIDE: u64 = 8;

/// How a hypercall leaves the guest on x86_64: a 32-bit `out` to port `PIO_BASE + number`. Section
/// B1.
pub const PIO_BASE: u16 = 0x500;

/// Hypercall numbers; 0 is reserved. Section A1.
pub mod number {
    #![allow(
        missing_docs,
        reason = "each names the structure of the same name below"
    )]
    pub const WALLTIME: u32 = 1;
    pub const PUTS: u32 = 2;
    pub const POLL: u32 = 3;
    pub const BLOCK_WRITE: u32 = 4;
    pub const BLOCK_READ: u32 = 5;
    pub const NET_WRITE: u32 = 6;
    pub const NET_READ: u32 = 7;
    pub const HALT: u32 = 8;
}

/// Result of a block or network hypercall, as the guest reads it in `ret`. Section 4.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// No data yet; repeat the call once POLL reports some.
    Again = 1,
    /// The request is invalid: bad handle, range or alignment.
    Invalid = 2,
    /// The host failed to perform it.
    Unspecified = 3,
}

/// Exit status of a guest that aborted, panicked or trapped. Section 8.
pub const STATUS_ABORT: u8 = 255;

/// WALLTIME: read the wall clock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Walltime {
    /// OUT: nanoseconds since 1970-01-01 00:00 UTC.
    pub nsecs: u64,
}
crate::assert_layout!(Walltime, 8, nsecs: 0);

/// PUTS: write bytes to the console. It has no result; output is best effort.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Puts {
    /// IN: address of the bytes.
    pub data: u64,
    /// IN: number of bytes; 0 is valid.
    pub len: u64,
}
crate::assert_layout!(Puts, 16, data: 0, len: 8);

/// POLL: sleep until a network device has a frame or the timeout expires.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Poll {
    /// IN: longest sleep in nanoseconds; 0 returns immediately.
    pub timeout_nsecs: u64,
    /// OUT: bit *i* is set when the device with handle *i* has a frame waiting.
    pub ready_set: u64,
    /// OUT: number of bits set.
    pub ret: u32,
    /// Padding; neither read nor written.
    pub pad: u32,
}
crate::assert_layout!(Poll, 24, timeout_nsecs: 0, ready_set: 8, ret: 16);

/// BLOCK_WRITE and BLOCK_READ: move bytes between a block device and guest memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Block {
    /// IN: the device's handle, its index in the manifest.
    pub handle: u64,
    /// IN: offset on the device in bytes.
    pub offset: u64,
    /// IN: address of the buffer.
    pub data: u64,
    /// IN: number of bytes.
    pub len: u64,
    /// OUT: a [`Status`].
    pub ret: u32,
    /// Padding; neither read nor written.
    pub pad: u32,
}
crate::assert_layout!(Block, 40, handle: 0, offset: 8, data: 16, len: 24, ret: 32);

/// NET_WRITE and NET_READ: send or receive one Ethernet frame, its 14-byte header included.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Net {
    /// IN: the device's handle, its index in the manifest.
    pub handle: u64,
    /// IN: address of the buffer.
    pub data: u64,
    /// IN: length of the frame (write) or of the buffer (read) in bytes. OUT of a successful read:
    /// the frame's length.
    pub len: u64,
    /// OUT: a [`Status`].
    pub ret: u32,
    /// Padding; neither read nor written.
    pub pad: u32,
}
crate::assert_layout!(Net, 32, handle: 0, data: 8, len: 16, ret: 24);

/// HALT: end the run. It never returns.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Halt {
    /// IN: 0, or the address of [`COOKIE_SIZE`] bytes that describe a trap.
    pub cookie: u64,
    /// IN: exit status; its low 8 bits become the tender's.
    pub exit_status: u32,
    /// Padding; neither read nor written.
    pub pad: u32,
}
crate::assert_layout!(Halt, 16, cookie: 0, exit_status: 8);

/// Bytes that must be readable at a non-zero [`Halt::cookie`]. Section 4.
pub const COOKIE_SIZE: u64 = 512;
