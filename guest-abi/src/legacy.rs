//! The interface of Solo5 0.3 (ukvm) and 0.4 (hvt), before there were notes and manifests (sections
//! 0, 4 and 5).
//!
//! The transport is that of [`crate::hypercall`]; from number 4 on the numbers mean something else,
//! and most structures differ. Devices have no names: there is one network interface and one disk
//! at most. WALLTIME, PUTS and HALT have the same structures as later ([`crate::hypercall`]).
//! Results are 0 or [`FAILED`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Hypercall numbers; 0 is reserved. Section A1.
pub mod number {
    #![allow(missing_docs, reason = "each names a structure")]
    pub const WALLTIME: u32 = 1;
    pub const PUTS: u32 = 2;
    pub const POLL: u32 = 3;
    pub const BLKINFO: u32 = 4;
    pub const BLKWRITE: u32 = 5;
    pub const BLKREAD: u32 = 6;
    pub const NETINFO: u32 = 7;
    pub const NETWRITE: u32 = 8;
    pub const NETREAD: u32 = 9;
    pub const HALT: u32 = 10;
}

/// Result of a call that failed or had nothing to return.
pub const FAILED: i32 = -1;

/// Bytes in a sector; block calls count in sectors.
pub const SECTOR_SIZE: u64 = 512;

/// The boot info block. A guest of 0.2 reads the first 24 bytes only. Section 5.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct BootInfo {
    /// Bytes of memory the guest may use, counted from address 0.
    pub mem_size: u64,
    /// First address after the loaded image, page aligned.
    pub kernel_end: u64,
    /// Address of the NUL-terminated command line.
    pub cmdline: u64,
    /// Frequency of the guest's cycle counter in Hz; never zero.
    pub tsc_freq: u64,
}
crate::assert_layout!(BootInfo, 32, mem_size: 0, kernel_end: 8, cmdline: 16, tsc_freq: 24);

/// POLL: sleep until the network interface has a frame or the timeout expires.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Poll {
    /// IN: longest sleep in nanoseconds; 0 returns immediately.
    pub timeout_nsecs: u64,
    /// OUT: more than 0 when a frame is waiting.
    pub ret: i32,
    /// Padding; neither read nor written.
    pub pad: u32,
}
crate::assert_layout!(Poll, 16, timeout_nsecs: 0, ret: 8);

/// BLKINFO: properties of the disk.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BlkInfo {
    /// OUT: [`SECTOR_SIZE`].
    pub sector_size: u64,
    /// OUT: whole sectors on the disk.
    pub num_sectors: u64,
    /// OUT: 1, the disk can be written.
    pub rw: i32,
    /// Padding; neither read nor written.
    pub pad: u32,
}
crate::assert_layout!(BlkInfo, 24, sector_size: 0, num_sectors: 8, rw: 16);

/// BLKWRITE and BLKREAD: move bytes between the disk and guest memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Blk {
    /// IN: offset on the disk in sectors.
    pub sector: u64,
    /// IN: address of the buffer.
    pub data: u64,
    /// IN: number of bytes. The tender must leave it unchanged.
    pub len: u64,
    /// OUT: 0 or [`FAILED`].
    pub ret: i32,
    /// Padding; neither read nor written.
    pub pad: u32,
}
crate::assert_layout!(Blk, 32, sector: 0, data: 8, len: 16, ret: 24);

/// NETINFO: hardware address of the network interface. The tender writes these 6 bytes and no more.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NetInfo {
    /// OUT: the address.
    pub mac: [u8; 6],
}
crate::assert_layout!(NetInfo, 6, mac: 0);

/// NETWRITE and NETREAD: send or receive one Ethernet frame, its 14-byte header included.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Net {
    /// IN: address of the buffer.
    pub data: u64,
    /// IN: length of the frame (write) or of the buffer (read) in bytes. OUT of a successful read:
    /// the frame's length.
    pub len: u64,
    /// OUT: 0 or [`FAILED`].
    pub ret: i32,
    /// Padding; neither read nor written.
    pub pad: u32,
}
crate::assert_layout!(Net, 24, data: 0, len: 8, ret: 16);
