//! Errors of a unikernel file, with what it is and what was expected.

use std::io;

use miette::Diagnostic;

use crate::guest::formats::Format;
use crate::guest::manifest;
use crate::report::counters::Count;

/// Why a file cannot be run. The caller prefixes the file's name.
#[derive(Debug, Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("cannot be read: {0}")]
    #[diagnostic(help("see dmesg for its disk"))]
    Io(#[from] io::Error),
    #[error("is empty")]
    #[diagnostic(help("give an hvt unikernel (an ELF file, usually NAME.hvt)"))]
    Empty,
    #[error("is {0}, not an ELF file")]
    #[diagnostic(help("give an hvt unikernel (usually NAME.hvt)"))]
    NotElf(&'static str),
    #[error("is truncated: its {what} needs {needed} bytes")]
    #[diagnostic(help("copy it again"))]
    Truncated { what: &'static str, needed: u64 },
    #[error("not a 64-bit little-endian ELF file")]
    #[diagnostic(help("build it for hvt"))]
    Class,
    #[error("unsupported architecture ({name}, ELF machine {number})")]
    #[diagnostic(help("build it for aarch64 or x86_64"))]
    Machine { number: u16, name: &'static str },
    #[error("ELF file of type {0}: an ordinary program, library or object")]
    #[diagnostic(help("pass the .hvt file, a static executable (EXEC)"))]
    Type(&'static str),
    #[error("invalid ELF header: {field} is {value}, {rule}")]
    #[diagnostic(help("copy or rebuild the image"))]
    Field {
        field: &'static str,
        value: u64,
        rule: &'static str,
    },
    #[error("invalid segment {index} ({} at {start:#x}): {rule}", Count(*size, "byte"))]
    #[diagnostic(help("copy or rebuild the image"))]
    Segment {
        index: usize,
        start: u64,
        size: u64,
        rule: &'static str,
    },
    #[error("no segment to load")]
    #[diagnostic(help("copy or rebuild the image"))]
    NothingToLoad,
    #[error("entry point {0:#x} is in no executable segment")]
    #[diagnostic(help("copy or rebuild the image"))]
    Entry(u64),
    #[error("malformed note in program header {index}: {rule}")]
    #[diagnostic(help("copy or rebuild the image"))]
    Note { index: usize, rule: &'static str },
    #[error("no Solo5 note found: an ordinary program, not a unikernel")]
    #[diagnostic(help("pass the .hvt file"))]
    NoAbiNote,
    #[error("ukvm unikernel of Solo5 0.2, which is not supported")]
    #[diagnostic(help("rebuild it for hvt"))]
    Ukvm,
    #[error("unikernel without notes: stripped, or a snapshot between Solo5 0.4 and 0.6")]
    #[diagnostic(help("rebuild it with a release"))]
    Snapshot,
    #[error("Solo5 unikernel for the {0} target")]
    #[diagnostic(help("rebuild it for hvt"))]
    Target(String),
    #[error("needs hvt ABI version {0}")]
    #[diagnostic(help("supported: 1, 2 and Solo5 0.3 to 0.4; upgrade tender"))]
    AbiVersion(u32),
    #[error("no manifest note (MFT1), which must list the devices")]
    #[diagnostic(help("rebuild the image"))]
    NoManifest,
    #[error("invalid manifest: {0}")]
    #[diagnostic(help("{}fix manifest.json and rebuild", expected(.0)))]
    Manifest(#[from] manifest::Error),
}

/// Returns what a rule of the manifest expects, if it is known, to precede the fix.
fn expected(rule: &manifest::Error) -> String {
    rule.help()
        .map_or_else(String::new, |expected| format!("{expected}; "))
}

/// Returns the likely format of a file that is not ELF.
pub(super) fn describe(start: &[u8]) -> &'static str {
    Format::of(start).map_or("of an unknown kind", |format| format.name)
}
