//! The readable parts of a file that may be invalid: for `tender inspect` of a refused file.

use guest_abi::note::Abi;

use super::{Machine, Segment, Source, notes, segments};
use crate::guest::manifest::Manifest;

/// The parts of a file that can be parsed. Any of them may be missing, and none is validated.
#[derive(Debug, Default)]
pub struct Sketch {
    /// Its architecture; none if it is no static ELF executable for a supported one.
    pub machine: Option<Machine>,
    /// Its ABI note.
    pub abi: Option<Abi>,
    /// Its manifest.
    pub manifest: Option<Manifest>,
    /// Its segments in the order of the file, valid or not.
    pub segments: Vec<Segment>,
    /// Address of its first instruction.
    pub entry: Option<u64>,
}

impl Sketch {
    /// Parses a file as far as possible.
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
