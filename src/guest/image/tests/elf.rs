//! A writer of small ELF files in which every field can be set, so that each can be wrong.

use guest_abi::manifest::{BLOCK_BASIC, Entry, NET_BASIC};
use guest_abi::note::{Abi, TYPE_ABI1, TYPE_MFT1, target};
use zerocopy::IntoBytes;

use crate::guest::manifest::tests::manifest;

pub const PT_LOAD: u32 = 1;
pub const PT_INTERP: u32 = 3;
pub const PT_NOTE: u32 = 4;
pub const PT_TLS: u32 = 7;
pub const PT_GNU_STACK: u32 = 0x6474_e551;

pub const X: u32 = 1;
pub const W: u32 = 2;
pub const R: u32 = 4;

/// Indices of the program headers of [`Elf::hvt`].
pub const TEXT: usize = 1;
pub const RODATA: usize = 2;
pub const TDATA: usize = 3;
pub const DATA: usize = 4;
pub const BSS: usize = 5;
pub const ABI: usize = 9;
pub const MFT: usize = 10;

/// Offset of the constants of [`Elf::legacy`] in the file: out of reach of a multiboot loader.
pub const CONSTANTS: u64 = 0x4000;

/// The strings that the bindings of Solo5 0.3 and 0.4 have for memory and clock.
pub const LEGACY_STRINGS: &[u8] =
    b"Solo5:     unused @ (0x0 - 0x%lx)\n\0tscclock_init(): tsc_freq=%lu\n\0";

/// Bytes after the last segment, like the section headers of a real file.
pub const TRAILER: usize = 200;

/// One program header, and the bytes in the file at its offset.
#[derive(Clone, Debug)]
pub struct Program {
    pub kind: u32,
    pub flags: u32,
    pub offset: u64,
    pub vaddr: u64,
    pub paddr: u64,
    pub filesz: u64,
    pub memsz: u64,
    pub align: u64,
    pub content: Vec<u8>,
}

impl Program {
    pub fn new(kind: u32, flags: u32, offset: u64, vaddr: u64, content: Vec<u8>) -> Program {
        let size = content.len() as u64;
        // p_paddr differs from p_vaddr: in images with notes, p_paddr must be ignored.
        Program {
            kind,
            flags,
            offset,
            vaddr,
            paddr: 0xdead_0000,
            filesz: size,
            memsz: size,
            align: 0x1000,
            content,
        }
    }

    pub fn load(flags: u32, offset: u64, vaddr: u64, size: usize) -> Program {
        Program::new(PT_LOAD, flags, offset, vaddr, vec![flags as u8; size])
    }

    /// A segment loaded at `paddr`, as before notes.
    pub fn legacy(flags: u32, offset: u64, paddr: u64, content: Vec<u8>) -> Program {
        Program {
            paddr,
            ..Program::new(PT_LOAD, flags, offset, 0xdead_0000, content)
        }
    }

    pub fn note(offset: u64, content: Vec<u8>) -> Program {
        Program {
            align: 4,
            ..Program::new(PT_NOTE, R, offset, offset + 0xff000, content)
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(56);
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        let fields = [
            self.offset,
            self.vaddr,
            self.paddr,
            self.filesz,
            self.memsz,
            self.align,
        ];
        bytes.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        bytes
    }
}

/// A whole file.
#[derive(Clone, Debug)]
pub struct Elf {
    pub ident: [u8; 16],
    pub kind: u16,
    pub machine: u16,
    pub version: u32,
    pub entry: u64,
    pub phoff: u64,
    pub shoff: u64,
    pub ehsize: u16,
    pub phentsize: u16,
    /// Derived from the file if `None`.
    pub phnum: Option<u16>,
    pub programs: Vec<Program>,
}

impl Elf {
    /// A unikernel with a disk `data` and a network interface `service`, laid out as by Solo5 0.8
    /// and later: execute-only text with the interpreter in it, an empty `.tdata` at 0, and a
    /// separate `.bss`.
    pub fn hvt() -> Elf {
        let mut ident = [0; 16];
        ident[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        let devices = [
            Entry::declare("data", BLOCK_BASIC),
            Entry::declare("service", NET_BASIC),
        ];
        Elf {
            ident,
            kind: 2,
            machine: 183,
            version: 1,
            entry: 0x100020,
            phoff: 64,
            shoff: 0x4000,
            ehsize: 64,
            phentsize: 56,
            phnum: None,
            programs: vec![
                Program {
                    align: 1,
                    ..Program::new(
                        PT_INTERP,
                        R,
                        0x1000,
                        0x100000,
                        b"/nonexistent/solo5/\0".to_vec(),
                    )
                },
                Program::load(X, 0x1000, 0x100000, 0x123),
                Program::load(R, 0x2000, 0x101000, 0x800),
                Program {
                    memsz: 0,
                    vaddr: 0,
                    ..Program::load(R, 0, 0, 0)
                },
                Program {
                    memsz: 0x1200,
                    ..Program::load(R | W, 0x2800, 0x102000, 0x80)
                },
                Program {
                    memsz: 0x2345,
                    ..Program::load(R | W, 0, 0x104000, 0)
                },
                Program::new(PT_TLS, R, 0, 0, Vec::new()),
                Program {
                    align: 16,
                    ..Program::new(PT_GNU_STACK, R | W | X, 0, 0, Vec::new())
                },
                Program::note(0x2000, note(b"OpenBSD\0", 1, &[0; 4])),
                Program::note(0x2040, abi(target::HVT, 2)),
                Program::note(0x2080, mft(&manifest(&devices))),
            ],
        }
    }

    /// A unikernel of Solo5 0.3 or 0.4 as linkers lay it out by default: text with constants, data
    /// with `.bss`, an executable stack, and no note. `constants` are at [`CONSTANTS`] in the file.
    pub fn legacy(constants: &[u8]) -> Elf {
        let mut text = vec![0; (CONSTANTS - 0x1000) as usize];
        text.extend(constants);
        let end = (0x10_0000 + text.len() as u64).next_multiple_of(0x1000);
        let offset = (0x1000 + text.len() as u64).next_multiple_of(0x1000);
        Elf {
            programs: vec![
                Program::legacy(R | X, 0x1000, 0x10_0000, text),
                Program {
                    memsz: 0x1200,
                    ..Program::legacy(R | W, offset, end, vec![1; 0x80])
                },
                Program {
                    align: 16,
                    ..Program::new(PT_GNU_STACK, R | W | X, 0, 0, Vec::new())
                },
            ],
            ..Elf::hvt()
        }
    }

    pub fn build(&self) -> Vec<u8> {
        let phnum = self.phnum.unwrap_or(self.programs.len() as u16);
        let mut file = self.ident.to_vec();
        file.extend(self.kind.to_le_bytes());
        file.extend(self.machine.to_le_bytes());
        file.extend(self.version.to_le_bytes());
        file.extend(
            [self.entry, self.phoff, self.shoff]
                .iter()
                .flat_map(|word| word.to_le_bytes()),
        );
        file.extend(0u32.to_le_bytes());
        file.extend(
            [self.ehsize, self.phentsize, phnum, 64, 9, 8]
                .iter()
                .flat_map(|half| half.to_le_bytes()),
        );
        file.extend(self.programs.iter().flat_map(Program::to_bytes));
        for program in self
            .programs
            .iter()
            .filter(|program| !program.content.is_empty())
        {
            let start = program.offset as usize;
            let end = start + program.content.len();
            file.resize(file.len().max(end), 0);
            file[start..end].copy_from_slice(&program.content);
        }
        file.resize(file.len() + TRAILER, 0xee);
        file
    }
}

/// A note: `description` is everything after the header's 20 bytes; the header has its length.
pub fn note(name: &[u8; 8], kind: u32, description: &[u8]) -> Vec<u8> {
    let namesz = if name[7] == 0 && name[6] == 0 { 6 } else { 8 };
    let header: [u32; 3] = [namesz, description.len() as u32, kind];
    [header.as_bytes(), name, description].concat()
}

pub fn abi_description(target: u32, version: u32) -> Vec<u8> {
    Abi {
        target,
        version,
        reserved: [0; 2],
    }
    .as_bytes()
    .to_vec()
}

pub fn abi(target: u32, version: u32) -> Vec<u8> {
    note(b"Solo5\0\0\0", TYPE_ABI1, &abi_description(target, version))
}

/// Returns the note of a manifest, which starts 24 bytes into it.
pub fn mft(manifest: &[u8]) -> Vec<u8> {
    note(b"Solo5\0\0\0", TYPE_MFT1, &[&[0; 4], manifest].concat())
}
