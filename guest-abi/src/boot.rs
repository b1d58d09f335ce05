//! The guest's state at its start: the boot info block and the addresses around it (sections A2, A3
//! and 5).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Address of the boot info block; the guest gets it in its first argument register. Section 5.
pub const BOOT_INFO_ADDRESS: u64 = 0x10000;

/// Lowest load address of a unikernel; everything below belongs to the tender. Section 6.2.
pub const IMAGE_BASE: u64 = 0x10_0000;

/// Room for the command line, its terminating NUL included, in bytes. Section 5.
pub const CMDLINE_SIZE: usize = 8192;

/// Largest guest memory: an argument structure's address must fit in 32 bits. Section A4.
pub const MAX_MEMORY: u64 = 0x1_0000_0000;

/// Guest memory is a multiple of this many bytes, and at least this many. Section A4.
pub const MEMORY_GRANULE: u64 = 0x20_0000;

/// The boot info block, in the 56-byte form that every guest of ABI 1 and 2 understands. Section 5.
///
/// A guest built before the shared ring reads the first 40 bytes only. A later one reads all 56
/// unconditionally, so the long form with zeroes is safe for both.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct BootInfo {
    /// Bytes of memory the guest may use, counted from address 0.
    pub mem_size: u64,
    /// First address after the loaded image, page aligned.
    pub kernel_end: u64,
    /// Frequency of the guest's cycle counter (CNTVCT_EL0 or TSC) in Hz; never zero.
    pub cpu_cycle_freq: u64,
    /// Address of the NUL-terminated command line.
    pub cmdline: u64,
    /// Address of the manifest with its properties filled in.
    pub mft: u64,
    /// Bit 0: the shared network ring is offered. Section 11.1.
    pub host_features: u32,
    /// Reserved for the guest; never read.
    pub guest_features: u32,
    /// Address of the shared network ring, or 0. Section 11.2.
    pub net_ring: u64,
}
crate::assert_layout!(BootInfo, 56, mem_size: 0, kernel_end: 8, cpu_cycle_freq: 16, cmdline: 24, mft: 32,
    host_features: 40, guest_features: 44, net_ring: 48);
