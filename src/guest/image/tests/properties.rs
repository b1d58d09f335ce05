//! Properties of every file, however broken.

use proptest::prelude::*;
use proptest::sample::Index;

use super::elf::{PT_LOAD, R, W, X};
use super::*;
use crate::memory::PAGE_SIZE;
use guest_abi::boot::MAX_MEMORY;

/// Checks what other code relies on in an image.
fn check(image: &Image, file_size: u64) {
    let mut end = IMAGE_BASE;
    for segment in &image.segments {
        assert!(
            segment.pages.start >= end && segment.pages.end > segment.pages.start,
            "{segment:x?}"
        );
        assert!(
            segment.pages.start % PAGE_SIZE == 0 && segment.pages.end % PAGE_SIZE == 0,
            "{segment:x?}"
        );
        assert!(
            segment.pages.start <= segment.memory.start && segment.memory.end <= segment.pages.end,
            "{segment:x?}"
        );
        assert!(
            segment.file.end - segment.file.start <= segment.memory.end - segment.memory.start,
            "{segment:x?}"
        );
        assert!(
            segment.file.is_empty() || segment.file.end <= file_size,
            "{segment:x?}"
        );
        end = segment.pages.end;
    }
    assert!(!image.segments.is_empty());
    assert_eq!(image.end(), end);
    assert!(end <= MAX_MEMORY);
    assert!(image.least_memory() > end && image.least_memory() % MEMORY_GRANULE == 0);
    assert!(
        image
            .manifest
            .iter()
            .flat_map(Manifest::devices)
            .all(|device| (1..64).contains(&device.handle))
    );
    for size in [image.least_memory(), MAX_MEMORY] {
        check_mappings(image, size.min(MAX_MEMORY));
    }
}

/// Checks that every page from the base to `size` has one access, and that the pages of a segment
/// have that segment's.
fn check_mappings(image: &Image, size: u64) {
    let mut next = IMAGE_BASE;
    for mapping in image.mappings(size) {
        assert_eq!(mapping.range.start, next, "a gap");
        assert!(mapping.range.end > next && mapping.range.end % PAGE_SIZE == 0);
        let owner = image
            .segments
            .iter()
            .find(|segment| segment.pages.contains(&next));
        let between = if image.has_writable_code() {
            Access::All
        } else {
            Access::ReadWrite
        };
        assert_eq!(
            mapping.access,
            owner.map_or(between, |segment| segment.access)
        );
        assert!(
            image.era == Era::Legacy || mapping.access != Access::All,
            "code that can be written: {mapping:x?}"
        );
        let entered = mapping.range.contains(&image.entry);
        assert!(
            !entered || mapping.access.is_executable(),
            "the entry is in {mapping:x?}"
        );
        next = mapping.range.end;
    }
    assert_eq!(next, size);
}

/// Where to change a file: two thirds of the offsets are in the headers or the notes, where it
/// matters most.
fn place(index: Index, file: &[u8]) -> usize {
    match index.index(3) {
        0 => index.index(64 + 11 * 56),
        1 => 0x2000 + index.index(0x200),
        _ => index.index(file.len()),
    }
}

/// A value for a field: near a limit more often than not.
fn field() -> impl Strategy<Value = u64> {
    let limits = [
        0,
        1,
        0xfff,
        0x1000,
        0x10_0000,
        0x10_7000,
        0x20_0000,
        1 << 32,
        1 << 63,
        u64::MAX,
    ];
    let near = (proptest::sample::select(limits.to_vec()), -3i64..4)
        .prop_map(|(limit, by)| limit.wrapping_add_signed(by));
    prop_oneof![near.clone(), near, any::<u64>(), 0u64..0x20_0000]
}

/// Segments that ascend page by page, the first with text in it, before some fields are spoiled.
fn programs() -> impl Strategy<Value = Vec<Program>> {
    let flags = prop_oneof![8 => proptest::sample::select(vec![X, R | X, R, R | W]), 1 => 0u32..8];
    let piece = (
        0u64..3,
        0u64..0x20,
        0u64..0x3000,
        0u64..0x800,
        12u32..14,
        flags,
    );
    let spoilt = proptest::collection::vec((any::<Index>(), 0..7, field()), 0..3);
    (proptest::collection::vec(piece, 1..6), spoilt).prop_map(|(pieces, spoilt)| {
        let mut end = IMAGE_BASE;
        let mut programs = Vec::new();
        for (gap, within, memsz, filesz, align, flags) in pieces {
            let vaddr = end.next_multiple_of(1 << align) + gap * PAGE_SIZE + within;
            let filesz = filesz.min(memsz);
            let flags = if programs.is_empty() { X } else { flags };
            let place = Program {
                filesz,
                memsz,
                align: 1 << align,
                ..Program::load(flags, 0x1000, vaddr, 0)
            };
            programs.push(place);
            end = (vaddr + memsz).next_multiple_of(1 << align);
        }
        for (index, field, value) in spoilt {
            let program = index.get_mut(&mut programs);
            match field {
                0 => program.offset = value,
                1 => program.vaddr = value,
                2 => program.filesz = value,
                3 => program.memsz = value,
                4 => program.align = value,
                5 => program.align = 1 << (value % 24),
                _ => program.kind = elf::PT_NOTE,
            }
        }
        programs
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_make_an_error_or_an_image_that_keeps_the_rules(
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..12),
        size in any::<Index>(),
        cut in proptest::bool::weighted(0.1),
    ) {
        let mut file = Elf::hvt().build();
        for (index, byte) in changes {
            let place = place(index, &file);
            file[place] = byte;
        }
        if cut {
            file.truncate(size.index(file.len()));
        }
        if let Ok(image) = Image::parse(file.as_slice()) {
            check(&image, file.len() as u64);
        }
    }

    #[test]
    fn any_program_headers_make_an_error_or_an_image_that_keeps_the_rules(
        programs in programs(),
        entry in proptest::option::weighted(0.3, 0x10_0000u64..0x11_0000),
    ) {
        let entry = entry.unwrap_or(programs[0].vaddr);
        let mut elf = Elf { entry, ..Elf::hvt() };
        elf.programs.splice(TEXT..=BSS, programs);
        let file = elf.build();
        if let Ok(image) = Image::parse(file.as_slice()) {
            check(&image, file.len() as u64);
        }
    }

    #[test]
    fn any_program_headers_of_old_make_an_error_or_an_image_that_keeps_the_rules(
        programs in programs(),
        entry in proptest::option::weighted(0.3, 0x10_0000u64..0x11_0000),
    ) {
        let entry = entry.unwrap_or(programs[0].vaddr);
        let mut elf = Elf { entry, ..Elf::legacy(elf::LEGACY_STRINGS) };
        // The strings stay in the file, loaded from an offset without an address.
        elf.programs[0].kind = elf::PT_TLS;
        let strings = Program { kind: PT_LOAD, paddr: 1 << 31, ..elf.programs[0].clone() };
        elf.programs.truncate(1);
        elf.programs.extend(programs.into_iter().map(|program| Program { paddr: program.vaddr, ..program }));
        elf.programs.push(strings);
        let file = elf.build();
        if let Ok(image) = Image::parse(file.as_slice()) {
            prop_assert_eq!(image.era, Era::Legacy);
            check(&image, file.len() as u64);
        }
    }

    #[test]
    fn the_two_notes_are_found_wherever_they_are_among_others(
        others in proptest::collection::vec((1usize..40, proptest::collection::vec(1u8.., 0..60), any::<u32>()), 0..12),
        places in any::<[Index; 2]>(),
        gaps in proptest::collection::vec(0usize..4, 14),
    ) {
        let other = |(name, description, kind): (usize, Vec<u8>, u32)| {
            let sizes = [name as u32, description.len() as u32, kind].map(u32::to_le_bytes).concat();
            let padded = |mut bytes: Vec<u8>| { bytes.resize(bytes.len().next_multiple_of(4), 0); bytes };
            [sizes, padded(vec![b'x'; name]), padded(description)].concat()
        };
        let mut notes: Vec<Vec<u8>> = others.into_iter().map(other).collect();
        let good = Elf::hvt();
        for (place, index) in places.into_iter().zip([elf::ABI, elf::MFT]) {
            notes.insert(place.index(notes.len() + 1), good.programs[index].content.clone());
        }
        let content = gaps.into_iter().zip(notes).flat_map(|(gap, note)| [vec![0; 4 * gap], note].concat()).collect();
        let merged = accepted(|elf| {
            elf.programs[elf::ABI] = Program::note(0x6000, content);
            elf.programs.remove(elf::MFT);
        });
        prop_assert_eq!(summary(&merged), summary(&accepted(|_| {})));
    }

    #[test]
    fn a_file_of_noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..400), elf: bool) {
        let mut file = noise;
        if elf && file.len() >= 6 {
            file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        }
        prop_assert!(Image::parse(file.as_slice()).is_err());
    }
}

#[test]
fn the_good_image_keeps_the_rules() {
    check(&accepted(|_| {}), u64::MAX);
}
