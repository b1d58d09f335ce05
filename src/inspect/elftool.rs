//! `solo5-elftool`: under that name, `tender` replaces Solo5's tool for build systems and for
//! programs that start unikernels. Commands, output and exit statuses are those of 0.12; messages
//! are not.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use guest_abi::manifest::VERSION;

use crate::guest::image::{Image, PartialImage, target_name};
use crate::guest::manifest::{Device, Manifest};
use crate::host::files::{Files, Need};
use crate::report::message::Message;
use crate::setup;

mod source;

/// Name of the program.
pub const NAME: &str = "solo5-elftool";

/// Longest source of a manifest, in bytes: ten times the longest useful one.
const LONGEST: u64 = 64 << 10;

/// Error of a command.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error(
        "{NAME} has the commands: query-abi FILE, query-manifest FILE, gen-manifest SOURCE.json OUTPUT.c ('-' is a standard \
         stream)"
    )]
    Usage,
    #[error("{}: {problem}", file.display())]
    Unikernel {
        file: PathBuf,
        problem: String,
        #[help]
        fix: Option<String>,
    },
    #[error("cannot read '{}': {source}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}: line {line}: {rule}", file.display())]
    Source {
        file: PathBuf,
        line: usize,
        rule: String,
    },
    #[error("cannot write '{}': {source}", file.display())]
    Write { file: PathBuf, source: io::Error },
}

/// Runs a command; returns the text for standard output.
///
/// # Errors
/// [`Error`]: there is no such command, or it failed.
pub fn run(arguments: &[OsString]) -> Result<String, Error> {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    let Some((command, files)) = arguments.split_first() else {
        return Err(Error::Usage);
    };
    match (command.to_str(), files) {
        (Some("query-abi"), [file]) => query(Path::new(file), abi),
        (Some("query-manifest"), [file]) => query(Path::new(file), |image| {
            image.manifest.as_ref().map(manifest)
        }),
        (Some("gen-manifest"), [source, output]) => generate(Path::new(source), Path::new(output)),
        _ => Err(Error::Usage),
    }
}

/// Applies `answer` to a file of any processor and target.
///
/// # Errors
/// The reason why there is no answer.
fn query(path: &Path, answer: impl Fn(&PartialImage) -> Option<String>) -> Result<String, Error> {
    let refuse = |Message { problem, fix }| Error::Unikernel {
        file: path.to_owned(),
        problem,
        fix,
    };
    let file = setup::open(path, Files::default().take(path, Need::Read), false)
        .map_err(|error| refuse(error.into()))?;
    answer(&PartialImage::of(&file)).ok_or_else(|| match Image::parse(&file) {
        Err(error) => refuse(error.into()),
        Ok(_) => refuse(Message::problem("has no Solo5 notes: it predates them")),
    })
}

fn abi(image: &PartialImage) -> Option<String> {
    let abi = image.abi?;
    // `target_name` adds the number of an unknown target; this tool prints none.
    let target = target_name(abi.target);
    let target = target.split(' ').next().unwrap_or_default();
    Some(format!(
        "{{\n  \"type\": \"solo5.abi\",\n  \"target\": \"{target}\",\n  \"version\": {}\n}}\n",
        abi.version
    ))
}

fn manifest(manifest: &Manifest) -> String {
    let mut text = format!(
        "{{\n  \"type\": \"solo5.manifest\",\n  \"version\": {VERSION},\n  \"devices\": [\n"
    );
    let mut devices = manifest.devices().iter().peekable();
    while let Some(Device { name, kind, .. }) = devices.next() {
        let comma = if devices.peek().is_some() { "," } else { "" };
        let _ = writeln!(
            text,
            "    {{ \"name\": \"{name}\", \"type\": \"{kind}\" }}{comma}"
        );
    }
    text + "  ]\n}\n"
}

/// Makes the C source of a manifest from its JSON source.
fn generate(source: &Path, output: &Path) -> Result<String, Error> {
    let file = source.to_owned();
    let text = read(source).map_err(|source| Error::Read {
        file: file.clone(),
        source,
    })?;
    let devices = source::devices(&text).map_err(|source::Error { line, rule }| Error::Source {
        file,
        line,
        rule,
    })?;
    let text = c_source(&devices);
    if output == Path::new("-") {
        return Ok(text);
    }
    let identity = |path| Files::default().take(path, Need::Read).ok()?.identity();
    let written = match identity(source) {
        Some(source) if identity(output) == Some(source) => {
            Err(io::Error::other("it is also the manifest's source"))
        }
        _ => std::fs::write(output, text),
    };
    written.map_err(|source| Error::Write {
        file: output.to_owned(),
        source,
    })?;
    Ok(String::new())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(open(path)?)
    };
    let mut text = Vec::new();
    source.take(LONGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LONGEST {
        Err(io::Error::other("it is longer than 64 KiB"))
    } else {
        Ok(text)
    }
}

/// Opens a file or a pipe. A device is not opened: that alone may have an effect.
fn open(path: &Path) -> io::Result<File> {
    let look = Files::default().take(path, Need::Read)?;
    let kind = look.metadata().file_type();
    if kind.is_char_device() || kind.is_block_device() {
        return Err(io::Error::other("it is a device"));
    }
    look.open(File::options().read(true))
}

/// Writes a C source for Solo5's `mft_abi.h`, whose macros make the note.
fn c_source(devices: &[source::Device]) -> String {
    let entries = devices.len() + 1;
    let mut text = format!(
        "/* The manifest of a Solo5 unikernel, made by tender {}. Change its source instead. */\n#define MFT_ENTRIES \
         {entries}\n#include \"mft_abi.h\"\n\nMFT1_NOTE_DECLARE_BEGIN {{\n\t.version = MFT_VERSION,\n\t.entries = \
         MFT_ENTRIES,\n\t.e = {{\n\t\t{{ .name = \"\", .type = MFT_RESERVED_FIRST }},\n",
        env!("CARGO_PKG_VERSION")
    );
    for source::Device { name, kind } in devices {
        let _ = writeln!(
            text,
            "\t\t{{ .name = \"{name}\", .type = MFT_DEV_{kind} }},"
        );
    }
    text + "\t},\n} MFT1_NOTE_DECLARE_END\n"
}
