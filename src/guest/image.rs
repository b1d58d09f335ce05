//! The unikernel file: its kind, its segments and its interface. Pure: bytes in, [`Image`] out;
//! this module loads nothing. Sections 6 and 12 of `docs/hvt-abi.md`.
//!
//! A file is as hostile as a guest: every field is checked before use, and reads are bounded.

use std::io;
use std::ops::Range;

use goblin::container::{Container, Ctx};
use goblin::elf::header::{self, Header};
use goblin::elf::program_header::{self, ProgramHeader};
use guest_abi::boot::{IMAGE_BASE, MEMORY_GRANULE};

use crate::guest::era::Era;
use crate::guest::manifest::Manifest;
use crate::memory::{Access, Mapping};

mod error;
mod notes;
mod partial;
mod recognise;
mod search;
mod segments;
#[cfg(test)]
pub(crate) mod tests;

pub use error::Error;
pub use notes::target_name;
pub use partial::PartialImage;
pub use recognise::Evidence;
pub use search::search;

/// A file that is read in pieces.
pub trait Source {
    /// Returns its size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Reads some bytes at `offset`; none at or after the end.
    fn read_at(&self, offset: u64, target: &mut [u8]) -> io::Result<usize>;
}

impl Source for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.len());
        let count = target.len().min(self.len() - start);
        target[..count].copy_from_slice(&self[start..start + count]);
        Ok(count)
    }
}

/// The architecture that a unikernel was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// 64-bit ARM.
    Aarch64,
    /// 64-bit x86.
    X86_64,
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Machine::Aarch64 => "aarch64",
            Machine::X86_64 => "x86_64",
        })
    }
}

/// A part of the file that is loaded into guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical addresses; bytes not filled from the file are zero.
    pub memory: Range<u64>,
    /// Bytes of the file that fill its beginning.
    pub file: Range<u64>,
    /// Pages that it occupies.
    pub pages: Range<u64>,
    /// The guest's access to those pages.
    pub access: Access,
}

/// A unikernel that can be loaded.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its architecture.
    pub machine: Machine,
    /// Its interface.
    pub era: Era,
    /// Address of its first instruction.
    pub entry: u64,
    /// Its segments in ascending order without overlaps.
    pub segments: Vec<Segment>,
    /// How its interface was recognised; none if its notes declare it.
    pub evidence: Option<Evidence>,
    /// Its devices; none if it cannot declare any.
    pub manifest: Option<Manifest>,
}

impl Image {
    /// Parses and checks a file.
    pub fn parse(source: &(impl Source + ?Sized)) -> Result<Image, Error> {
        let size = source.size()?;
        let (header, machine) = parse_header(source, size)?;
        let program_headers = parse_program_headers(source, &header)?;
        let notes = notes::read(source, &program_headers)?;
        let (era, evidence, manifest) = if notes.is_empty() {
            let evidence = recognise::without_notes(source, &program_headers, machine)?;
            (Era::Legacy, Some(evidence), None)
        } else {
            let era = notes.era()?;
            (
                era,
                None,
                Some(Manifest::parse(&notes.manifest.ok_or(Error::NoManifest)?)?),
            )
        };
        let segments = segments::read(&program_headers, size, era.rules())?;
        let image = Image {
            machine,
            era,
            entry: header.e_entry,
            segments,
            evidence,
            manifest,
        };
        image.check_entry()?;
        Ok(image)
    }

    /// Returns the first address after the image, page aligned.
    pub fn end(&self) -> u64 {
        self.segments
            .last()
            .map_or(IMAGE_BASE, |segment| segment.pages.end)
    }

    /// Returns the least guest memory for this image in bytes, a valid value of `--mem`.
    pub fn least_memory(&self) -> u64 {
        (self.end() + self.era.rules().least_heap).next_multiple_of(MEMORY_GRANULE)
    }

    /// Returns whether a segment is both writable and executable, as the oldest era allows.
    pub fn has_writable_code(&self) -> bool {
        self.segments
            .iter()
            .any(|segment| segment.access == Access::All)
    }

    /// Returns the guest's access to memory from the image's base up to `memory_size`. If the
    /// image's own segments do not separate code and data, its heap and stack are executable too.
    pub fn mappings(&self, memory_size: u64) -> Vec<Mapping> {
        let between = if self.has_writable_code() {
            Access::All
        } else {
            Access::ReadWrite
        };
        let mut mappings = Vec::with_capacity(2 * self.segments.len() + 1);
        let mut next = IMAGE_BASE;
        for segment in &self.segments {
            mappings.push(Mapping {
                range: next..segment.pages.start,
                access: between,
            });
            mappings.push(Mapping {
                range: segment.pages.clone(),
                access: segment.access,
            });
            next = segment.pages.end;
        }
        mappings.push(Mapping {
            range: next..memory_size,
            access: between,
        });
        mappings.retain(|mapping| !mapping.range.is_empty());
        mappings
    }

    fn check_entry(&self) -> Result<(), Error> {
        let holds_entry = |segment: &Segment| {
            segment.access.is_executable() && segment.memory.contains(&self.entry)
        };
        if self.segments.iter().any(holds_entry) {
            return Ok(());
        }
        Err(Error::Entry(self.entry))
    }
}

/// Reads exactly `target.len()` bytes at `offset`, or returns an error with the missing part of the
/// file.
fn read_exact(
    source: &(impl Source + ?Sized),
    offset: u64,
    target: &mut [u8],
    what: &'static str,
) -> Result<(), Error> {
    if fill(source, offset, target)? < target.len() {
        return Err(Error::Truncated {
            what,
            needed: offset.saturating_add(target.len() as u64),
        });
    }
    Ok(())
}

/// Reads bytes at `offset` until `target` is full or the file ends.
fn fill(source: &(impl Source + ?Sized), offset: u64, target: &mut [u8]) -> Result<usize, Error> {
    let mut done = 0;
    while done < target.len() {
        match source.read_at(offset.saturating_add(done as u64), &mut target[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

fn parse_header(source: &(impl Source + ?Sized), size: u64) -> Result<(Header, Machine), Error> {
    if size == 0 {
        return Err(Error::Empty);
    }
    let mut bytes = [0; header::header64::SIZEOF_EHDR];
    let magic_size = bytes.len().min(usize::try_from(size).unwrap_or(usize::MAX));
    read_exact(source, 0, &mut bytes[..magic_size], "ELF header")?;
    if !bytes.starts_with(header::ELFMAG) {
        return Err(Error::NotElf(error::describe(&bytes[..magic_size])));
    }
    if magic_size < bytes.len() {
        return Err(Error::Truncated {
            what: "ELF header",
            needed: bytes.len() as u64,
        });
    }
    if bytes[header::EI_CLASS] != header::ELFCLASS64
        || bytes[header::EI_DATA] != header::ELFDATA2LSB
    {
        return Err(Error::Class);
    }
    let header = goblin::elf::Elf::parse_header(&bytes).map_err(|_| Error::Class)?;
    let machine = check_header(&header)?;
    Ok((header, machine))
}

fn check_header(header: &Header) -> Result<Machine, Error> {
    let machine = match header.e_machine {
        header::EM_AARCH64 => Machine::Aarch64,
        header::EM_X86_64 => Machine::X86_64,
        other => {
            return Err(Error::Machine {
                number: other,
                name: header::machine_to_str(other),
            });
        }
    };
    if header.e_type != header::ET_EXEC {
        return Err(Error::Type(header::et_to_str(header.e_type)));
    }
    let fields: [(_, u64, _, _); 4] = [
        ("e_version", header.e_version.into(), 1..=1, "must be 1"),
        ("e_ehsize", header.e_ehsize.into(), 64..=64, "must be 64"),
        (
            "e_phentsize",
            header.e_phentsize.into(),
            56..=56,
            "must be 56",
        ),
        // Real files have about ten.
        ("e_phnum", header.e_phnum.into(), 1..=64, "must be 1 to 64"),
    ];
    for (field, value, valid, rule) in fields {
        if !valid.contains(&value) {
            return Err(Error::Field { field, value, rule });
        }
    }
    Ok(machine)
}

fn parse_program_headers(
    source: &(impl Source + ?Sized),
    header: &Header,
) -> Result<Vec<ProgramHeader>, Error> {
    let count = usize::from(header.e_phnum);
    let mut bytes = vec![0; count * program_header::program_header64::SIZEOF_PHDR];
    read_exact(source, header.e_phoff, &mut bytes, "program header table")?;
    let context = Ctx::new(Container::Big, goblin::container::Endian::Little);
    ProgramHeader::parse(&bytes, 0, count, context).map_err(|_| Error::Truncated {
        what: "program header table",
        needed: header.e_phoff,
    })
}
