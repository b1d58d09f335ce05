//! The two notes of a unikernel, found among its program headers. Section 6.4 of `docs/hvt-abi.md`.

use goblin::elf::program_header::{PT_NOTE, ProgramHeader};
use guest_abi::note::{ABI1_ALIGN, Abi, Header, MFT1_ALIGN, NAME, TYPE_ABI1, TYPE_MFT1, target};
use zerocopy::FromBytes;

use super::{Error, Source, read_exact};
use crate::era::Era;

/// Most bytes a note's description may have: a manifest of 64 entries with its padding.
const MAX_DESCSZ: u32 = 6668;

/// Most bytes an ABI note's description may have.
const MAX_ABI1_DESCSZ: u32 = 32;

/// What the notes say.
#[derive(Debug, Default)]
pub struct Notes {
    /// What its ABI note says.
    pub abi: Option<Abi>,
    /// Content of the manifest note.
    pub manifest: Option<Vec<u8>>,
}

impl Notes {
    /// Whether there is no note at all, as in unikernels built before there were any.
    pub fn is_empty(&self) -> bool {
        self.abi.is_none() && self.manifest.is_none()
    }

    /// Which interface the unikernel speaks, if this tender speaks it.
    pub fn era(&self) -> Result<Era, Error> {
        let abi = self.abi.ok_or(Error::NoAbiNote)?;
        match (abi.target, abi.version) {
            (target::HVT, 1) => Ok(Era::Abi1),
            (target::HVT, 2) => Ok(Era::Abi2),
            (target::HVT, version) => Err(Error::AbiVersion(version)),
            (other, _) => Err(Error::Target(target_name(other))),
        }
    }
}

/// What a target is called, for messages too.
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

/// Reads the first note of every note segment, as all tenders do.
pub fn read(source: &(impl Source + ?Sized), program_headers: &[ProgramHeader]) -> Result<Notes, Error> {
    let mut notes = Notes::default();
    for (index, header) in program_headers.iter().enumerate().filter(|(_, header)| header.p_type == PT_NOTE) {
        let broken = |rule| Error::Note { index, rule };
        if header.p_filesz < 12 {
            return Err(broken("it is shorter than a note's header"));
        }
        if header.p_filesz < size_of::<Header>() as u64 {
            continue;
        }
        let place = header.p_offset.checked_add(header.p_filesz);
        place.ok_or(broken("its place in the file overflows"))?;
        let mut start = [0; size_of::<Header>()];
        read_exact(source, header.p_offset, &mut start, "note")?;
        // Infallible: the array has exactly the header's size, and every bit pattern is a header.
        let Ok(note) = Header::read_from_bytes(&start) else { continue };
        if note.namesz as usize != NAME.len() || note.name[..NAME.len()] != NAME {
            continue;
        }
        match note.kind {
            TYPE_ABI1 if notes.abi.is_some() => return Err(broken("it is the second ABI1 note")),
            TYPE_ABI1 => {
                let content = content(source, header, note.descsz, ABI1_ALIGN, MAX_ABI1_DESCSZ).map_err(wrap(index))?;
                let (abi, _) = Abi::read_from_prefix(&content).map_err(|_| broken("an ABI1 note has 16 bytes"))?;
                notes.abi = Some(abi);
            }
            TYPE_MFT1 if notes.manifest.is_some() => return Err(broken("it is the second MFT1 note")),
            TYPE_MFT1 => {
                let content = content(source, header, note.descsz, MFT1_ALIGN, MAX_DESCSZ).map_err(wrap(index))?;
                notes.manifest = Some(content);
            }
            _ => {}
        }
    }
    Ok(notes)
}

/// Why a note's content could not be read: a rule of the format, or the file.
enum Broken {
    Rule(&'static str),
    File(Error),
}

fn wrap(index: usize) -> impl Fn(Broken) -> Error {
    move |broken| match broken {
        Broken::Rule(rule) => Error::Note { index, rule },
        Broken::File(error) => error,
    }
}

/// The content of a note: what follows its header and the padding to `align`.
fn content(
    source: &(impl Source + ?Sized),
    header: &ProgramHeader,
    descsz: u32,
    align: usize,
    most: u32,
) -> Result<Vec<u8>, Broken> {
    if !(1..=most).contains(&descsz) {
        return Err(Broken::Rule("its size is out of bounds"));
    }
    let start = size_of::<Header>().next_multiple_of(align);
    let padding = start - size_of::<Header>();
    let size = (descsz as usize).checked_sub(padding).ok_or(Broken::Rule("it has no content"))?;
    if ((start + size) as u64) > header.p_filesz {
        return Err(Broken::Rule("it is longer than its segment"));
    }
    let mut bytes = vec![0; size];
    let offset = header.p_offset.checked_add(start as u64).ok_or(Broken::Rule("its place in the file overflows"))?;
    read_exact(source, offset, &mut bytes, "note").map_err(Broken::File)?;
    Ok(bytes)
}
