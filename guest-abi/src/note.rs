//! The two ELF notes that identify a unikernel: ABI1 (target and version) and MFT1 (its manifest).
//! Section 6.4.
//!
//! A note's content starts at a multiple of the note's own alignment, counted from the note's first
//! byte, and its `descsz` includes the padding before it. Hence the explicit `pad` in [`Mft1`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::manifest;

/// Owner of both notes, its NUL included.
pub const NAME: [u8; 6] = *b"Solo5\0";

/// Type of the ABI note ("ABI1").
pub const TYPE_ABI1: u32 = 0x3149_4241;

/// Type of the manifest note ("MFT1").
pub const TYPE_MFT1: u32 = 0x3154_464d;

/// Alignment of an ABI note's content within the note.
pub const ABI1_ALIGN: usize = 4;

/// Alignment of a manifest note's content within the note.
pub const MFT1_ALIGN: usize = 8;

/// Target of a unikernel, as an ABI note names it.
pub mod target {
    #![allow(missing_docs, reason = "the names of Solo5's targets")]
    pub const HVT: u32 = 1;
    pub const SPT: u32 = 2;
    pub const VIRTIO: u32 = 3;
    pub const MUEN: u32 = 4;
    pub const GENODE: u32 = 5;
    pub const XEN: u32 = 6;
}

/// Header of every note: the ELF note header with the owner's name, padded to 4 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// Length of the owner's name with its NUL: 6.
    pub namesz: u32,
    /// Bytes after this header, inner padding included.
    pub descsz: u32,
    /// [`TYPE_ABI1`] or [`TYPE_MFT1`].
    pub kind: u32,
    /// [`NAME`], padded to 8 bytes.
    pub name: [u8; 8],
}
crate::assert_layout!(Header, 20, namesz: 0, descsz: 4, kind: 8, name: 12);

impl Header {
    const fn new(kind: u32, descsz: usize) -> Header {
        Header {
            namesz: NAME.len() as u32,
            descsz: descsz as u32,
            kind,
            name: *b"Solo5\0\0\0",
        }
    }
}

/// Content of an ABI note.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Abi {
    /// One of [`target`].
    pub target: u32,
    /// ABI version, 1 or 2 so far.
    pub version: u32,
    /// Zero.
    pub reserved: [u32; 2],
}
crate::assert_layout!(Abi, 16, target: 0, version: 4);

/// A whole ABI note, for a guest to place in a separate note section.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Abi1 {
    /// The note's header.
    pub header: Header,
    /// The note's content.
    pub abi: Abi,
}
crate::assert_layout!(Abi1, 36, header: 0, abi: 20);

impl Abi1 {
    /// Returns the note of an hvt unikernel of the given ABI version.
    pub const fn hvt(version: u32) -> Abi1 {
        Abi1 {
            header: Header::new(TYPE_ABI1, size_of::<Abi>()),
            abi: Abi {
                target: target::HVT,
                version,
                reserved: [0; 2],
            },
        }
    }
}

/// A whole manifest note with `N` entries, the reserved first one included, for a guest to place in
/// a separate note section. Aligned to 8 bytes, as its content must be.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Mft1<const N: usize> {
    /// The note's header.
    pub header: Header,
    /// Brings the content to [`MFT1_ALIGN`]; counted in `descsz`.
    pub pad: u32,
    /// Version and number of entries.
    pub manifest: manifest::Header,
    /// The entries.
    pub entries: [manifest::Entry; N],
}
crate::assert_layout!(Mft1<1>, 136, header: 0, pad: 20, manifest: 24, entries: 32);

impl<const N: usize> Mft1<N> {
    /// Returns the note that declares `entries`; the first must be [`manifest::Entry::reserved`].
    pub const fn new(entries: [manifest::Entry; N]) -> Mft1<N> {
        assert!(N >= 1 && N <= manifest::MAX_ENTRIES);
        assert!(entries[0].kind == manifest::RESERVED_FIRST);
        let descsz = 4 + size_of::<manifest::Header>() + N * size_of::<manifest::Entry>();
        Mft1 {
            header: Header::new(TYPE_MFT1, descsz),
            pad: 0,
            manifest: manifest::Header {
                version: manifest::VERSION,
                entries: N as u32,
            },
            entries,
        }
    }
}
