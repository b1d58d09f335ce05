//! Errors of a unikernel file, with what it is and what was expected.

use std::io;

use crate::guest::formats::Format;
use crate::guest::manifest;
use crate::report::counters::Count;

/// Why a file cannot be run. The caller prefixes the file's name.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum Error {
    #[error("cannot be read: {0}; see dmesg for its disk")]
    Io(#[from] io::Error),
    #[error("is empty; an hvt unikernel (an ELF file, usually NAME.hvt) was expected")]
    Empty,
    #[error("is {0}, not an ELF file; an hvt unikernel (usually NAME.hvt) was expected")]
    NotElf(&'static str),
    #[error("is truncated: its {what} needs {needed} bytes; copy it again")]
    Truncated { what: &'static str, needed: u64 },
    #[error("is not a 64-bit little-endian ELF file; unikernels are: build it for hvt")]
    Class,
    #[error(
        "is for another processor ({name}, ELF machine {number}); build it for aarch64 or x86_64"
    )]
    Machine { number: u16, name: &'static str },
    #[error(
        "is an ELF file of type {0}: an ordinary program, library or object; give the .hvt file, a static executable \
         (EXEC)"
    )]
    Type(&'static str),
    #[error("has {field} = {value} in its ELF header, which {rule}; copy or build it again")]
    Field {
        field: &'static str,
        value: u64,
        rule: &'static str,
    },
    #[error(
        "breaks a rule in segment {index} (program header, {} at {start:#x}): {rule}; copy or build it again",
        Count(*size, "byte")
    )]
    Segment {
        index: usize,
        start: u64,
        size: u64,
        rule: &'static str,
    },
    #[error("has no segment to load; copy or build it again")]
    NothingToLoad,
    #[error("starts at {0:#x}, which lies in no executable segment of it; copy or build it again")]
    Entry(u64),
    #[error("has a malformed note in program header {index}: {rule}; copy or build it again")]
    Note { index: usize, rule: &'static str },
    #[error(
        "is an ordinary program rather than a unikernel: no Solo5 note is in it, nor the marks of a time before \
         notes; give the .hvt file"
    )]
    NoAbiNote,
    #[error(
        "is a ukvm unikernel of Solo5 0.2, whose interface this tender does not speak; rebuild it for hvt"
    )]
    Ukvm,
    #[error(
        "is a unikernel that has lost its notes, or of a development snapshot between Solo5 0.4 and 0.6; rebuild it with \
         a release"
    )]
    Snapshot,
    #[error("is a Solo5 unikernel for the {0} target; rebuild it for hvt")]
    Target(String),
    #[error(
        "is an hvt unikernel of ABI version {0}; this tender runs versions 1 and 2, and those from before there were \
         any: try a newer tender"
    )]
    AbiVersion(u32),
    #[error(
        "is an hvt unikernel without a manifest note (MFT1), which must list its devices; build it again"
    )]
    NoManifest,
    #[error("is not valid: {0}; mend its manifest, and build it again")]
    Manifest(manifest::Error),
}

/// Returns the likely format of a file that is not ELF.
pub(super) fn describe(start: &[u8]) -> &'static str {
    Format::of(start).map_or("of an unknown kind", |format| format.name)
}
