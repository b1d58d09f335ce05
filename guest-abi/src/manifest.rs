//! The manifest: the list of devices that a unikernel declares. The tender fills in the properties
//! of each (section 7).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The only manifest version.
pub const VERSION: u32 = 1;

/// Most entries a manifest can have, the reserved first one included.
pub const MAX_ENTRIES: usize = 64;

/// Bytes of a name field; a name is at most one shorter.
pub const NAME_SIZE: usize = 68;

/// Entry type of a block device.
pub const BLOCK_BASIC: u32 = 1;

/// Entry type of a network device.
pub const NET_BASIC: u32 = 2;

/// Type of entry 0, and lowest of the types that are not devices.
pub const RESERVED_FIRST: u32 = 0x4000_0000;

/// Header before the entries.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Header {
    /// [`VERSION`].
    pub version: u32,
    /// Number of entries that follow: 1 to [`MAX_ENTRIES`].
    pub entries: u32,
}
crate::assert_layout!(Header, 8, version: 0, entries: 4);

/// One entry. Its index is the device's handle; entry 0 is [`RESERVED_FIRST`] with an empty name.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Entry {
    /// Name of the device, padded with NUL.
    pub name: [u8; NAME_SIZE],
    /// [`BLOCK_BASIC`], [`NET_BASIC`] or a reserved type.
    pub kind: u32,
    /// A [`BlockProperties`] or [`NetProperties`], set by the tender.
    pub properties: [u8; 16],
    /// For the tender's use; a guest ignores it and a careful tender leaves it zero.
    pub host: [u8; 8],
    /// 1 once the tender has attached the device; must be 0 in the file.
    pub attached: u8,
    /// Padding.
    pub pad: [u8; 7],
}
crate::assert_layout!(Entry, 104, name: 0, kind: 68, properties: 72, host: 88, attached: 96);

/// [`Entry::properties`] of a block device.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct BlockProperties {
    /// Size of the device in bytes.
    pub capacity: u64,
    /// Size of a sector in bytes: a power of two, 512 to 32768.
    pub block_size: u16,
    /// Padding.
    pub pad: [u8; 6],
}
crate::assert_layout!(BlockProperties, 16, capacity: 0, block_size: 8);

/// [`Entry::properties`] of a network device.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct NetProperties {
    /// Hardware address.
    pub mac: [u8; 6],
    /// Largest payload of a frame in bytes, without the 14-byte header.
    pub mtu: u16,
    /// Padding.
    pub pad: [u8; 8],
}
crate::assert_layout!(NetProperties, 16, mac: 0, mtu: 6);

impl Entry {
    /// Returns an entry as a unikernel declares it: name and type set, all else zero.
    ///
    /// # Panics
    /// If `name` does not fit; in a constant that is a compile error.
    pub const fn declare(name: &str, kind: u32) -> Entry {
        assert!(name.len() < NAME_SIZE);
        let mut padded = [0; NAME_SIZE];
        let mut i = 0;
        while i < name.len() {
            padded[i] = name.as_bytes()[i];
            i += 1;
        }
        Entry {
            name: padded,
            kind,
            properties: [0; 16],
            host: [0; 8],
            attached: 0,
            pad: [0; 7],
        }
    }

    /// Returns entry 0 of every manifest.
    pub const fn reserved() -> Entry {
        Entry::declare("", RESERVED_FIRST)
    }
}
