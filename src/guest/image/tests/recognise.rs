//! Recognition of files without notes.

use super::super::search::{OVERLAP, PIECE};
use super::elf::{CONSTANTS, LEGACY_STRINGS, R};
use super::*;
use crate::report::message::Message;

const AARCH64: u16 = 183;
const X86_64: u16 = 62;

/// Classifies a file with `constants` in its text.
fn examine(machine: u16, constants: &[u8]) -> Result<Evidence, Error> {
    let elf = Elf {
        machine,
        ..Elf::legacy(constants)
    };
    let image = Image::parse(elf.build().as_slice())?;
    assert_eq!((image.era, image.manifest.is_none()), (Era::Legacy, true));
    Ok(image.evidence.expect("no note, so something else"))
}

fn is_ordinary(machine: u16, constants: &[u8]) -> bool {
    matches!(examine(machine, constants), Err(Error::NoAbiNote))
}

fn instructions(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// `mov xN, #0x50; movk xM, #1, lsl #32; str w0, [xN]`
fn aarch64_halt(n: u32, m: u32) -> Vec<u8> {
    instructions(&[0xd280_0a00 | n, 0xf2c0_0020 | m, 0xb900_0000 | n << 5])
}

/// `mov $0x50a, %edx`, some instructions of one byte, `out %eax, (%dx)`
fn x86_64_halt(between: usize) -> Vec<u8> {
    [
        &[0xba, 0x0a, 0x05, 0, 0],
        vec![0x90; between].as_slice(),
        &[0xef],
        &[0x90; 16],
    ]
    .concat()
}

#[test]
fn the_strings_of_memory_and_clock_identify_a_legacy_unikernel() {
    for machine in [AARCH64, X86_64] {
        assert_eq!(
            examine(machine, LEGACY_STRINGS).expect("a unikernel"),
            Evidence::Strings
        );
        // One of the two is not enough: other programs contain it as well.
        for string in LEGACY_STRINGS.split_inclusive(|&byte| byte == 0) {
            assert!(is_ordinary(machine, string));
        }
    }
}

#[test]
fn strings_count_only_where_they_are_loaded() {
    let mut elf = Elf::legacy(&[]);
    let mut file = elf.build();
    file.extend(LEGACY_STRINGS);
    assert!(matches!(
        Image::parse(file.as_slice()),
        Err(Error::NoAbiNote)
    ));
    // In any part of the file that is loaded.
    elf.programs[1].content[..LEGACY_STRINGS.len()].copy_from_slice(LEGACY_STRINGS);
    assert_eq!(
        Image::parse(elf.build().as_slice())
            .expect("a unikernel")
            .evidence,
        Some(Evidence::Strings)
    );
    elf.programs[1].kind = elf::PT_INTERP;
    assert!(matches!(
        Image::parse(elf.build().as_slice()),
        Err(Error::NoAbiNote)
    ));
}

#[test]
fn halt_instructions_identify_a_legacy_unikernel_without_strings() {
    for register in 0..31 {
        assert_eq!(
            examine(AARCH64, &aarch64_halt(register, register)).expect("a unikernel"),
            Evidence::Code
        );
    }
    for between in 0..12 {
        assert_eq!(
            examine(X86_64, &x86_64_halt(between)).expect("a unikernel"),
            Evidence::Code
        );
    }
}

#[test]
fn other_instructions_identify_nothing() {
    // Of the other architecture; two registers; not adjacent; not at the start of an instruction.
    assert!(is_ordinary(X86_64, &aarch64_halt(0, 0)));
    assert!(is_ordinary(AARCH64, &x86_64_halt(0)));
    assert!(is_ordinary(AARCH64, &aarch64_halt(0, 1)));
    assert!(is_ordinary(
        AARCH64,
        &instructions(&[0xd280_0a00, 0xd503_201f, 0xf2c0_0020])
    ));
    assert!(is_ordinary(
        AARCH64,
        &[&[0, 0], aarch64_halt(0, 0).as_slice(), &[0, 0]].concat()
    ));
    // HALT of 0.6 and later, and the second-last call.
    for number in [0x40, 0x48] {
        assert!(is_ordinary(
            AARCH64,
            &instructions(&[0xd280_0000 | number << 5, 0xf2c0_0020])
        ));
    }
    assert!(is_ordinary(X86_64, &x86_64_halt(12)));
    assert!(is_ordinary(X86_64, &[0xba, 0x08, 0x05, 0, 0, 0xef]));
    assert!(is_ordinary(X86_64, &[0xba, 0x0a, 0x05, 0, 1, 0xef]));
}

/// `mov $0x50a, %edx` may also be line 1290 of a failed assertion, and the bytes after it may look
/// like an OUT.
#[test]
fn a_program_for_an_operating_system_is_ordinary_with_any_instructions() {
    for (machine, halt) in [(AARCH64, aarch64_halt(0, 0)), (X86_64, x86_64_halt(11))] {
        let note = elf::note(b"GNU\0\0\0\0\0", 1, &[0; 16]);
        let interpreter = b"/lib64/ld-linux-x86-64.so.2\0".to_vec();
        for (kind, content) in [
            (elf::PT_NOTE, note),
            (elf::PT_INTERP, interpreter),
            (elf::PT_TLS, vec![0; 16]),
        ] {
            let mut elf = Elf {
                machine,
                ..Elf::legacy(&halt)
            };
            assert_eq!(
                Image::parse(elf.build().as_slice())
                    .expect("a unikernel")
                    .evidence,
                Some(Evidence::Code)
            );
            let offset = elf
                .programs
                .iter()
                .map(|program| program.offset + program.filesz)
                .max()
                .unwrap_or_default();
            elf.programs
                .push(elf::Program::new(kind, R, offset, 0, content));
            assert!(
                matches!(Image::parse(elf.build().as_slice()), Err(Error::NoAbiNote)),
                "{machine} {kind}"
            );
        }
    }
}

/// Evidence is found at every position relative to the ends of the pieces in which the file is
/// read.
#[test]
fn nothing_is_missed_between_two_pieces() {
    let halt = [
        (AARCH64, aarch64_halt(7, 7), 4),
        (X86_64, x86_64_halt(11), 1),
    ];
    let strings = [AARCH64, X86_64].map(|machine| (machine, LEGACY_STRINGS.to_vec(), 1));
    for (machine, pattern, step) in halt.into_iter().chain(strings) {
        let boundary = 0x1000 + PIECE as u64 - CONSTANTS;
        for before in (0..=pattern.len() + OVERLAP).step_by(step) {
            let mut constants = vec![0; boundary as usize - before];
            constants.extend(&pattern);
            constants.extend([0; 100]);
            assert!(
                examine(machine, &constants).is_ok(),
                "{before} bytes before the end of the first piece"
            );
        }
    }
}

#[test]
fn a_multiboot_header_makes_a_virtio_unikernel() {
    let with_magic = |offset: u64| {
        let mut elf = Elf::legacy(LEGACY_STRINGS);
        let start = (offset - 0x1000) as usize;
        elf.programs[0].content[start..start + 4].copy_from_slice(&0x1bad_b002_u32.to_le_bytes());
        Image::parse(elf.build().as_slice())
    };
    for offset in [0x1000, 0x1004, 0x1ffc] {
        assert!(
            matches!(with_magic(offset), Err(Error::Target(target)) if target == "virtio"),
            "{offset:#x}"
        );
    }
    // A boot loader reads whole 32-bit words of the first 8 KiB.
    for offset in [0x1001, 0x1002, 0x1ffd, 0x2000] {
        assert!(with_magic(offset).is_ok(), "{offset:#x}");
    }
}

#[test]
fn ukvm_of_0_2_is_refused_by_its_name() {
    let string = b"Solo5: Clock source: KVM paravirtualized clock\n\0";
    let error = examine(X86_64, string).expect_err("too old");
    assert!(matches!(error, Error::Ukvm), "{error:?}");
    assert!(
        Message::of(&error)
            .to_string()
            .starts_with("ukvm unikernel of Solo5 0.2"),
        "{error}"
    );
}

#[test]
fn a_development_snapshot_or_a_stripped_file_is_refused_by_its_name() {
    let error = examine(X86_64, b"Solo5:   reserved @ (0x0 - 0x%lx)\n\0").expect_err("no release");
    assert!(matches!(error, Error::Snapshot), "{error:?}");
    // Evidence of older versions is ignored: the clock's strings are in every release, and the
    // numbers of hypercalls differed between snapshots before 0.6.
    for other in [
        LEGACY_STRINGS,
        x86_64_halt(0).as_slice(),
        b"Clock source: KVM paravirtualized clock",
    ] {
        let both = [other, b"Solo5:   reserved @"].concat();
        assert!(matches!(examine(X86_64, &both), Err(Error::Snapshot)));
    }
}

#[test]
fn its_own_strings_outweigh_those_of_others() {
    let both = [
        b"Clock source: KVM paravirtualized clock\0".as_slice(),
        LEGACY_STRINGS,
    ]
    .concat();
    assert_eq!(
        examine(X86_64, &both).expect("a unikernel"),
        Evidence::Strings
    );
}

#[test]
fn a_note_outweighs_all_strings() {
    let image = accepted(|elf| {
        let rodata = &mut elf.programs[RODATA].content;
        rodata[0x400..0x400 + LEGACY_STRINGS.len()].copy_from_slice(LEGACY_STRINGS);
    });
    assert_eq!((image.era, image.evidence), (Era::Abi2, None));
    // A manifest alone is a note too: an incomplete unikernel of today, not a complete one of an
    // old era.
    let error = refused(|elf| {
        elf.programs[RODATA].content[0x400..0x400 + LEGACY_STRINGS.len()]
            .copy_from_slice(LEGACY_STRINGS);
        elf.programs.remove(ABI);
    });
    assert!(matches!(error, Error::NoAbiNote), "{error:?}");
}

#[test]
fn notes_of_others_do_not_keep_a_legacy_unikernel_from_being_one() {
    let mut elf = Elf::legacy(LEGACY_STRINGS);
    elf.programs.push(Program::note(
        0x8000,
        elf::note(b"GNU\0\x14\0\0\0", 3, &[0xab; 20]),
    ));
    assert_eq!(
        Image::parse(elf.build().as_slice())
            .expect("a unikernel")
            .era,
        Era::Legacy
    );
}

#[test]
fn an_ordinary_program_is_reported_as_one() {
    for machine in [AARCH64, X86_64] {
        assert!(is_ordinary(machine, b"Usage: ls [OPTION]... [FILE]...\n\0"));
    }
    let mut elf = Elf::legacy(&[]);
    elf.programs[0].flags = R;
    // The kind of the file is reported before its errors.
    assert!(matches!(
        Image::parse(elf.build().as_slice()),
        Err(Error::NoAbiNote)
    ));
}
