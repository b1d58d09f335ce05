//! The two notes of a unikernel, read through its program headers. Section 6.4 of
//! `docs/hvt-abi.md`.

use goblin::elf::program_header::{PT_NOTE, ProgramHeader};
use guest_abi::note::{ABI1_ALIGN, Abi, Header, MFT1_ALIGN, NAME, TYPE_ABI1, TYPE_MFT1, target};
use zerocopy::FromBytes;

use super::{Error, Source, fill};
use crate::guest::era::Era;

/// Longest description of any note in bytes: a manifest of 64 entries with its padding.
const MAX_DESCSZ: u32 = 6668;

/// Bytes before the name of any note: two sizes and the kind.
const FOREIGN_HEADER: usize = 12;

/// Alignment of names, descriptions and notes, in bytes.
const NOTE_ALIGN: usize = 4;

/// Longest description of an ABI note in bytes.
const MAX_ABI1_DESCSZ: u32 = 32;

/// Content of the notes.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Content of the ABI note.
    pub abi: Option<Abi>,
    /// Content of the manifest note.
    pub manifest: Option<Vec<u8>>,
}

impl Notes {
    /// Returns whether there is no note at all, as in unikernels built before Solo5 had any.
    pub(super) fn is_empty(&self) -> bool {
        self.abi.is_none() && self.manifest.is_none()
    }

    /// Returns the unikernel's interface, or an error if this tender does not support it.
    pub(super) fn era(&self) -> Result<Era, Error> {
        let abi = self.abi.ok_or(Error::NoAbiNote)?;
        match (abi.target, abi.version) {
            (target::HVT, 1) => Ok(Era::Abi1),
            (target::HVT, 2) => Ok(Era::Abi2),
            (target::HVT, version) => Err(Error::AbiVersion(version)),
            (other, _) => Err(Error::Target(target_name(other))),
        }
    }
}

/// Returns the name of a target.
pub fn target_name(number: u32) -> String {
    let known = match number {
        target::HVT => "hvt",
        target::SPT => "spt",
        target::VIRTIO => "virtio",
        target::MUEN => "muen",
        target::GENODE => "genode",
        target::XEN => "xen",
        other => return format!("unknown ({other})"),
    };
    known.to_owned()
}

/// Most bytes of a segment that are searched for notes. Real segments have a few hundred.
const MOST_BYTES: u64 = 64 << 10;

/// Reads all notes of every note segment. A note that is in two segments counts once.
pub(super) fn read(
    source: &(impl Source + ?Sized),
    program_headers: &[ProgramHeader],
) -> Result<Notes, Error> {
    let mut notes = Notes::default();
    // Places of the two notes.
    let mut places = [None; 2];
    for (index, header) in program_headers
        .iter()
        .enumerate()
        .filter(|(_, header)| header.p_type == PT_NOTE)
    {
        let broken = |rule| Error::Note { index, rule };
        let segment = Segment::read(source, header, index)?;
        for (start, note) in segment.solo5_notes() {
            let content = |align, most| segment.content(start, note.descsz, align, most);
            let place = header.p_offset.saturating_add(start as u64);
            match note.kind {
                TYPE_ABI1
                    if !is_new(&mut places[0], place)
                        .map_err(|()| broken("it is the second ABI1 note"))? => {}
                TYPE_ABI1 => {
                    let content = content(ABI1_ALIGN, MAX_ABI1_DESCSZ)?;
                    let (abi, _) = Abi::read_from_prefix(content)
                        .map_err(|_| broken("an ABI1 note has 16 bytes"))?;
                    notes.abi = Some(abi);
                }
                TYPE_MFT1
                    if !is_new(&mut places[1], place)
                        .map_err(|()| broken("it is the second MFT1 note"))? => {}
                TYPE_MFT1 => notes.manifest = Some(content(MFT1_ALIGN, MAX_DESCSZ)?.to_vec()),
                _ => {}
            }
        }
    }
    Ok(notes)
}

/// Returns whether a note is the first of its kind; `Err` if a different one was found before.
fn is_new(known: &mut Option<u64>, place: u64) -> Result<bool, ()> {
    match known.replace(place) {
        None => Ok(true),
        Some(other) if other == place => Ok(false),
        Some(_) => Err(()),
    }
}

fn is_solo5(note: &Header) -> bool {
    note.namesz as usize == NAME.len() && note.name[..NAME.len()] == NAME
}

/// A note segment: its index, its size from its header, and its first bytes in the file.
struct Segment {
    index: usize,
    size: u64,
    offset: u64,
    bytes: Vec<u8>,
}

impl Segment {
    fn read(
        source: &(impl Source + ?Sized),
        header: &ProgramHeader,
        index: usize,
    ) -> Result<Segment, Error> {
        let (offset, size) = (header.p_offset, header.p_filesz);
        let broken = |rule| Err(Error::Note { index, rule });
        if size < FOREIGN_HEADER as u64 {
            return broken("it is shorter than a note's header");
        }
        if offset.checked_add(size).is_none() {
            return broken("its file offset overflows");
        }
        let mut bytes = vec![0; size.min(MOST_BYTES) as usize];
        let there = fill(source, offset, &mut bytes)?;
        let needed = size_of::<Header>();
        if there < needed.min(bytes.len()) {
            return Err(Error::Truncated {
                what: "note",
                needed: offset + needed as u64,
            });
        }
        bytes.truncate(there);
        Ok(Segment {
            index,
            size,
            offset,
            bytes,
        })
    }

    /// Lists the Solo5 notes of the segment, each with its offset.
    ///
    /// Notes follow each other at multiples of 4. A linker that aligns a note further, as it does a
    /// manifest, inserts zeros before it, which look like a note without a name.
    fn solo5_notes(&self) -> impl Iterator<Item = (usize, Header)> {
        let mut next = 0;
        std::iter::from_fn(move || {
            loop {
                let start = next;
                let rest = self.bytes.get(start..)?;
                let (sizes, _) = <[u32; 2]>::read_from_prefix(rest).ok()?;
                let [name, description] =
                    sizes.map(|size| (size as usize).next_multiple_of(NOTE_ALIGN));
                next += if name == 0 {
                    NOTE_ALIGN
                } else {
                    FOREIGN_HEADER + name + description
                };
                match Header::read_from_prefix(rest) {
                    Ok((note, _)) if is_solo5(&note) => return Some((start, note)),
                    _ => {}
                }
            }
        })
    }

    /// Returns the content of the note at `start`, after its header and the padding to `align`.
    fn content(&self, start: usize, descsz: u32, align: usize, most: u32) -> Result<&[u8], Error> {
        let broken = |rule| Error::Note {
            index: self.index,
            rule,
        };
        if !(1..=most).contains(&descsz) {
            return Err(broken("its size is out of bounds"));
        }
        let padding = size_of::<Header>().next_multiple_of(align) - size_of::<Header>();
        let size = (descsz as usize)
            .checked_sub(padding)
            .ok_or(broken("it has no content"))?;
        let first = start + size_of::<Header>() + padding;
        let end = first + size;
        if end as u64 > self.size {
            return Err(broken("it is longer than its segment"));
        }
        let needed = self.offset + end as u64;
        self.bytes.get(first..end).ok_or(Error::Truncated {
            what: "note",
            needed,
        })
    }
}
