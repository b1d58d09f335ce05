//! The initial contents of guest memory: segments, page tables, boot info.

use std::fs::File;
use std::os::fd::AsFd;

use guest_abi::boot::{BOOT_INFO_ADDRESS, IMAGE_BASE};

use crate::arch::{Architecture, Native};
use crate::devices::ring;
use crate::guest::boot_info::{self, BootFacts};
use crate::guest::image::{self, Image, Segment};
use crate::memory::{Access, GuestAddress, GuestMemory, Mapping};
use crate::outcome;

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

/// Writes the initial contents of guest memory and its page tables, and write-protects what the
/// guest must not write.
pub(crate) fn fill(
    memory: &mut GuestMemory,
    file: &File,
    image: &Image,
    facts: &BootFacts,
) -> Result<(), outcome::Error> {
    let mappings = mappings(image, memory.size(), facts.net_ring != 0);
    load(memory, file, &image.segments)?;
    for Mapping { range, access } in &mappings {
        log::trace!("page tables: {range:#x?}: {access:?}");
    }
    Native::build_tables(memory, &mappings)?;
    memory.place(
        GuestAddress(BOOT_INFO_ADDRESS),
        &boot_info::to_bytes(image.era, facts),
    )?;
    memory.protect(&mappings);
    Ok(())
}

/// Loads the segments. Bytes that the file does not fill are zero, because guest memory is fresh.
fn load(memory: &GuestMemory, file: &File, segments: &[Segment]) -> Result<(), outcome::Error> {
    for segment in segments {
        log::debug!(
            "segment {:#x?}: {:?}, from {:#x?} of the file",
            segment.memory,
            segment.access,
            segment.file
        );
    }
    for segment in segments.iter().filter(|segment| !segment.file.is_empty()) {
        let length = segment.file.end - segment.file.start;
        memory
            .load(
                GuestAddress(segment.memory.start),
                length,
                file.as_fd(),
                segment.file.start,
            )?
            .map_err(image::Error::Io)?;
    }
    Ok(())
}
