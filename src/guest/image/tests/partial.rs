//! Known parts of refused files.

use guest_abi::note::target;

use super::elf::{R, W, X, abi};
use super::*;

fn partial(change: impl FnOnce(&mut Elf)) -> PartialImage {
    let mut elf = Elf::hvt();
    change(&mut elf);
    assert!(
        Image::parse(elf.build().as_slice()).is_err(),
        "a valid file is parsed whole"
    );
    PartialImage::of(elf.build().as_slice())
}

#[test]
fn a_unikernel_of_another_target_shows_everything() {
    let partial = partial(|elf| elf.programs[ABI] = Program::note(0x6000, abi(target::SPT, 7)));
    assert_eq!(
        (partial.machine, partial.entry),
        (Some(Machine::Aarch64), Some(0x100020))
    );
    let abi = partial.abi.expect("a note");
    assert_eq!((target_name(abi.target).as_str(), abi.version), ("spt", 7));
    assert_eq!(partial.manifest.expect("a manifest").devices().len(), 2);
    assert_eq!(partial.segments.len(), 4);
}

#[test]
fn segments_are_shown_as_they_are() {
    let broken =
        partial(|elf| (elf.programs[DATA].flags, elf.programs[BSS].vaddr) = (R | W | X, u64::MAX));
    assert_eq!(
        (broken.segments[2].access, broken.segments[2].memory.clone()),
        (Access::All, 0x102000..0x103200)
    );
    assert_eq!(broken.segments[3].memory, u64::MAX..u64::MAX);
}

#[test]
fn a_broken_part_does_not_hide_the_others() {
    let no_notes = partial(|elf| elf.programs[ABI].filesz = 1);
    assert!(no_notes.abi.is_none() && no_notes.manifest.is_none() && no_notes.segments.len() == 4);
    let no_manifest = partial(|elf| elf.programs[elf::MFT].content[24] = 9);
    assert!(no_manifest.abi.is_some() && no_manifest.manifest.is_none());
    let no_headers = partial(|elf| elf.phoff = u64::MAX);
    assert!(no_headers.machine.is_some() && no_headers.segments.is_empty());
}

#[test]
fn of_a_file_that_is_not_elf_nothing_is_known() {
    for bytes in [b"".as_slice(), b"#!/bin/sh\n", b"\x7fELF"] {
        let partial = PartialImage::of(bytes);
        assert!(
            partial.machine.is_none() && partial.entry.is_none() && partial.segments.is_empty()
        );
    }
}
