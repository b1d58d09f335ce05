//! The ABI and manifest notes.

use guest_abi::manifest::{Entry, MAX_ENTRIES, NET_BASIC};
use guest_abi::note::{TYPE_ABI1, TYPE_MFT1, target};

use super::elf::{MFT, PT_NOTE, abi, abi_description, mft, note};
use super::*;
use crate::guest::manifest::{self, tests::manifest};
use crate::report::message::Message;

const NAME: &[u8; 8] = b"Solo5\0\0\0";

/// Replaces the note of program header `index`, at an offset where the file has room for it.
fn with_note(index: usize, content: Vec<u8>) -> impl FnOnce(&mut Elf) {
    move |elf| elf.programs[index] = Program::note(0x6000, content)
}

/// Returns the rule that the note of program header `index` violates after `change`.
fn rule(index: usize, change: impl FnOnce(&mut Elf)) -> &'static str {
    match refused(change) {
        Error::Note { index: found, rule } if found == index => rule,
        other => panic!("{other:?}"),
    }
}

fn abi_note(content: &[u8]) -> Vec<u8> {
    note(NAME, TYPE_ABI1, content)
}

#[test]
fn a_file_without_abi_note_is_an_ordinary_program() {
    let error = refused(|elf| drop(elf.programs.remove(ABI)));
    assert!(matches!(error, Error::NoAbiNote), "{error:?}");
    assert_eq!(
        Message::of(&error).to_string(),
        "no Solo5 note found: an ordinary program, not a unikernel; pass the .hvt file"
    );
    assert!(matches!(
        refused(|elf| elf.programs.retain(|program| program.kind != PT_NOTE)),
        Error::NoAbiNote
    ));
}

#[test]
fn a_file_without_manifest_note_is_no_whole_unikernel() {
    let error = refused(|elf| drop(elf.programs.remove(MFT)));
    assert!(matches!(error, Error::NoManifest), "{error:?}");
    assert_eq!(
        Message::of(&error).to_string(),
        "no manifest note (MFT1), which must list the devices; rebuild the image"
    );
}

#[test]
fn other_targets_are_named() {
    let table = [
        (target::SPT, "spt"),
        (target::VIRTIO, "virtio"),
        (target::MUEN, "muen"),
        (target::GENODE, "genode"),
        (target::XEN, "xen"),
        (0, "unknown (0)"),
        (7, "unknown (7)"),
        (u32::MAX, "unknown (4294967295)"),
    ];
    for (number, name) in table {
        // Any version: each target has its own version numbers.
        for version in [1, 2, 3] {
            let error = refused(with_note(ABI, abi(number, version)));
            assert!(
                matches!(&error, Error::Target(found) if found == name),
                "{name}: {error:?}"
            );
        }
    }
    let error = refused(with_note(ABI, abi(target::SPT, 2)));
    assert_eq!(
        Message::of(&error).to_string(),
        "Solo5 unikernel for the spt target; rebuild it for hvt"
    );
}

#[test]
fn the_target_is_reported_before_the_manifest_is_checked() {
    let error = refused(|elf| {
        elf.programs[ABI] = Program::note(0x6000, abi(target::VIRTIO, 2));
        elf.programs.remove(MFT);
    });
    assert!(matches!(error, Error::Target(_)), "{error:?}");
}

#[test]
fn versions_1_and_2_are_eras() {
    for (version, era) in [(1, Era::Abi1), (2, Era::Abi2)] {
        let image = accepted(with_note(ABI, abi(target::HVT, version)));
        assert_eq!(
            (image.era, image.era.abi_version(), image.evidence),
            (era, Some(version), None)
        );
        assert_eq!(image.manifest.expect("a manifest").devices().len(), 2);
    }
}

#[test]
fn other_versions_are_refused() {
    for version in [0, 3, u32::MAX] {
        let error = refused(with_note(ABI, abi(target::HVT, version)));
        assert!(
            matches!(error, Error::AbiVersion(found) if found == version),
            "{version}: {error:?}"
        );
    }
    assert_eq!(
        Message::from(refused(with_note(ABI, abi(target::HVT, 3)))).to_string(),
        "needs hvt ABI version 3; supported: 1, 2 and Solo5 0.3 to 0.4; upgrade tender"
    );
}

#[test]
fn a_note_segment_holds_a_note_header() {
    for size in 0..12 {
        for index in [ABI, MFT] {
            let shorter = rule(index, |elf| elf.programs[index].filesz = size);
            assert_eq!(shorter, "it is shorter than a note's header", "{size}");
        }
    }
}

#[test]
fn a_note_without_room_for_our_name_has_another_owner() {
    for size in 12..20 {
        assert!(
            matches!(
                refused(|elf| elf.programs[ABI].filesz = size),
                Error::NoAbiNote
            ),
            "{size}"
        );
        assert!(
            matches!(
                refused(|elf| elf.programs[MFT].filesz = size),
                Error::NoManifest
            ),
            "{size}"
        );
    }
}

#[test]
fn a_note_of_another_owner_or_kind_is_ignored() {
    let good = abi_description(target::HVT, 2);
    let changed = |index: usize, byte: u8| {
        let mut content = abi_note(&good);
        content[index] = byte;
        refused(with_note(ABI, content))
    };
    // Length of the name, the name with its NUL, the kind.
    for (index, byte) in [
        (0, 5),
        (0, 7),
        (3, 1),
        (12, b's'),
        (16, b'6'),
        (17, b' '),
        (8, 0),
        (11, 0),
    ] {
        assert!(
            matches!(changed(index, byte), Error::NoAbiNote),
            "byte {index} = {byte}"
        );
    }
}

#[test]
fn the_padding_of_the_name_does_not_matter() {
    let mut content = abi(target::HVT, 2);
    content[18..20].fill(0xff);
    accepted(with_note(ABI, content));
}

#[test]
fn the_order_of_the_notes_does_not_matter() {
    let swapped = accepted(|elf| elf.programs.swap(ABI, MFT));
    assert_eq!(summary(&swapped), summary(&accepted(|_| {})));
}

#[test]
fn all_notes_of_a_segment_are_read() {
    let expected = summary(&accepted(|_| {}));
    let build_id = note(b"GNU\0\x14\0\0\0", 3, &[0xab; 16]);
    let second = [
        note(b"OpenBSD\0", 1, &[0; 4]),
        build_id,
        abi(target::HVT, 2),
    ]
    .concat();
    assert_eq!(summary(&accepted(with_note(ABI, second))), expected);
    let both = [abi(target::HVT, 2), abi(target::XEN, 9)].concat();
    assert_eq!(
        rule(ABI, with_note(ABI, both)),
        "it is the second ABI1 note"
    );
}

/// As linkers merge them: in either order, with and without zeros that align the manifest, in one
/// segment or in two that contain the same bytes.
#[test]
fn both_notes_may_share_a_segment() {
    let expected = summary(&accepted(|_| {}));
    let manifest = mft(&Elf::hvt().programs[MFT].content[24..]);
    let orders = [
        [abi(target::HVT, 2), manifest.clone()].concat(),
        [abi(target::HVT, 2), vec![0; 4], manifest.clone()].concat(),
        [abi(target::HVT, 2), vec![0; 92], manifest.clone()].concat(),
        [manifest, abi(target::HVT, 2), vec![0; 9]].concat(),
    ];
    for content in orders {
        let merged = accepted(|elf| {
            elf.programs[ABI] = Program::note(0x6000, content.clone());
            elf.programs.remove(MFT);
        });
        assert_eq!(summary(&merged), expected);
        let twice = accepted(|elf| {
            elf.programs[ABI] = Program::note(0x6000, content.clone());
            elf.programs[MFT] = Program::note(0x6000, content);
        });
        assert_eq!(summary(&twice), expected);
    }
}

#[test]
fn a_segment_of_many_notes_is_searched_to_a_limit() {
    let after = |count: usize| {
        let many = note(b"GNU\0\x14\0\0\0", 3, &[0xab; 12]).repeat(count);
        with_note(ABI, [many, abi(target::HVT, 2)].concat())
    };
    accepted(after(2045));
    assert!(matches!(refused(after(2048)), Error::NoAbiNote));
    // Even if each is small.
    for word in [[0; 4], [0xff; 4], [1, 0, 0, 0]] {
        let note = word.repeat(1 << 20);
        assert!(matches!(refused(with_note(ABI, note)), Error::NoAbiNote));
    }
}

#[test]
fn a_second_note_of_a_kind_is_refused() {
    let twice = |index: usize| {
        rule(11, |elf| {
            let copy = elf.programs[index].content.clone();
            elf.programs.push(Program::note(0x6000, copy));
        })
    };
    assert_eq!(twice(ABI), "it is the second ABI1 note");
    assert_eq!(twice(MFT), "it is the second MFT1 note");
    assert_eq!(
        Message::from(refused(|elf| elf
            .programs
            .push(Program::note(0x6000, abi(target::HVT, 2)))))
        .to_string(),
        "malformed note in program header 11: it is the second ABI1 note; copy or rebuild the image"
    );
}

#[test]
fn an_abi_note_has_16_bytes_at_least() {
    let whole = abi_description(target::HVT, 2);
    for size in 1..16 {
        assert_eq!(
            rule(ABI, with_note(ABI, abi_note(&whole[..size]))),
            "an ABI1 note has 16 bytes",
            "{size}"
        );
    }
}

#[test]
fn an_abi_note_has_32_bytes_at_most() {
    let mut content = abi_description(target::HVT, 2);
    content.resize(32, 0xff);
    accepted(with_note(ABI, abi_note(&content)));
    content.push(0);
    assert_eq!(
        rule(ABI, with_note(ABI, abi_note(&content))),
        "its size is out of bounds"
    );
}

#[test]
fn a_note_has_some_content() {
    assert_eq!(
        rule(ABI, with_note(ABI, abi_note(&[]))),
        "its size is out of bounds"
    );
    assert_eq!(
        rule(MFT, with_note(MFT, note(NAME, TYPE_MFT1, &[]))),
        "its size is out of bounds"
    );
}

#[test]
fn a_manifest_note_of_less_than_its_padding_has_no_content() {
    for size in 1..4 {
        assert_eq!(
            rule(MFT, with_note(MFT, note(NAME, TYPE_MFT1, &vec![0; size]))),
            "it has no content",
            "{size}"
        );
    }
    // Only padding: a manifest of no bytes.
    let error = refused(with_note(MFT, note(NAME, TYPE_MFT1, &[0; 4])));
    assert!(
        matches!(error, Error::Manifest(manifest::Error::Short { size: 0 })),
        "{error:?}"
    );
}

#[test]
fn a_manifest_starts_24_bytes_into_its_note() {
    let content = manifest(&[Entry::declare("net0", NET_BASIC)]);
    let mut padded = mft(&content);
    // The padding is ignored.
    padded[20..24].fill(0xff);
    assert_eq!(
        accepted(with_note(MFT, padded))
            .manifest
            .unwrap()
            .to_bytes([]),
        content
    );
    // Without padding, the first field of the manifest would be taken for padding.
    let error = refused(with_note(MFT, note(NAME, TYPE_MFT1, &content)));
    assert!(matches!(error, Error::Manifest(_)), "{error:?}");
}

#[test]
fn a_manifest_note_has_room_for_64_entries_and_no_more() {
    let names: Vec<String> = (1..MAX_ENTRIES)
        .map(|number| format!("net{number}"))
        .collect();
    let entries: Vec<Entry> = names
        .iter()
        .map(|name| Entry::declare(name, NET_BASIC))
        .collect();
    let content = manifest(&entries);
    let largest = mft(&content);
    assert_eq!(largest.len(), 20 + 6668);
    assert_eq!(
        accepted(with_note(MFT, largest))
            .manifest
            .unwrap()
            .devices()
            .len(),
        63
    );
    let larger = mft(&[content, vec![0]].concat());
    assert_eq!(
        rule(MFT, with_note(MFT, larger)),
        "its size is out of bounds"
    );
    let mut absurd = mft(&manifest(&entries));
    absurd[4..8].fill(0xff);
    assert_eq!(
        rule(MFT, with_note(MFT, absurd)),
        "its size is out of bounds"
    );
}

#[test]
fn a_note_is_not_longer_than_its_segment() {
    for index in [ABI, MFT] {
        let shorter = rule(index, |elf| elf.programs[index].filesz -= 1);
        assert_eq!(shorter, "it is longer than its segment");
        accepted(|elf| elf.programs[index].filesz += 1);
    }
}

#[test]
fn a_note_beyond_the_end_is_a_truncated_file() {
    let size = Elf::hvt().build().len() as u64;
    for offset in [size, 1 << 40, 1 << 63] {
        let error = refused(|elf| {
            (elf.programs[ABI].offset, elf.programs[ABI].content) = (offset, Vec::new())
        });
        assert!(
            matches!(error, Error::Truncated { what: "note", .. }),
            "{offset:#x}: {error:?}"
        );
    }
    for offset in [u64::MAX - 19, u64::MAX] {
        let overflows = rule(ABI, |elf| {
            (elf.programs[ABI].offset, elf.programs[ABI].content) = (offset, Vec::new())
        });
        assert_eq!(overflows, "its file offset overflows");
    }
}

#[test]
fn an_invalid_manifest_is_reported_with_its_rule() {
    let mut content = manifest(&[]);
    content[0] = 9;
    let error = refused(with_note(MFT, mft(&content)));
    assert!(
        matches!(error, Error::Manifest(manifest::Error::Version(9))),
        "{error:?}"
    );
    assert_eq!(
        Message::of(&error).to_string(),
        "invalid manifest: the manifest has version 9; only version 1 exists; fix manifest.json and rebuild"
    );
}

#[test]
fn a_program_with_another_note_is_not_a_unikernel() {
    // The note of every Linux program: a GNU build ID.
    let error = refused(|elf| {
        elf.programs.truncate(8);
        elf.programs.push(Program::note(
            0x6000,
            note(b"GNU\0\x14\0\0\0", 3, &[0xab; 20]),
        ));
    });
    assert!(matches!(error, Error::NoAbiNote), "{error:?}");
}
