//! Errors of a unikernel file, with what it is and what was expected.

use std::io;

use crate::guest::formats::Format;
use crate::guest::manifest;
use crate::report::counters::Count;

/// Why a file cannot be run. The caller prefixes the file's name.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("cannot be read: {0}; see dmesg for its disk")]
    Io(#[from] io::Error),
    #[error("is empty; an hvt unikernel (an ELF file, usually NAME.hvt) was expected")]
    Empty,
    #[error("is {0}, not an ELF file; an hvt unikernel (usually NAME.hvt) was expected")]
    NotElf(&'static str),
    #[error("is truncated: its {what} needs {needed} bytes; copy it again")]
    Truncated { what: &'static str, needed: u64 },
    #[error("not a 64-bit little-endian ELF file; build it for hvt")]
    Class,
    #[error(
        "unsupported architecture ({name}, ELF machine {number}); build it for aarch64 or x86_64"
    )]
    Machine { number: u16, name: &'static str },
    #[error(
        "ELF file of type {0}: an ordinary program, library or object; pass the .hvt file, a static executable \
         (EXEC)"
    )]
    Type(&'static str),
    #[error("invalid ELF header: {field} is {value}, {rule}; copy or rebuild the image")]
    Field {
        field: &'static str,
        value: u64,
        rule: &'static str,
    },
    #[error(
        "invalid segment {index} ({} at {start:#x}): {rule}; copy or rebuild the image",
        Count(*size, "byte")
    )]
    Segment {
        index: usize,
        start: u64,
        size: u64,
        rule: &'static str,
    },
    #[error("no segment to load; copy or rebuild the image")]
    NothingToLoad,
    #[error("entry point {0:#x} is in no executable segment; copy or rebuild the image")]
    Entry(u64),
    #[error("malformed note in program header {index}: {rule}; copy or rebuild the image")]
    Note { index: usize, rule: &'static str },
    #[error("no Solo5 note found: an ordinary program, not a unikernel; pass the .hvt file")]
    NoAbiNote,
    #[error("ukvm unikernel of Solo5 0.2, which is not supported; rebuild it for hvt")]
    Ukvm,
    #[error(
        "unikernel without notes: stripped, or a snapshot between Solo5 0.4 and 0.6; rebuild it with a release"
    )]
    Snapshot,
    #[error("Solo5 unikernel for the {0} target; rebuild it for hvt")]
    Target(String),
    #[error("needs hvt ABI version {0}; supported: 1, 2 and Solo5 0.3 to 0.4; upgrade tender")]
    AbiVersion(u32),
    #[error("no manifest note (MFT1), which must list the devices; rebuild the image")]
    NoManifest,
    #[error("invalid manifest: {0}; fix manifest.json and rebuild")]
    Manifest(#[from] manifest::Error),
}

/// Returns the likely format of a file that is not ELF.
pub(super) fn describe(start: &[u8]) -> &'static str {
    Format::of(start).map_or("of an unknown kind", |format| format.name)
}
