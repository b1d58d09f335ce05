//! The initial contents of guest memory: segments, page tables, boot info.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;

use guest_abi::boot::{BOOT_INFO_ADDRESS, IMAGE_BASE};

use crate::arch::{Architecture, Native};
use crate::devices::ring;
use crate::guest::boot_info::{self, BootFacts};
use crate::guest::image::{self, Image, Segment};
use crate::memory::{Access, GuestAddress, GuestMemory, Mapping};
use crate::outcome;

/// Most segments that are mapped from the file; a linker makes four.
const MAPPINGS: usize = 8;

/// Returns the access rights of each page of guest memory. Sections A3 and B3.
fn mappings(image: &Image, size: u64, ring: bool) -> Vec<Mapping> {
    let boot_pages = image.era.rules().boot_pages;
    let ring_pages = if ring { Access::ReadWrite } else { boot_pages };
    let mut mappings = vec![
        Mapping {
            range: 0..BOOT_INFO_ADDRESS,
            access: Access::None,
        },
        Mapping {
            range: BOOT_INFO_ADDRESS..ring::ADDRESS,
            access: boot_pages,
        },
        Mapping {
            range: ring::ADDRESS..ring::END,
            access: ring_pages,
        },
        Mapping {
            range: ring::END..IMAGE_BASE,
            access: boot_pages,
        },
    ];
    mappings.extend(image.mappings(size));
    mappings
}

/// Writes the initial contents of guest memory and its page tables. Makes `write` and `buffer`
/// reject ranges that the guest may not write. If `shared`, maps whole pages of the image from the
/// file, and returns their host addresses.
pub(crate) fn fill(
    memory: &mut GuestMemory,
    (file, shared): (&File, bool),
    image: &Image,
    facts: &BootFacts,
) -> Result<Vec<Range<usize>>, outcome::Error> {
    let mappings = mappings(image, memory.size(), facts.net_ring != 0);
    let mut pages = Vec::new();
    for segment in &image.segments {
        log::debug!(
            "segment {:#x?}: {:?}, from {:#x?} of the file",
            segment.memory,
            segment.access,
            segment.file
        );
        // Each mapping has a length in the sandbox's rules.
        let shared = shared && pages.len() < MAPPINGS;
        let mapped = load(memory, (file, shared), segment)?;
        pages.extend((!mapped.is_empty()).then_some(mapped));
    }
    for Mapping { range, access } in &mappings {
        log::trace!("page tables: {range:#x?}: {access:?}");
    }
    Native::build_tables(memory, &mappings)?;
    memory.place(
        GuestAddress(BOOT_INFO_ADDRESS),
        &boot_info::to_bytes(image.era, facts),
    )?;
    memory.protect(mappings);
    Ok(pages)
}

/// Loads a segment. Bytes that the file does not fill are zero, because guest memory is fresh.
/// Returns the host addresses of the pages that are mapped from the file.
fn load(
    memory: &GuestMemory,
    (file, shared): (&File, bool),
    segment: &Segment,
) -> Result<Range<usize>, outcome::Error> {
    let (file, start) = (file.as_fd(), segment.memory.start);
    let end = start + (segment.file.end - segment.file.start);
    let offset = |addr| segment.file.start + (addr - start);
    let mapped = if shared {
        memory
            .map(start, end - start, file, segment.file.start)?
            .map_err(image::Error::Io)?
    } else {
        start..start
    };
    for Range { start, end } in [start..mapped.start, mapped.end..end] {
        if start < end {
            memory
                .load(GuestAddress(start), end - start, file, offset(start))?
                .map_err(image::Error::Io)?;
        }
    }
    let host = |addr| (memory.host_address() + addr) as usize;
    Ok(host(mapped.start)..host(mapped.end))
}
