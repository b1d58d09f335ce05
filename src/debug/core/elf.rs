//! The headers of a core file, in the layout that Linux uses: an ELF header, one note for each kind
//! of registers, and one segment with the guest's memory. Pure: registers in, bytes out.

use goblin::elf::header::{
    ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_AARCH64, EM_X86_64, ET_CORE, EV_CURRENT, SIZEOF_IDENT,
};
use goblin::elf::note::NT_PRSTATUS;
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE};
use zerocopy::{Immutable, IntoBytes};

use crate::arch::{Architecture, Native};
use crate::guest::image::Machine;
use crate::memory::PAGE_SIZE;

/// The note with floating-point registers; Linux calls it `NT_PRFPREG`.
const NT_PRFPREG: u32 = 2;

/// The state of a stopped guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct State<'r> {
    /// The tender's PID.
    pub process: i32,
    /// The signal that would have killed a program.
    pub signal: i32,
    /// General registers, in the layout of Linux's `elf_gregset_t`.
    pub general: &'r [u64],
    /// Floating-point registers, in the layout of Linux's `elf_fpregset_t`.
    pub floating: &'r [u8],
}

/// `Elf64_Ehdr`.
#[derive(Default, IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    identity: [u8; SIZEOF_IDENT],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    segments: u64,
    sections: u64,
    flags: u32,
    size: u16,
    segment_size: u16,
    segment_count: u16,
    section_size: u16,
    section_count: u16,
    names: u16,
}

/// `Elf64_Phdr`.
#[derive(Default, IntoBytes, Immutable)]
#[repr(C)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical: u64,
    file_size: u64,
    memory_size: u64,
    align: u64,
}

/// `struct elf_prstatus` up to its registers. After those follows a flag: whether there are
/// floating-point registers.
#[derive(Default, IntoBytes, Immutable)]
#[repr(C)]
struct Status {
    signal: [i32; 3],
    current_signal: u32,
    signals: [u64; 2],
    process: i32,
    related: [i32; 3],
    times: [u64; 8],
}

/// `Elf64_Nhdr` and the name, which all these notes share.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Note {
    name_size: u32,
    size: u32,
    kind: u32,
    name: [u8; 8],
}

/// Returns everything before the memory, whose size is `memory_size` bytes: whole pages.
pub(super) fn headers(state: &State<'_>, memory_size: u64) -> Vec<u8> {
    let header = header();
    let notes = notes(state);
    let notes_start = size_of::<Header>() + 2 * size_of::<Segment>();
    let memory_start = (notes_start + notes.len()).next_multiple_of(PAGE_SIZE as usize);
    let registers = Segment {
        kind: PT_NOTE,
        offset: notes_start as u64,
        file_size: notes.len() as u64,
        align: 4,
        ..Segment::default()
    };
    let memory = Segment {
        kind: PT_LOAD,
        // Independent of the guest's page tables.
        flags: PF_R | PF_W | PF_X,
        offset: memory_start as u64,
        file_size: memory_size,
        memory_size,
        align: PAGE_SIZE,
        ..Segment::default()
    };
    let mut bytes = [
        header.as_bytes(),
        registers.as_bytes(),
        memory.as_bytes(),
        &notes,
    ]
    .concat();
    bytes.resize(memory_start, 0);
    bytes
}

fn header() -> Header {
    let mut identity = [0; SIZEOF_IDENT];
    identity[..4].copy_from_slice(ELFMAG);
    identity[4..7].copy_from_slice(&[ELFCLASS64, ELFDATA2LSB, EV_CURRENT]);
    Header {
        identity,
        kind: ET_CORE,
        machine: match Native::MACHINE {
            Machine::Aarch64 => EM_AARCH64,
            Machine::X86_64 => EM_X86_64,
        },
        version: EV_CURRENT.into(),
        segments: size_of::<Header>() as u64,
        size: size_of::<Header>() as u16,
        segment_size: size_of::<Segment>() as u16,
        segment_count: 2,
        ..Header::default()
    }
}

fn notes(state: &State<'_>) -> Vec<u8> {
    let status = Status {
        signal: [state.signal, 0, 0],
        current_signal: state.signal as u32,
        process: state.process,
        ..Status::default()
    };
    let has_floating = 1_u64;
    let status = [
        status.as_bytes(),
        state.general.as_bytes(),
        has_floating.as_bytes(),
    ]
    .concat();
    [note(NT_PRSTATUS, &status), note(NT_PRFPREG, state.floating)].concat()
}

/// Builds a note. The size of `content` must be a multiple of four bytes.
fn note(kind: u32, content: &[u8]) -> Vec<u8> {
    let head = Note {
        name_size: 5,
        size: content.len() as u32,
        kind,
        name: *b"CORE\0\0\0\0",
    };
    [head.as_bytes(), content].concat()
}
