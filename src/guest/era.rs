//! Eras of the hvt interface. A unikernel outlives the tender that it was built with, so this
//! tender supports every interface since 2018. The era is determined once, from the file, and
//! passed on as a value. Differences are in the tables here and in [`crate::guest::hypercall`], not
//! in conditions elsewhere. Section 0 of `docs/hvt-abi.md`.

use crate::memory::Access;

/// Version of the interface between unikernel and tender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// Solo5 0.3 (ukvm) and 0.4 (hvt): no notes, no manifest, unnamed devices.
    Legacy,
    /// ABI version 1: Solo5 0.6 and 0.7.
    Abi1,
    /// ABI version 2: Solo5 0.8 and later, with and without the shared network ring.
    Abi2,
}

/// Differences between eras, except hypercalls.
#[derive(Debug)]
pub struct Rules {
    /// The guest's access to its boot pages, from boot info up to the image.
    pub boot_pages: Access,
    /// The address field of a program header that applies.
    pub load_address: LoadAddress,
    /// The pages of a segment.
    pub segment_pages: SegmentPages,
    /// Whether a segment may be both writable and executable.
    pub writable_code: bool,
    /// Handling of an incomplete sector at the end of a disk.
    pub disk_tail: DiskTail,
    /// Whether guests may use the shared network ring.
    pub net_ring: bool,
    /// Bytes of memory that the guest's runtime needs in addition to the image.
    pub least_heap: u64,
}

/// The field of a program header with the load address of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadAddress {
    /// `p_vaddr`.
    Virtual,
    /// `p_paddr`.
    Physical,
}

/// The pages of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentPages {
    /// From its start to its end, as the segment aligns them: linked by Solo5's linker script.
    Aligned,
    /// All pages that it touches: linked by any linker, whose alignment is unrelated to pages.
    Touched,
}

/// Handling of an incomplete sector at the end of a disk.
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
    /// All eras, the oldest first.
    pub const ALL: [Era; 3] = [Era::Legacy, Era::Abi1, Era::Abi2];

    /// Returns the rules of this era.
    pub fn rules(self) -> &'static Rules {
        match self {
            Era::Legacy => &LEGACY,
            Era::Abi1 => &ABI1,
            Era::Abi2 => &ABI2,
        }
    }

    /// Returns its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Era::Legacy => "legacy",
            Era::Abi1 => "abi1",
            Era::Abi2 => "abi2",
        }
    }

    /// Returns the ABI version of its note, if its files have one.
    pub fn abi_version(self) -> Option<u32> {
        match self {
            Era::Legacy => None,
            Era::Abi1 => Some(1),
            Era::Abi2 => Some(2),
        }
    }

    /// Returns the versions of Solo5 that build for it.
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
