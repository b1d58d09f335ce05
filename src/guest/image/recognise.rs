//! Classifies an ELF executable without Solo5 notes. It is either a unikernel from before notes,
//! recognised by strings and instructions of its bindings, or something else that is refused by
//! name. Section 12 of `docs/hvt-abi.md`.

use goblin::elf::program_header::{PT_INTERP, PT_LOAD, PT_NOTE, PT_TLS, ProgramHeader};

use super::search::search;
use super::{Error, Machine, Source, fill};

/// How a unikernel without notes was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Strings of its bindings.
    Strings,
    /// The instructions of its HALT hypercall, whose number is unique to its era.
    Code,
}

/// String of bindings whose clock is the cycle counter: hvt, and ukvm since 0.3.
const CYCLE_STRING: &[u8] = b"tscclock_init(): tsc_freq=";

/// String of the memory map printed by bindings up to 0.4.
const LEGACY_STRING: &[u8] = b"Solo5:     unused @";

/// String of bindings whose clock is KVM's: ukvm 0.2, or virtio.
const PVCLOCK_STRING: &[u8] = b"Clock source: KVM paravirtualized clock";

/// String of the memory map printed by bindings since the development towards 0.6.
const NOTED_STRING: &[u8] = b"Solo5:   reserved @";

/// Magic number of a multiboot header, which is in the first 8 KiB of every virtio unikernel.
const MULTIBOOT_MAGIC: [u8; 4] = 0x1bad_b002_u32.to_le_bytes();
const MULTIBOOT_REACH: usize = 8192;

/// Marks found in a file.
#[derive(Debug, Default)]
struct Found {
    cycle_string: bool,
    legacy_string: bool,
    pvclock_string: bool,
    noted_string: bool,
    multiboot: bool,
    halt: bool,
}

/// Classifies a file without notes: a legacy unikernel, or an error that names what it is.
pub(super) fn without_notes(
    source: &(impl Source + ?Sized),
    program_headers: &[ProgramHeader],
    machine: Machine,
) -> Result<Evidence, Error> {
    let found = look(source, program_headers, machine)?;
    match found {
        Found {
            multiboot: true, ..
        } => Err(Error::Target("virtio".into())),
        // Checked before the strings that newer bindings share with older ones.
        Found {
            noted_string: true, ..
        } => Err(Error::Snapshot),
        Found {
            cycle_string: true,
            legacy_string: true,
            ..
        } => Ok(Evidence::Strings),
        Found {
            pvclock_string: true,
            ..
        } => Err(Error::Ukvm),
        // A short pattern that a large program may contain by chance; such a program also has one
        // of these headers.
        Found { halt: true, .. } if !program_headers.iter().any(postdates_notes) => {
            Ok(Evidence::Code)
        }
        _ => Err(Error::NoAbiNote),
    }
}

/// Returns whether a header occurs in no unikernel from before notes: a note, an interpreter or
/// thread-local data. Programs for an operating system have at least one of them.
fn postdates_notes(header: &ProgramHeader) -> bool {
    matches!(header.p_type, PT_NOTE | PT_INTERP | PT_TLS)
}

// Inlined, its frame would be two pages of stack for each guest, though few files need this search.
#[cold]
#[inline(never)]
fn look(
    source: &(impl Source + ?Sized),
    program_headers: &[ProgramHeader],
    machine: Machine,
) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut start = [0; MULTIBOOT_REACH];
    let count = fill(source, 0, &mut start)?;
    found.multiboot = start[..count]
        .chunks_exact(4)
        .any(|word| word == MULTIBOOT_MAGIC);
    let loaded = program_headers
        .iter()
        .filter(|header| header.p_type == PT_LOAD);
    let ranges =
        loaded.map(|header| header.p_offset..header.p_offset.saturating_add(header.p_filesz));
    search(source, ranges, |_, piece| {
        examine(piece, machine, &mut found)
    })?;
    Ok(found)
}

fn examine(piece: &[u8], machine: Machine, found: &mut Found) {
    found.cycle_string |= contains(piece, CYCLE_STRING);
    found.legacy_string |= contains(piece, LEGACY_STRING);
    found.pvclock_string |= contains(piece, PVCLOCK_STRING);
    found.noted_string |= contains(piece, NOTED_STRING);
    found.halt |= match machine {
        Machine::Aarch64 => aarch64_halt(piece),
        Machine::X86_64 => x86_64_halt(piece),
    };
}

fn contains(piece: &[u8], pattern: &[u8]) -> bool {
    let Some((&first, rest)) = pattern.split_first() else {
        return true;
    };
    let mut from = piece;
    while let Some(at) = from.iter().position(|&byte| byte == first) {
        from = &from[at + 1..];
        if from.starts_with(rest) {
            return true;
        }
    }
    false
}

/// Finds `mov xN, #0x50` directly followed by `movk xN, #1, lsl #32`: the address of hypercall 10.
fn aarch64_halt(piece: &[u8]) -> bool {
    let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    piece.windows(8).step_by(4).any(|pair| {
        let (mov, movk) = (word(&pair[..4]), word(&pair[4..]));
        mov & !0x1f == 0xd280_0a00 && movk & !0x1f == 0xf2c0_0020 && mov & 0x1f == movk & 0x1f
    })
}

/// Finds `mov $0x50a, %edx` and, within a few instructions, `out %eax, (%dx)`: the port of
/// hypercall 10.
fn x86_64_halt(piece: &[u8]) -> bool {
    const MOV: [u8; 5] = [0xba, 0x0a, 0x05, 0x00, 0x00];
    const OUT: u8 = 0xef;
    piece
        .windows(MOV.len() + 12)
        .any(|window| window.starts_with(&MOV) && window[MOV.len()..].contains(&OUT))
}
