//! The readable parts of a file that may be invalid: for `tender inspect` of a refused file.

use guest_abi::note::Abi;

use super::{Machine, Segment, Source, notes, segments};
use crate::guest::manifest::Manifest;

/// The parts of a file that can be parsed. Any of them may be missing, and none is validated.
#[derive(Debug, Default)]
pub struct PartialImage {
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

impl PartialImage {
    /// Parses a file as far as possible.
    pub fn of(source: &(impl Source + ?Sized)) -> PartialImage {
        let Ok((header, machine)) = source
            .size()
            .map_err(super::Error::Io)
            .and_then(|size| super::parse_header(source, size))
        else {
            return PartialImage::default();
        };
        let mut partial = PartialImage {
            machine: Some(machine),
            entry: Some(header.e_entry),
            ..PartialImage::default()
        };
        let Ok(program_headers) = super::parse_program_headers(source, &header) else {
            return partial;
        };
        partial.segments = segments::unchecked(&program_headers);
        let notes = notes::read(source, &program_headers).unwrap_or_default();
        partial.abi = notes.abi;
        partial.manifest = notes
            .manifest
            .and_then(|content| Manifest::parse(&content).ok());
        partial
    }
}
