//! `tender inspect`: a command line of its own, so small that it needs no table.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::words::{is_option, shown};
use super::{Command, Error};

/// The first word that makes a command line one of these.
pub(super) const WORD: &str = "inspect";

/// What `tender inspect` is to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The unikernel's file, as given.
    pub unikernel: PathBuf,
    /// Whether a program will read it.
    pub json: bool,
}

const HELP: &str = "\
Tells what a unikernel is, what it needs and how to run it, without running it.

Usage: tender inspect [--json] [--] UNIKERNEL

Options:
      --json  Print one JSON object, whose form docs/inspect.schema.json has
  -h, --help  Print this text and end

Files of any architecture are understood on any host, and no right but to read
the file is needed.
'inspect' must be the very first word; a unikernel of that name is run by
'tender -- inspect' or 'tender ./inspect'.

Exit status:
  0 if tender runs such unikernels; 1 if not, with the reason on stderr.
";

/// Reads the words after `inspect`.
pub(super) fn parse(words: impl Iterator<Item = OsString>) -> Result<Command, Error> {
    let mut json = false;
    let mut unikernel = None;
    let mut options_end = false;
    for word in words {
        match word.as_bytes() {
            b"--" if !options_end => options_end = true,
            b"--json" if !options_end => json = true,
            b"--help" | b"-h" if !options_end => return Ok(Command::Help(HELP.to_owned())),
            _ if !options_end && is_option(&word) => return Err(refusal(word.as_bytes())),
            _ if unikernel.is_some() => return Err(Error::OneUnikernel { word: shown(word.as_bytes()) }),
            _ => unikernel = Some(word),
        }
    }
    let unikernel = unikernel.filter(|path| !path.is_empty()).ok_or(Error::NothingToInspect)?.into();
    Ok(Command::Inspect(Inspection { unikernel, json }))
}

fn refusal(word: &[u8]) -> Error {
    let name = word.split(|&byte| byte == b'=').next().unwrap_or_default();
    let option = shown(name);
    if [&b"--json"[..], b"--help"].contains(&name) {
        Error::UnexpectedValue { option }
    } else {
        Error::Unknown { option }
    }
}
