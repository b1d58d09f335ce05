//! What a file says of itself, whether or not it may be run: for whoever wants to know what was refused.

use guest_abi::note::Abi;

use super::{Machine, Segment, Source, notes, segments};
use crate::guest::manifest::Manifest;

/// As much of a file as can be made out. Everything in it may be missing, and nothing is promised of what is there.
#[derive(Debug, Default)]
pub struct Sketch {
    /// Its processor; none where it is no static ELF executable for one that unikernels run on.
    pub machine: Option<Machine>,
    /// Its ABI note.
    pub abi: Option<Abi>,
    /// Its manifest.
    pub manifest: Option<Manifest>,
    /// Its segments, in the order of the file, whether or not they keep the rules.
    pub segments: Vec<Segment>,
    /// Address of its first instruction.
    pub entry: Option<u64>,
}

impl Sketch {
    /// Looks at a file as far as it can be understood.
    pub fn of(source: &(impl Source + ?Sized)) -> Sketch {
        let Ok((header, machine)) = source
            .size()
            .map_err(super::Error::Io)
            .and_then(|size| super::parse_header(source, size))
        else {
            return Sketch::default();
        };
        let mut sketch = Sketch {
            machine: Some(machine),
            entry: Some(header.e_entry),
            ..Sketch::default()
        };
        let Ok(program_headers) = super::parse_program_headers(source, &header) else {
            return sketch;
        };
        sketch.segments = segments::sketch(&program_headers);
        let notes = notes::read(source, &program_headers).unwrap_or_default();
        sketch.abi = notes.abi;
        sketch.manifest = notes
            .manifest
            .and_then(|content| Manifest::parse(&content).ok());
        sketch
    }
}
