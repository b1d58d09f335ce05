//! The kind of file, and the ELF header.

use super::elf::{R, W, X};
use super::*;
use crate::report::message::Message;

fn message_of(bytes: &[u8]) -> String {
    Image::parse(bytes)
        .map_err(Message::from)
        .expect_err("no unikernel")
        .to_string()
}

#[test]
fn a_valid_file_is_accepted() {
    let image = accepted(|_| {});
    assert_eq!(image.machine, Machine::Aarch64);
    assert_eq!(image.era, Era::Abi2);
    assert_eq!(image.entry, 0x100020);
    let segment = |memory: Range<u64>, file: Range<u64>, pages: Range<u64>, access| Segment {
        memory,
        file,
        pages,
        access,
    };
    assert_eq!(
        image.segments,
        [
            segment(
                0x100000..0x100123,
                0x1000..0x1123,
                0x100000..0x101000,
                Access::ReadExecute
            ),
            segment(
                0x101000..0x101800,
                0x2000..0x2800,
                0x101000..0x102000,
                Access::Read
            ),
            segment(
                0x102000..0x103200,
                0x2800..0x2880,
                0x102000..0x104000,
                Access::ReadWrite
            ),
            segment(
                0x104000..0x106345,
                0..0,
                0x104000..0x107000,
                Access::ReadWrite
            ),
        ]
    );
    let devices: Vec<(usize, &str)> = image
        .manifest
        .as_ref()
        .unwrap()
        .devices()
        .iter()
        .map(|device| (device.handle, device.name.as_str()))
        .collect();
    assert_eq!(devices, [(1, "data"), (2, "service")]);
}

#[test]
fn both_machines_are_known() {
    assert_eq!(accepted(|elf| elf.machine = 183).machine, Machine::Aarch64);
    assert_eq!(accepted(|elf| elf.machine = 62).machine, Machine::X86_64);
}

#[test]
fn an_empty_file_is_reported_as_empty() {
    assert!(matches!(Image::parse([].as_slice()), Err(Error::Empty)));
    assert_eq!(
        message_of(&[]),
        "is empty; give an hvt unikernel (an ELF file, usually NAME.hvt)"
    );
}

#[test]
fn the_kind_of_a_file_that_is_not_elf_is_reported() {
    let table: [(&[u8], &str); 14] = [
        (b"#!/bin/sh\nexit 0\n", "a script"),
        (
            b"\x1f\x8b\x08\0\0\0\0\0",
            "gzip-compressed (gunzip it first)",
        ),
        (b"\xfd7zXZ\0\0", "xz-compressed (unxz it first)"),
        (b"\x28\xb5\x2f\xfd\x04", "zstd-compressed (unzstd it first)"),
        (b"BZh91AY&SY", "bzip2-compressed (bunzip2 it first)"),
        (b"PK\x03\x04\x14\0", "a zip archive (unzip it first)"),
        (b"MZ\x90\0", "a PE program"),
        (b"QFI\xfb\0\0\0\x03", "a qcow2 disk image"),
        (b"vhdxfile\0", "a vhdx disk image"),
        (b"!<arch>\ndebian", "an ar archive"),
        (b"To whom it may concern,\n\tgreetings\n", "a text file"),
        (b"x", "a text file"),
        (&[0; 4096], "of an unknown kind"),
        (b"\x7fELG\x02\x01\x01", "of an unknown kind"),
    ];
    for (bytes, kind) in table {
        assert!(
            matches!(Image::parse(bytes), Err(Error::NotElf(found)) if found == kind),
            "{kind}: {bytes:?}"
        );
    }
    assert_eq!(
        message_of(b"#!/bin/sh\n"),
        "is a script, not an ELF file; give an hvt unikernel (usually NAME.hvt)"
    );
}

#[test]
fn windows_and_foreign_texts_are_texts_too() {
    for bytes in [
        b"[Unit]\r\nDescription=x\r\n".as_slice(),
        "Grüße\n".as_bytes(),
    ] {
        assert!(
            matches!(Image::parse(bytes), Err(Error::NotElf("a text file"))),
            "{bytes:?}"
        );
    }
    // The inspected part ends in the middle of a character.
    let long = "é".repeat(40).into_bytes();
    assert!(matches!(
        Image::parse(&long[1..]),
        Err(Error::NotElf("of an unknown kind"))
    ));
    let long = [b"x", "é".repeat(40).as_bytes()].concat();
    assert!(matches!(
        Image::parse(long.as_slice()),
        Err(Error::NotElf("a text file"))
    ));
}

#[test]
fn an_elf_header_needs_64_bytes() {
    let file = Elf::hvt().build();
    for size in 4..64 {
        let error = Image::parse(&file[..size]).expect_err("half a header");
        assert!(
            matches!(
                error,
                Error::Truncated {
                    what: "ELF header",
                    needed: 64
                }
            ),
            "{size}: {error}"
        );
    }
    assert_eq!(
        message_of(&file[..10]),
        "is truncated: its ELF header needs 64 bytes; copy it again"
    );
}

#[test]
fn only_64_bit_little_endian_files_are_unikernels() {
    for (index, value) in [(4, 0), (4, 1), (4, 3), (5, 0), (5, 2), (5, 3)] {
        assert!(
            matches!(refused(|elf| elf.ident[index] = value), Error::Class),
            "ident[{index}] = {value}"
        );
    }
}

#[test]
fn the_rest_of_the_identification_is_ignored() {
    // EI_VERSION, OSABI (OpenBSD's, for one), ABI version, padding.
    for index in 6..16 {
        accepted(|elf| elf.ident[index] = 12);
    }
}

#[test]
fn other_processors_are_named() {
    let error = refused(|elf| elf.machine = 243);
    assert!(
        matches!(
            error,
            Error::Machine {
                number: 243,
                name: "RISCV"
            }
        ),
        "{error:?}"
    );
    assert_eq!(
        Message::of(&error).to_string(),
        "unsupported architecture (RISCV, ELF machine 243); build it for aarch64 or x86_64"
    );
    for machine in [0, 3, 40, 0xffff] {
        assert!(
            matches!(refused(|elf| elf.machine = machine), Error::Machine { number, .. } if number == machine)
        );
    }
}

#[test]
fn only_static_executables_are_unikernels() {
    for (kind, name) in [(0, "NONE"), (1, "REL"), (3, "DYN"), (4, "CORE")] {
        let error = refused(|elf| elf.kind = kind);
        assert!(
            matches!(error, Error::Type(found) if found == name),
            "{kind}: {error:?}"
        );
    }
    assert!(matches!(refused(|elf| elf.kind = 0xfe00), Error::Type(_)));
}

#[test]
fn header_fields_have_their_only_valid_value() {
    let field = |change: fn(&mut Elf, u16), value: u16| match refused(|elf| change(elf, value)) {
        Error::Field {
            field,
            value: found,
            rule,
        } => (field, found, rule),
        other => panic!("{other:?}"),
    };
    let version = |elf: &mut Elf, value: u16| elf.version = value.into();
    let ehsize = |elf: &mut Elf, value| elf.ehsize = value;
    let phentsize = |elf: &mut Elf, value| elf.phentsize = value;
    let phnum = |elf: &mut Elf, value| elf.phnum = Some(value);
    for value in [0, 2, 0xffff] {
        assert_eq!(
            field(version, value),
            ("e_version", value.into(), "must be 1")
        );
    }
    for value in [0, 52, 63, 65, 0xffff] {
        assert_eq!(
            field(ehsize, value),
            ("e_ehsize", value.into(), "must be 64")
        );
    }
    for value in [0, 32, 55, 57, 0xffff] {
        assert_eq!(
            field(phentsize, value),
            ("e_phentsize", value.into(), "must be 56")
        );
    }
    for value in [0, 65, 0xffff] {
        assert_eq!(
            field(phnum, value),
            ("e_phnum", value.into(), "must be 1 to 64")
        );
    }
    assert_eq!(
        Message::from(refused(|elf| elf.version = 2)).to_string(),
        "invalid ELF header: e_version is 2, must be 1; copy or rebuild the image"
    );
}

#[test]
fn up_to_64_program_headers_are_accepted() {
    // The others have the type PT_NULL.
    let image = accepted(|elf| {
        let unused = Program {
            kind: 0,
            ..Program::load(R | W | X, u64::MAX, u64::MAX, 0)
        };
        elf.programs.resize(64, unused);
    });
    assert_eq!(image.segments.len(), 4);
}

#[test]
fn the_program_header_table_may_lie_anywhere_in_the_file() {
    let mut file = Elf {
        phoff: 0x5000,
        ..Elf::hvt()
    }
    .build();
    let table = file[64..64 + 11 * 56].to_vec();
    file[64..64 + 11 * 56].fill(0xff);
    file.resize(0x5000, 0);
    file.extend(table);
    let image = Image::parse(file.as_slice()).expect("a good image");
    assert_eq!(summary(&image), summary(&accepted(|_| {})));
    file.pop();
    let error = Image::parse(file.as_slice()).expect_err("a cut table");
    assert!(
        matches!(
            error,
            Error::Truncated {
                what: "program header table",
                needed: 0x5268
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_program_header_table_beyond_the_end_is_a_truncated_file() {
    for phoff in [0x10_0000, 1 << 63, u64::MAX - 10, u64::MAX] {
        let error = refused(|elf| elf.phoff = phoff);
        assert!(
            matches!(
                error,
                Error::Truncated {
                    what: "program header table",
                    ..
                }
            ),
            "{phoff:#x}: {error:?}"
        );
    }
}

#[test]
fn section_headers_do_not_matter() {
    for shoff in [0, 1, u64::MAX] {
        assert_eq!(
            summary(&accepted(|elf| elf.shoff = shoff)),
            summary(&accepted(|_| {}))
        );
    }
}

#[test]
fn the_entry_must_lie_in_executable_bytes() {
    for entry in [0x100000, 0x100122] {
        assert_eq!(accepted(|elf| elf.entry = entry).entry, entry);
    }
    // Below the image, just after the text, in its last page, in other segments, past everything.
    for entry in [
        0,
        0xfffff,
        0x100123,
        0x100fff,
        0x101000,
        0x102000,
        0x104000,
        0x107000,
        1 << 32,
        u64::MAX,
    ] {
        assert!(
            matches!(refused(|elf| elf.entry = entry), Error::Entry(found) if found == entry),
            "{entry:#x}"
        );
    }
    assert_eq!(
        Message::from(refused(|elf| elf.entry = 0x102000)).to_string(),
        "entry point 0x102000 is in no executable segment; copy or rebuild the image"
    );
}

#[test]
fn a_file_cut_anywhere_is_refused_or_still_whole() {
    let file = Elf::hvt().build();
    let whole = summary(&Image::parse(file.as_slice()).expect("a good image"));
    let needed = file.len() - elf::TRAILER;
    for size in 0..file.len() {
        match Image::parse(&file[..size]) {
            Ok(image) => assert!(
                size >= needed && summary(&image) == whole,
                "{size} of {} bytes",
                file.len()
            ),
            Err(error) => assert!(size < needed, "{size} of {} bytes: {error}", file.len()),
        }
    }
}
