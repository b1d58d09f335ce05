//! `tender inspect`: reports what a unikernel file is and needs, without running it. It supports
//! files of any architecture on any host, and needs only read access to the file.
//!
//! The result is a [`Report`], as text for people ([`Report::to_text`]) or as JSON for programs
//! ([`Report::to_json`], in the format of `docs/inspect.schema.json`). For an accepted file, it can
//! also be a configuration file ([`Report::to_toml`]) or annotations ([`Report::to_oci`]).

use std::path::{Path, PathBuf};

use guest_abi::boot::MAX_MEMORY;
use guest_abi::note::{Abi, target};

use crate::arch::{Architecture, Native};
use crate::config::Engine;
use crate::guest::era::Era;
use crate::guest::image::{self, Evidence, Image, Machine, PartialImage, Segment, Source};
use crate::guest::manifest::Manifest;
use crate::host::files::{Files, Need};
use crate::report::message::Message;
use crate::setup;

mod bindings;
mod document;
pub mod elftool;
mod oci;
#[cfg(test)]
mod tests;
mod text;
mod toml;

/// How the era of a unikernel was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognition {
    /// By its ABI note.
    Note,
    /// By other evidence, without a note.
    Evidence(Evidence),
}

/// The properties of a unikernel file.
#[derive(Debug)]
pub struct Report {
    /// Path of the file, as given.
    pub file: PathBuf,
    /// Its architecture.
    pub machine: Option<Machine>,
    /// Its interface, and how `tender` recognised it; none if the file is rejected.
    pub era: Option<(Era, Recognition)>,
    /// Its ABI note.
    pub abi: Option<Abi>,
    /// Version of the Solo5 bindings in it, if it can be determined with certainty.
    pub bindings: Option<String>,
    /// Its devices; none if it cannot declare any.
    pub manifest: Option<Manifest>,
    /// Its segments.
    pub segments: Vec<Segment>,
    /// Address of its first instruction.
    pub entry: Option<u64>,
    /// First address past its end, page aligned.
    pub end: Option<u64>,
    /// Minimum guest memory, in bytes.
    pub least_memory: Option<u64>,
    /// Why this tender rejects it, if it does.
    pub refusal: Option<String>,
}

/// Why a file that this tender accepts has no form other than the report.
#[derive(Debug, miette::Diagnostic, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum FormError {
    #[error("the path is not UTF-8, which {0} needs")]
    #[diagnostic(help("rename the file"))]
    Path(&'static str),
    #[error("device '{0}' has a name that no annotation can contain")]
    #[diagnostic(help("rename it in manifest.json and rebuild"))]
    Name(String),
}

/// Examines the file at `path`.
///
/// # Errors
/// The file cannot be opened. Errors in its content are part of the report.
pub fn inspect(path: &Path) -> Result<Report, setup::Error> {
    let file = setup::open(path, Files::default().take(path, Need::Read), false)?;
    Ok(Report::new(path, &file))
}

impl Report {
    /// Examines a file called `path`.
    pub fn new(path: &Path, source: &(impl Source + ?Sized)) -> Report {
        let mut report = match Image::parse(source) {
            Ok(image) => Report::accepted(path, image),
            Err(error) => Report::refused(path, PartialImage::of(source), &error),
        };
        report.bindings = bindings::version(source, &report.segments);
        report
    }

    fn accepted(path: &Path, image: Image) -> Report {
        let recognition = image
            .evidence
            .map_or(Recognition::Note, Recognition::Evidence);
        let abi = image.era.abi_version().map(|version| Abi {
            target: target::HVT,
            version,
            reserved: [0; 2],
        });
        let (end, least_memory) = (image.end(), image.least_memory());
        Report {
            file: path.to_owned(),
            machine: Some(image.machine),
            era: Some((image.era, recognition)),
            abi,
            bindings: None,
            manifest: image.manifest,
            segments: image.segments,
            entry: Some(image.entry),
            end: Some(end),
            least_memory: Some(least_memory),
            refusal: (least_memory > MAX_MEMORY).then(|| {
                let needed = least_memory >> 20;
                Message::of(&setup::Error::TooLarge { needed }).to_string()
            }),
        }
    }

    fn refused(path: &Path, partial: PartialImage, refusal: &image::Error) -> Report {
        Report {
            file: path.to_owned(),
            machine: partial.machine,
            era: None,
            abi: partial.abi,
            bindings: None,
            manifest: partial.manifest,
            segments: partial.segments,
            entry: partial.entry,
            end: None,
            least_memory: None,
            refusal: Some(Message::of(refusal).to_string()),
        }
    }

    /// Returns the names of the engines that run it on this processor.
    pub fn engines(&self) -> Vec<String> {
        let runs = self.refusal.is_none() && self.machine == Some(Native::MACHINE);
        let engines = Engine::ALL.into_iter().filter(|_| runs);
        engines.map(|engine| engine.name().to_owned()).collect()
    }

    /// Returns the arguments of a command line that runs it, with IFACE and PATH as placeholders;
    /// none if the file is rejected.
    pub fn command_line(&self) -> Option<Vec<String>> {
        let (None, Some(least_memory)) = (&self.refusal, self.least_memory) else {
            return None;
        };
        let mut args = vec![
            "tender".to_owned(),
            format!("--mem={}M", suggested_memory(least_memory) >> 20),
        ];
        args.extend(
            self.manifest
                .iter()
                .flat_map(Manifest::devices)
                .map(|device| device.option()),
        );
        args.extend(["--".to_owned(), self.file.to_string_lossy().into_owned()]);
        Some(args)
    }

    /// Returns options that the user may have to add, if the unikernel cannot declare its devices.
    pub fn further_options(&self) -> Vec<String> {
        match (self.era, &self.manifest) {
            (Some(_), None) => vec!["--net=IFACE".to_owned(), "--disk=PATH".to_owned()],
            _ => Vec::new(),
        }
    }
}

/// Suggests a memory size: at least 32 MiB more than the minimum, for the unikernel's heap.
fn suggested_memory(least: u64) -> u64 {
    const STEP: u64 = 32 << 20;
    (least + STEP).next_multiple_of(STEP).min(MAX_MEMORY)
}
