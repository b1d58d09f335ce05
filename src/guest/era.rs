//! Eras of the hvt interface: a unikernel outlives the tender that it was built with, so every interface since 2018 is
//! spoken. Which one, is found once from the file, and is a value from then on; what differs is in the tables here
//! and in [`crate::guest::hypercall`], not in conditions elsewhere. Section 0 of `docs/hvt-abi.md`.

use crate::memory::Access;

/// An interface that unikernels speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// Solo5 0.3 (ukvm) and 0.4 (hvt): no notes, no manifest, unnamed devices.
    Legacy,
    /// ABI version 1: Solo5 0.6 and 0.7.
    Abi1,
    /// ABI version 2: Solo5 0.8 and later, with and without the shared network ring.
    Abi2,
}

/// What differs between eras outside of hypercalls.
#[derive(Debug)]
pub struct Rules {
    /// What the guest may do with its boot pages, from boot info up to the image.
    pub boot_pages: Access,
    /// Which address of a program header counts.
    pub load_address: LoadAddress,
    /// Which pages a segment takes up.
    pub segment_pages: SegmentPages,
    /// Whether a segment may be writable and executable at once.
    pub writable_code: bool,
    /// What becomes of a last part of a disk that is no whole sector.
    pub disk_tail: DiskTail,
    /// Whether guests may know the shared network ring.
    pub net_ring: bool,
    /// Memory that the guest's own runtime insists on beside the image, in bytes.
    pub least_heap: u64,
}

/// The address of a program header that a segment is loaded at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadAddress {
    /// `p_vaddr`.
    Virtual,
    /// `p_paddr`.
    Physical,
}

/// Which pages a segment takes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentPages {
    /// Those between its ends, aligned as it asks: linked for the purpose.
    Aligned,
    /// Those that it touches: linked by whatever linker, whose alignment says nothing about pages.
    Touched,
}

/// What becomes of a last part of a disk that is no whole sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskTail {
    /// The disk is refused.
    Refused,
    /// The guest gets whole sectors only.
    Ignored,
    /// The guest may use it, byte by byte.
    Kept,
}

const LEGACY: Rules = Rules {
    boot_pages: Access::ReadWrite,
    load_address: LoadAddress::Physical,
    segment_pages: SegmentPages::Touched,
    writable_code: true,
    disk_tail: DiskTail::Ignored,
    net_ring: false,
    least_heap: 512 * 1024,
};

const ABI1: Rules = Rules {
    boot_pages: Access::Read,
    load_address: LoadAddress::Virtual,
    segment_pages: SegmentPages::Aligned,
    writable_code: false,
    disk_tail: DiskTail::Kept,
    net_ring: false,
    least_heap: 512 * 1024,
};

const ABI2: Rules = Rules {
    disk_tail: DiskTail::Refused,
    net_ring: true,
    ..ABI1
};

impl Era {
    /// All of them, the oldest first.
    pub const ALL: [Era; 3] = [Era::Legacy, Era::Abi1, Era::Abi2];

    /// What differs in this era.
    pub fn rules(self) -> &'static Rules {
        match self {
            Era::Legacy => &LEGACY,
            Era::Abi1 => &ABI1,
            Era::Abi2 => &ABI2,
        }
    }

    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Era::Legacy => "legacy",
            Era::Abi1 => "abi1",
            Era::Abi2 => "abi2",
        }
    }

    /// The ABI version of its note, if its files have one.
    pub fn abi_version(self) -> Option<u32> {
        match self {
            Era::Legacy => None,
            Era::Abi1 => Some(1),
            Era::Abi2 => Some(2),
        }
    }

    /// The versions of Solo5 that build for it.
    pub fn releases(self) -> &'static str {
        match self {
            Era::Legacy => "Solo5 0.3 to 0.4",
            Era::Abi1 => "Solo5 0.6 to 0.7",
            Era::Abi2 => "Solo5 0.8 and later",
        }
    }
}

impl std::fmt::Display for Era {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.abi_version() {
            Some(version) => write!(f, "ABI version {version} ({})", self.releases()),
            None => write!(f, "no ABI version ({})", self.releases()),
        }
    }
}
