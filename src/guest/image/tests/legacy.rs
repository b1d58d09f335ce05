//! Loading of files of Solo5 0.3 and 0.4, which any linker may have laid out.

use super::elf::{CONSTANTS, LEGACY_STRINGS, R, W, X};
use super::*;

const TEXT: usize = 0;
const DATA: usize = 1;

fn parse(change: impl FnOnce(&mut Elf)) -> Result<Image, Error> {
    let mut elf = Elf::legacy(LEGACY_STRINGS);
    change(&mut elf);
    Image::parse(elf.build().as_slice())
}

fn accepted(change: impl FnOnce(&mut Elf)) -> Image {
    parse(change).expect("a good image")
}

fn rule(index: usize, change: impl FnOnce(&mut Program)) -> &'static str {
    match parse(|elf| change(&mut elf.programs[index])).expect_err("a broken image") {
        Error::Segment {
            index: found, rule, ..
        } if found == index => rule,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_file_is_loaded_at_its_physical_addresses() {
    let image = accepted(|_| {});
    let text_end = 0x10_0000 + CONSTANTS - 0x1000 + LEGACY_STRINGS.len() as u64;
    let places: Vec<_> = image
        .segments
        .iter()
        .map(|segment| (segment.memory.clone(), segment.access))
        .collect();
    assert_eq!(
        places,
        [
            (0x10_0000..text_end, Access::ReadExecute),
            (0x10_4000..0x10_5200, Access::ReadWrite),
        ]
    );
    assert_eq!(image.segments[1].pages, 0x10_4000..0x10_6000);
    // Virtual addresses are ignored.
    for vaddr in [0, 0x10_0000, u64::MAX] {
        let same = accepted(|elf| {
            elf.programs
                .iter_mut()
                .for_each(|program| program.vaddr = vaddr)
        });
        assert_eq!(summary(&same), summary(&image));
    }
}

#[test]
fn a_violation_is_reported_with_the_physical_address() {
    let error = parse(|elf| elf.programs[TEXT].paddr = 0x2000).expect_err("too low");
    assert!(
        matches!(error, Error::Segment { start: 0x2000, .. }),
        "{error:?}"
    );
}

#[test]
fn alignment_does_not_affect_pages() {
    let expected = summary(&accepted(|_| {}));
    for align in [0, 1, 8, 0x1_0000, 0x20_0000] {
        let image = accepted(|elf| {
            elf.programs
                .iter_mut()
                .for_each(|program| program.align = align)
        });
        assert_eq!(summary(&image), expected, "{align:#x}");
    }
    assert_eq!(
        rule(DATA, |data| data.align = 3),
        "its alignment must be a power of two"
    );
}

#[test]
fn a_segment_takes_the_pages_that_it_touches() {
    let image =
        accepted(|elf| (elf.programs[DATA].paddr, elf.programs[DATA].memsz) = (0x10_4f80, 0x81));
    assert_eq!(image.segments[1].pages, 0x10_4000..0x10_6000);
    assert_eq!(image.end(), 0x10_6000);
}

#[test]
fn segments_do_not_share_pages() {
    let shared = "segments must ascend and not share pages";
    assert_eq!(rule(DATA, |data| data.paddr = 0x10_3fff), shared);
    assert_eq!(rule(DATA, |data| data.paddr = 0x10_0000), shared);
    let swapped = parse(|elf| elf.programs.swap(TEXT, DATA)).expect_err("descending");
    assert!(
        matches!(swapped, Error::Segment { rule, .. } if rule == shared),
        "{swapped:?}"
    );
}

#[test]
fn the_other_rules_hold_too() {
    assert_eq!(
        rule(TEXT, |text| text.paddr = 0xf_f000),
        "a unikernel starts at 0x100000 or above"
    );
    assert_eq!(
        rule(DATA, |data| data.memsz = 0x7f),
        "it has more bytes in the file than in memory"
    );
    assert_eq!(
        rule(DATA, |data| data.paddr = 1 << 32),
        "it ends above 4 GiB, the largest guest memory"
    );
    assert_eq!(
        rule(DATA, |data| data.paddr = u64::MAX),
        "its addresses overflow"
    );
    let elsewhere = parse(|elf| elf.entry = 0x10_4000).expect_err("an entry in its data");
    assert!(
        matches!(elsewhere, Error::Entry(0x10_4000)),
        "{elsewhere:?}"
    );
}

#[test]
fn separate_code_and_data_get_a_non_executable_heap() {
    let image = accepted(|_| {});
    assert!(!image.has_writable_code());
    let rest = Mapping {
        range: 0x10_6000..0x20_0000,
        access: Access::ReadWrite,
    };
    assert_eq!(image.mappings(0x20_0000).last(), Some(&rest));
}

#[test]
fn mixed_code_and_data_keep_an_executable_heap() {
    for flags in [W | X, R | W | X] {
        let image = accepted(|elf| elf.programs[DATA].flags = flags);
        assert!(image.has_writable_code());
        let mapping = |range, access| Mapping { range, access };
        assert_eq!(
            image.mappings(0x20_0000),
            [
                mapping(0x10_0000..0x10_4000, Access::ReadExecute),
                mapping(0x10_4000..0x10_6000, Access::All),
                mapping(0x10_6000..0x20_0000, Access::All),
            ]
        );
    }
    // A single segment for everything, as some linkers produce with an option.
    let image = accepted(|elf| {
        elf.programs.remove(DATA);
        elf.programs[TEXT].flags = R | W | X;
    });
    assert_eq!(image.segments[0].access, Access::All);
}

#[test]
fn the_stack_header_is_ignored() {
    for flags in [R | W, R | W | X] {
        assert!(!accepted(|elf| elf.programs[2].flags = flags).has_writable_code());
    }
}

#[test]
fn it_needs_512_kib_in_addition_to_the_image() {
    let ending_at =
        |end: u64| accepted(|elf| elf.programs[DATA].memsz = end - 0x10_4000).least_memory();
    assert_eq!(ending_at(0x18_0000), 0x20_0000);
    assert_eq!(ending_at(0x18_0001), 0x40_0000);
}
