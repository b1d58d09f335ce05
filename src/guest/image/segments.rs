//! The segments to load, each checked against the rules of the image's era. Section 6.2 of
//! `docs/hvt-abi.md`.

use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_LOAD, ProgramHeader};
use guest_abi::boot::{IMAGE_BASE, MAX_MEMORY};

use super::{Error, Segment};
use crate::guest::era::{Era, LoadAddress, Rules, SegmentPages};
use crate::memory::{Access, PAGE_SIZE};

/// Returns the segments to load.
pub(super) fn read(
    program_headers: &[ProgramHeader],
    file_size: u64,
    rules: &Rules,
) -> Result<Vec<Segment>, Error> {
    let mut segments = Vec::with_capacity(program_headers.len());
    let mut previous_end = IMAGE_BASE;
    for (index, header) in program_headers.iter().enumerate() {
        // Linkers leave empty segments at address 0 (section 6.3); they load nothing.
        if header.p_type != PT_LOAD || (header.p_memsz == 0 && header.p_filesz == 0) {
            continue;
        }
        let segment =
            segment(header, previous_end, file_size, rules).map_err(|rule| Error::Segment {
                index,
                start: start(header, rules),
                size: header.p_memsz,
                rule,
            })?;
        previous_end = segment.pages.end;
        segments.push(segment);
    }
    if segments.is_empty() {
        return Err(Error::NothingToLoad);
    }
    Ok(segments)
}

/// Returns the segments as the file has them, valid or not.
pub(super) fn unchecked(program_headers: &[ProgramHeader]) -> Vec<Segment> {
    let loaded = program_headers
        .iter()
        .filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0);
    loaded
        .map(|header| {
            let memory = header.p_vaddr..header.p_vaddr.saturating_add(header.p_memsz);
            let file = header.p_offset..header.p_offset.saturating_add(header.p_filesz);
            // Invalid flags are shown as full access.
            let access = access(header.p_flags, Era::Legacy.rules()).unwrap_or(Access::All);
            Segment {
                pages: memory.clone(),
                memory,
                file,
                access,
            }
        })
        .collect()
}

fn start(header: &ProgramHeader, rules: &Rules) -> u64 {
    match rules.load_address {
        LoadAddress::Virtual => header.p_vaddr,
        LoadAddress::Physical => header.p_paddr,
    }
}

/// Checks one segment, which must start at or after `previous_end`; an error is the violated rule.
fn segment(
    header: &ProgramHeader,
    previous_end: u64,
    file_size: u64,
    rules: &Rules,
) -> Result<Segment, &'static str> {
    if !header.p_align.max(1).is_power_of_two() {
        return Err("its alignment must be a power of two");
    }
    let align = match rules.segment_pages {
        SegmentPages::Aligned => header.p_align.max(1),
        SegmentPages::Touched => PAGE_SIZE,
    };
    if header.p_memsz < header.p_filesz {
        return Err("it has more bytes in the file than in memory");
    }
    let file_end = header
        .p_offset
        .checked_add(header.p_filesz)
        .ok_or("its file offset overflows")?;
    if header.p_filesz > 0 && file_end > file_size {
        return Err("past the end of the file, which may be truncated");
    }
    let start = start(header, rules);
    let end = start
        .checked_add(header.p_memsz)
        .ok_or("its addresses overflow")?;
    let first_page = start & !(align - 1);
    let last_page = end
        .checked_next_multiple_of(align)
        .ok_or("its addresses overflow")?;
    if first_page < IMAGE_BASE {
        return Err("a unikernel starts at 0x100000 or above");
    }
    if first_page < previous_end {
        return Err("segments must ascend and not share pages");
    }
    if last_page > MAX_MEMORY {
        return Err("it ends above 4 GiB, the largest guest memory");
    }
    if first_page % PAGE_SIZE != 0 || last_page % PAGE_SIZE != 0 {
        return Err("it must start and end on separate 4 KiB pages");
    }
    Ok(Segment {
        memory: start..end,
        file: header.p_offset..file_end,
        pages: first_page..last_page,
        access: access(header.p_flags, rules)?,
    })
}

/// Text may lack the read flag (section 6.3), yet contain constants: executable segments are
/// readable.
fn access(flags: u32, rules: &Rules) -> Result<Access, &'static str> {
    let has = |flag| flags & flag != 0;
    match (has(PF_R), has(PF_W), has(PF_X)) {
        (_, true, true) if rules.writable_code => Ok(Access::All),
        (_, true, true) => Err("both writable and executable"),
        (_, false, true) => Ok(Access::ReadExecute),
        (_, true, false) => Ok(Access::ReadWrite),
        (true, false, false) => Ok(Access::Read),
        (false, false, false) => Ok(Access::None),
    }
}
