//! Loading of segments and their access.

use super::elf::{R, W, X};
use super::*;
use crate::report::message::Message;

/// Returns the rule that program header `index` violates after `change`.
fn rule(index: usize, change: impl FnOnce(&mut Program)) -> &'static str {
    let mut start = 0;
    match refused(|elf| {
        change(&mut elf.programs[index]);
        start = elf.programs[index].vaddr;
    }) {
        Error::Segment {
            index: found,
            start: address,
            rule,
            ..
        } if found == index && address == start => rule,
        other => panic!("{other:?}"),
    }
}

/// Returns the segment of program header `index` after `change`.
fn loaded(index: usize, change: impl FnOnce(&mut Program)) -> Segment {
    let image = accepted(|elf| change(&mut elf.programs[index]));
    let number = [TEXT, RODATA, DATA, BSS]
        .iter()
        .position(|&known| known == index)
        .expect("a loaded segment");
    image.segments[number].clone()
}

const DESCENDING: &str = "segments must ascend and not share pages";
const OVERFLOW: &str = "its addresses overflow";
const UNALIGNED: &str = "it must start and end on separate 4 KiB pages";
const TOO_LOW: &str = "a unikernel starts at 0x100000 or above";
const TOO_HIGH: &str = "it ends above 4 GiB, the largest guest memory";
const BEYOND_FILE: &str = "past the end of the file, which may be truncated";

#[test]
fn text_that_can_be_executed_only_can_be_read_too() {
    assert_eq!(
        loaded(TEXT, |text| text.flags = X).access,
        Access::ReadExecute
    );
    assert_eq!(
        loaded(TEXT, |text| text.flags = X | R).access,
        Access::ReadExecute
    );
}

#[test]
fn every_other_access_is_that_of_the_flags() {
    let access = |flags| loaded(RODATA, |rodata| rodata.flags = flags).access;
    assert_eq!(access(R), Access::Read);
    assert_eq!(access(R | W), Access::ReadWrite);
    assert_eq!(access(W), Access::ReadWrite);
    assert_eq!(access(0), Access::None);
}

#[test]
fn flags_of_the_system_or_the_processor_do_not_matter() {
    assert_eq!(
        loaded(RODATA, |rodata| rodata.flags = R | 0xffff_fff0).access,
        Access::Read
    );
}

#[test]
fn nothing_is_both_writable_and_executable() {
    for flags in [W | X, R | W | X] {
        assert_eq!(
            rule(DATA, |data| data.flags = flags),
            "both writable and executable"
        );
    }
}

#[test]
fn a_violation_is_reported_with_its_position() {
    let error = refused(|elf| elf.programs[DATA].flags = R | W | X);
    assert_eq!(
        Message::of(&error).to_string(),
        "invalid segment 4 (4608 bytes at 0x102000): both writable and executable; copy or rebuild the image"
    );
}

#[test]
fn an_empty_segment_is_skipped_at_any_address() {
    let expected = summary(&accepted(|_| {}));
    for vaddr in [0, 0x100000, 0x104001, u64::MAX] {
        let image = accepted(|elf| {
            let tdata = &mut elf.programs[TDATA];
            (tdata.vaddr, tdata.offset, tdata.flags, tdata.align) = (vaddr, u64::MAX, R | W | X, 3);
        });
        assert_eq!(summary(&image), expected, "{vaddr:#x}");
    }
}

#[test]
fn thread_data_that_is_not_empty_is_a_segment_like_any_other() {
    let image = accepted(|elf| {
        elf.programs[TDATA] = Program::load(R, 0x2880, 0x102000, 0x10);
        elf.programs[DATA].vaddr = 0x103000;
        elf.programs[BSS].vaddr = 0x105000;
    });
    assert_eq!(image.segments.len(), 5);
    assert_eq!(
        (&image.segments[2].memory, image.segments[2].access),
        (&(0x102000..0x102010), Access::Read)
    );
    assert_eq!(rule(TDATA, |tdata| tdata.memsz = 1), TOO_LOW);
}

#[test]
fn bytes_in_the_file_need_as_many_in_memory() {
    let more_in_file = "it has more bytes in the file than in memory";
    assert_eq!(rule(DATA, |data| data.memsz = 0x7f), more_in_file);
    assert_eq!(rule(DATA, |data| data.memsz = 0), more_in_file);
    assert_eq!(rule(DATA, |data| data.filesz = u64::MAX), more_in_file);
    assert_eq!(
        loaded(DATA, |data| data.memsz = 0x80).memory,
        0x102000..0x102080
    );
}

#[test]
fn a_segment_without_bytes_in_the_file_counts_as_memory_of_the_image() {
    let image = accepted(|_| {});
    assert_eq!(image.segments[3].memory, 0x104000..0x106345);
    assert!(image.segments[3].file.is_empty());
    assert_eq!(image.end(), 0x107000);
    assert_eq!(
        accepted(|elf| elf.programs[BSS].memsz = 0x3001).end(),
        0x108000
    );
}

#[test]
fn a_segment_without_bytes_in_the_file_keeps_all_rules_but_the_files() {
    assert_eq!(rule(BSS, |bss| bss.memsz = 1 << 32), TOO_HIGH);
    assert_eq!(rule(BSS, |bss| bss.memsz = u64::MAX), OVERFLOW);
    assert_eq!(rule(BSS, |bss| bss.vaddr = 0x103000), DESCENDING);
    assert_eq!(rule(BSS, |bss| bss.vaddr = 0), TOO_LOW);
    assert_eq!(
        rule(BSS, |bss| bss.flags = R | W | X),
        "both writable and executable"
    );
    assert!(loaded(BSS, |bss| bss.offset = 0x1234_5678).file.is_empty());
}

#[test]
fn bytes_of_the_file_must_be_in_the_file() {
    // The file ends earlier, without the bytes of this segment.
    let size = Elf::hvt().build().len() as u64 - 0x80;
    let last = |data: &mut Program| (data.offset, data.content) = (size - 0x80, Vec::new());
    assert_eq!(loaded(DATA, last).file, size - 0x80..size);
    for offset in [size - 0x7f, size, 1 << 40, u64::MAX - 0x80] {
        assert_eq!(
            rule(DATA, |data| (data.offset, data.content) =
                (offset, Vec::new())),
            BEYOND_FILE,
            "{offset:#x}"
        );
    }
    let overflow = rule(DATA, |data| {
        (data.offset, data.content) = (u64::MAX - 0x7e, Vec::new())
    });
    assert_eq!(overflow, "its file offset overflows");
}

#[test]
fn segments_ascend() {
    let swapped = refused(|elf| elf.programs.swap(TEXT, RODATA));
    assert!(
        matches!(
            swapped,
            Error::Segment {
                index: RODATA,
                rule: DESCENDING,
                start: 0x100000,
                ..
            }
        ),
        "{swapped:?}"
    );
}

#[test]
fn segments_do_not_share_a_byte_or_a_page() {
    assert_eq!(rule(RODATA, |rodata| rodata.vaddr = 0x100000), DESCENDING);
    assert_eq!(rule(RODATA, |rodata| rodata.vaddr = 0x100123), DESCENDING);
    assert_eq!(rule(RODATA, |rodata| rodata.vaddr = 0x100fff), DESCENDING);
    let error = refused(|elf| elf.programs[TEXT].memsz = 0x1001);
    assert!(
        matches!(
            error,
            Error::Segment {
                index: RODATA,
                rule: DESCENDING,
                ..
            }
        ),
        "{error:?}"
    );
    let neighbour = accepted(|elf| elf.programs[TEXT].memsz = 0x1000);
    assert_eq!(neighbour.segments[0].pages, 0x100000..0x101000);
}

#[test]
fn the_alignment_of_one_segment_keeps_the_next_away() {
    let spread = |elf: &mut Elf| elf.programs[TEXT].align = 0x10000;
    let error = refused(spread);
    assert!(
        matches!(
            error,
            Error::Segment {
                index: RODATA,
                rule: DESCENDING,
                ..
            }
        ),
        "{error:?}"
    );
    // Its own alignment also extends a segment down onto the previous one.
    assert_eq!(rule(RODATA, |rodata| rodata.align = 0x2000), DESCENDING);
    let image = accepted(|elf| {
        spread(elf);
        (
            elf.programs[RODATA].vaddr,
            elf.programs[DATA].vaddr,
            elf.programs[BSS].vaddr,
        ) = (0x110000, 0x111000, 0x113000);
    });
    assert_eq!(image.segments[0].pages, 0x100000..0x110000);
    assert_eq!(image.segments[0].memory, 0x100000..0x100123);
}

#[test]
fn alignment_is_a_power_of_two() {
    for align in [3, 0x1001, 0x3000, u64::MAX] {
        assert_eq!(
            rule(DATA, |data| data.align = align),
            "its alignment must be a power of two",
            "{align:#x}"
        );
    }
}

#[test]
fn alignment_0_and_1_mean_none() {
    for align in [0, 1] {
        let aligned = |data: &mut Program| (data.align, data.memsz) = (align, 0x1000);
        assert_eq!(loaded(DATA, aligned).pages, 0x102000..0x103000);
        // Then neither its start nor its end is on a page.
        assert_eq!(rule(DATA, |data| data.align = align), UNALIGNED);
        let skewed =
            |data: &mut Program| (data.align, data.vaddr, data.memsz) = (align, 0x102800, 0x800);
        assert_eq!(rule(DATA, skewed), UNALIGNED);
    }
}

#[test]
fn alignment_below_a_page_leaves_the_pages_to_the_addresses() {
    assert_eq!(rule(DATA, |data| data.align = 0x800), UNALIGNED);
    assert_eq!(
        rule(DATA, |data| (data.align, data.memsz) = (0x800, 0x1800)),
        UNALIGNED
    );
    assert_eq!(
        loaded(DATA, |data| (data.align, data.memsz) = (0x800, 0x1801)).pages,
        0x102000..0x104000
    );
}

#[test]
fn a_segment_need_not_start_on_a_page_if_its_alignment_makes_up_for_it() {
    let segment = loaded(DATA, |data| (data.vaddr, data.memsz) = (0x102345, 0x100));
    assert_eq!(segment.memory, 0x102345..0x102445);
    assert_eq!(segment.pages, 0x102000..0x103000);
}

#[test]
fn absurd_alignment_is_refused() {
    assert_eq!(rule(DATA, |data| data.align = 0x20_0000), TOO_LOW);
    assert_eq!(rule(DATA, |data| data.align = 1 << 32), TOO_LOW);
    assert_eq!(rule(DATA, |data| data.align = 1 << 63), TOO_LOW);
    let huge = |bss: &mut Program| (bss.align, bss.vaddr) = (1 << 63, 1 << 63);
    assert_eq!(rule(BSS, huge), OVERFLOW);
}

#[test]
fn nothing_lies_below_the_image_base() {
    assert_eq!(rule(TEXT, |text| text.vaddr = 0), TOO_LOW);
    assert_eq!(rule(TEXT, |text| text.vaddr = 0xff000), TOO_LOW);
    assert_eq!(rule(TEXT, |text| text.vaddr = 0xfffff), TOO_LOW);
    assert_eq!(rule(TEXT, |text| text.align = 0x20_0000), TOO_LOW);
    assert_eq!(accepted(|_| {}).segments[0].pages.start, IMAGE_BASE);
}

#[test]
fn nothing_lies_above_4_gib() {
    let last = loaded(BSS, |bss| bss.memsz = (1 << 32) - bss.vaddr);
    assert_eq!(last.pages, 0x104000..1 << 32);
    assert_eq!(
        rule(BSS, |bss| bss.memsz = (1 << 32) - bss.vaddr + 1),
        TOO_HIGH
    );
    assert_eq!(rule(BSS, |bss| bss.vaddr = 1 << 32), TOO_HIGH);
    assert_eq!(rule(BSS, |bss| bss.vaddr = 1 << 40), TOO_HIGH);
}

#[test]
fn addresses_that_overflow_are_refused() {
    assert_eq!(rule(BSS, |bss| bss.vaddr = u64::MAX), OVERFLOW);
    assert_eq!(rule(BSS, |bss| bss.vaddr = u64::MAX - 0x2345), OVERFLOW);
    assert_eq!(rule(BSS, |bss| bss.memsz = u64::MAX - bss.vaddr), OVERFLOW);
    assert_eq!(
        rule(BSS, |bss| bss.memsz = u64::MAX - bss.vaddr - 0xfff),
        TOO_HIGH
    );
}

#[test]
fn a_file_without_segments_has_nothing_to_load() {
    let error = refused(|elf| elf.programs.drain(TEXT..=BSS).for_each(drop));
    assert!(matches!(error, Error::NothingToLoad), "{error:?}");
    assert_eq!(
        Message::of(&error).to_string(),
        "no segment to load; copy or rebuild the image"
    );
}

#[test]
fn program_headers_of_other_kinds_do_not_matter() {
    let expected = summary(&accepted(|_| {}));
    let without = accepted(|elf| {
        elf.programs
            .retain(|program| [elf::PT_LOAD, elf::PT_NOTE].contains(&program.kind))
    });
    assert_eq!(summary(&without), expected);
    let absurd = accepted(|elf| {
        for program in elf
            .programs
            .iter_mut()
            .filter(|program| ![elf::PT_LOAD, elf::PT_NOTE].contains(&program.kind))
        {
            (program.vaddr, program.memsz, program.filesz, program.align) =
                (7, u64::MAX, u64::MAX, 3);
        }
    });
    assert_eq!(summary(&absurd), expected);
}

#[test]
fn an_image_needs_room_for_the_smallest_heap() {
    // Ends at 0x107000; 512 KiB more is 0x187000.
    assert_eq!(accepted(|_| {}).least_memory(), 0x20_0000);
    let ending_at =
        |end: u64| accepted(|elf| elf.programs[BSS].memsz = end - 0x104000).least_memory();
    assert_eq!(ending_at(0x18_0000), 0x20_0000);
    assert_eq!(ending_at(0x18_0001), 0x40_0000);
    assert_eq!(ending_at(1 << 32), (1 << 32) + 0x20_0000);
}

#[test]
fn memory_without_a_segment_is_writable() {
    let image = accepted(|elf| elf.programs[BSS].vaddr = 0x200000);
    let mapping = |range, access| Mapping { range, access };
    assert_eq!(
        image.mappings(0x400000),
        [
            mapping(0x100000..0x101000, Access::ReadExecute),
            mapping(0x101000..0x102000, Access::Read),
            mapping(0x102000..0x104000, Access::ReadWrite),
            mapping(0x104000..0x200000, Access::ReadWrite),
            mapping(0x200000..0x203000, Access::ReadWrite),
            mapping(0x203000..0x400000, Access::ReadWrite),
        ]
    );
}

#[test]
fn an_image_that_starts_higher_leaves_memory_below_it_to_the_guest() {
    let image = accepted(|elf| {
        elf.programs.drain(RODATA..=BSS);
        elf.programs[TEXT].vaddr = 0x200000;
        elf.entry = 0x200000;
    });
    let mapping = |range, access| Mapping { range, access };
    assert_eq!(
        image.mappings(0x201000),
        [
            mapping(0x100000..0x200000, Access::ReadWrite),
            mapping(0x200000..0x201000, Access::ReadExecute)
        ]
    );
}
