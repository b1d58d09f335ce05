//! The arithmetic of segments: every combination of values at and around its limits, compared with
//! the same rules in 128 bits, where nothing overflows.

use guest_abi::boot::MAX_MEMORY;

use super::super::segments as image_segments;
use super::*;
use crate::memory::PAGE_SIZE;

const FILE_SIZE: u64 = 0x3000;

const ADDRESSES: [u64; 12] = [
    0,
    IMAGE_BASE - 1,
    IMAGE_BASE,
    IMAGE_BASE + 1,
    IMAGE_BASE + PAGE_SIZE,
    MAX_MEMORY - PAGE_SIZE,
    MAX_MEMORY - 1,
    MAX_MEMORY,
    1 << 63,
    u64::MAX - PAGE_SIZE,
    u64::MAX - 1,
    u64::MAX,
];
const MEMORY_SIZES: [u64; 9] = [
    0,
    1,
    PAGE_SIZE - 1,
    PAGE_SIZE,
    PAGE_SIZE + 1,
    MAX_MEMORY - IMAGE_BASE,
    MAX_MEMORY,
    1 << 63,
    u64::MAX,
];
const FILE_SIZES: [u64; 7] = [0, 1, PAGE_SIZE, FILE_SIZE, FILE_SIZE + 1, 1 << 63, u64::MAX];
const OFFSETS: [u64; 7] = [
    0,
    1,
    FILE_SIZE - 1,
    FILE_SIZE,
    FILE_SIZE + 1,
    u64::MAX - PAGE_SIZE,
    u64::MAX,
];
const ALIGNS: [u64; 10] = [
    0,
    1,
    2,
    3,
    PAGE_SIZE / 2,
    PAGE_SIZE,
    2 * PAGE_SIZE,
    IMAGE_BASE,
    1 << 63,
    u64::MAX,
];

/// Returns the pages that a segment takes, if it is valid.
fn pages(header: &ProgramHeader, align: u64) -> Option<Range<u128>> {
    let [address, memory, file] = [header.p_vaddr, header.p_memsz, header.p_filesz].map(u128::from);
    let (align, file_end) = (u128::from(align), u128::from(header.p_offset) + file);
    let (start, end) = (
        address / align * align,
        (address + memory).div_ceil(align) * align,
    );
    let is_page = |address: u128| address % u128::from(PAGE_SIZE) == 0;
    let keeps_the_rules = header.p_align.max(1).is_power_of_two()
        && memory >= file
        && file_end <= u64::MAX.into()
        && (file == 0 || file_end <= FILE_SIZE.into())
        && start >= IMAGE_BASE.into()
        && end <= MAX_MEMORY.into()
        && is_page(start)
        && is_page(end);
    keeps_the_rules.then_some(start..end)
}

fn check(header: &ProgramHeader, era: Era, align: u64) {
    let read = image_segments::read(std::slice::from_ref(header), FILE_SIZE, era.rules());
    let is_empty = header.p_memsz == 0 && header.p_filesz == 0;
    let Some(expected) = pages(header, align).filter(|_| !is_empty) else {
        return assert!(read.is_err(), "{header:x?} {read:x?}");
    };
    let [segment] = &read.unwrap_or_else(|error| panic!("{header:x?}: {error}"))[..] else {
        panic!("{header:x?}")
    };
    assert_eq!(
        u128::from(segment.pages.start)..segment.pages.end.into(),
        expected,
        "{header:x?}"
    );
    assert_eq!(
        segment.memory,
        header.p_vaddr..header.p_vaddr + header.p_memsz
    );
    assert_eq!(
        segment.file,
        header.p_offset..header.p_offset + header.p_filesz
    );
}

#[test]
fn every_combination_of_limits_is_checked_correctly() {
    for p_vaddr in ADDRESSES {
        for p_memsz in MEMORY_SIZES {
            for p_filesz in FILE_SIZES {
                for p_offset in OFFSETS {
                    for p_align in ALIGNS {
                        let header = ProgramHeader {
                            p_type: program_header::PT_LOAD,
                            p_flags: program_header::PF_R,
                            p_offset,
                            p_vaddr,
                            p_paddr: p_vaddr,
                            p_filesz,
                            p_memsz,
                            p_align,
                        };
                        check(&header, Era::Abi2, p_align.max(1));
                        check(&header, Era::Legacy, PAGE_SIZE);
                    }
                }
            }
        }
    }
}
