//! What an ELF executable without Solo5 notes is: a unikernel of the time before notes, by the words and instructions
//! that its bindings left in it, or something else that is refused by its name. Section 12 of `docs/hvt-abi.md`.

use goblin::elf::program_header::{PT_INTERP, PT_LOAD, PT_NOTE, PT_TLS, ProgramHeader};

use super::search::search;
use super::{Error, Machine, Source, fill};

/// How a unikernel without notes gave itself away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Words of its bindings.
    Words,
    /// The instructions of its HALT hypercall, whose number is that of no other era.
    Code,
}

/// Words of bindings whose clock is the cycle counter: hvt, and ukvm since 0.3.
const CYCLE_WORDS: &[u8] = b"tscclock_init(): tsc_freq=";

/// Words of the memory map as bindings up to 0.4 print it.
const LEGACY_WORDS: &[u8] = b"Solo5:     unused @";

/// Words of bindings whose clock is KVM's: ukvm 0.2, or virtio.
const PVCLOCK_WORDS: &[u8] = b"Clock source: KVM paravirtualized clock";

/// Words of the memory map as bindings print it since the development towards 0.6.
const NOTED_WORDS: &[u8] = b"Solo5:   reserved @";

/// Magic number of a multiboot header, which is in the first 8 KiB of every virtio unikernel.
const MULTIBOOT_MAGIC: [u8; 4] = 0x1bad_b002_u32.to_le_bytes();
const MULTIBOOT_REACH: usize = 8192;

/// What was found in a file.
#[derive(Debug, Default)]
struct Found {
    cycle_words: bool,
    legacy_words: bool,
    pvclock_words: bool,
    noted_words: bool,
    multiboot: bool,
    halt: bool,
}

/// Decides what a file without notes is: a legacy unikernel, or an error that says what else.
pub fn without_notes(
    source: &(impl Source + ?Sized),
    program_headers: &[ProgramHeader],
    machine: Machine,
) -> Result<Evidence, Error> {
    let found = look(source, program_headers, machine)?;
    match found {
        Found {
            multiboot: true, ..
        } => Err(Error::Target("virtio".into())),
        // Before everything that bindings with notes have in common with the older ones.
        Found {
            noted_words: true, ..
        } => Err(Error::Snapshot),
        Found {
            cycle_words: true,
            legacy_words: true,
            ..
        } => Ok(Evidence::Words),
        Found {
            pvclock_words: true,
            ..
        } => Err(Error::Ukvm),
        // Few bytes, that a large program may have by chance; it has other things too, then.
        Found { halt: true, .. } if !program_headers.iter().any(is_of_later_times) => {
            Ok(Evidence::Code)
        }
        _ => Err(Error::NoAbiNote),
    }
}

/// What no unikernel has that is older than notes: neither notes nor an interpreter nor thread-local data. Programs for
/// an operating system have at least one of them.
fn is_of_later_times(header: &ProgramHeader) -> bool {
    matches!(header.p_type, PT_NOTE | PT_INTERP | PT_TLS)
}

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
    found.cycle_words |= contains(piece, CYCLE_WORDS);
    found.legacy_words |= contains(piece, LEGACY_WORDS);
    found.pvclock_words |= contains(piece, PVCLOCK_WORDS);
    found.noted_words |= contains(piece, NOTED_WORDS);
    found.halt |= match machine {
        Machine::Aarch64 => aarch64_halt(piece),
        Machine::X86_64 => x86_64_halt(piece),
    };
}

fn contains(piece: &[u8], args: &[u8]) -> bool {
    let Some((&first, rest)) = args.split_first() else {
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

/// `mov xN, #0x50` and, right after it, `movk xN, #1, lsl #32`: the address of hypercall 10.
fn aarch64_halt(piece: &[u8]) -> bool {
    let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    piece.windows(8).step_by(4).any(|pair| {
        let (mov, movk) = (word(&pair[..4]), word(&pair[4..]));
        mov & !0x1f == 0xd280_0a00 && movk & !0x1f == 0xf2c0_0020 && mov & 0x1f == movk & 0x1f
    })
}

/// `mov $0x50a, %edx` and, within a few instructions, `out %eax, (%dx)`: the port of hypercall 10.
fn x86_64_halt(piece: &[u8]) -> bool {
    const MOV: [u8; 5] = [0xba, 0x0a, 0x05, 0x00, 0x00];
    const OUT: u8 = 0xef;
    piece
        .windows(MOV.len() + 12)
        .any(|window| window.starts_with(&MOV) && window[MOV.len()..].contains(&OUT))
}
