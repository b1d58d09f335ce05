//! `tender inspect`: what a unikernel file is and what it needs, without running it. Works for files of any
//! architecture, on any host, and needs no right but to read the file.
//!
//! What is found is a [`Report`]; it can be had as a text for people ([`Report::to_text`]) and as JSON for programs
//! ([`Report::to_json`], whose form `docs/inspect.schema.json` promises).

use std::path::{Path, PathBuf};

use guest_abi::boot::MAX_MEMORY;
use guest_abi::note::{Abi, target};

use crate::guest::era::Era;
use crate::guest::image::{Evidence, Image, Machine, PartialImage, Segment, Source};
use crate::guest::manifest::Manifest;
use crate::host::files::{Files, Need};
use crate::setup;

mod bindings;
mod document;
pub mod elftool;
#[cfg(test)]
mod tests;
mod text;

/// How the era of a unikernel was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognition {
    /// Its ABI note says it.
    Note,
    /// It has no note, but something else that gives it away.
    Evidence(Evidence),
}

/// Everything that is known of a unikernel file.
#[derive(Debug)]
pub struct Report {
    /// The file, as the operator named it.
    pub file: PathBuf,
    /// Its processor.
    pub machine: Option<Machine>,
    /// Its interface, and how that is known; none where it is refused.
    pub era: Option<(Era, Recognition)>,
    /// What its ABI note says.
    pub abi: Option<Abi>,
    /// Version of the Solo5 bindings in it, where that can be told with certainty.
    pub bindings: Option<String>,
    /// Its devices; none where it cannot declare any.
    pub manifest: Option<Manifest>,
    /// Its segments.
    pub segments: Vec<Segment>,
    /// Address of its first instruction.
    pub entry: Option<u64>,
    /// First address after it, page aligned.
    pub end: Option<u64>,
    /// Least guest memory that it starts with, in bytes.
    pub least_memory: Option<u64>,
    /// Why this tender does not run it, if it does not.
    pub refusal: Option<String>,
}

/// Examines the file at `path`.
///
/// # Errors
/// The file cannot be opened. Whatever is wrong with its content is in the report.
pub fn inspect(path: &Path) -> Result<Report, setup::Error> {
    let file = setup::open(Files::default().take(path, Need::Read))?;
    Ok(Report::new(path, &file))
}

impl Report {
    /// Examines a file called `path`.
    pub fn new(path: &Path, source: &(impl Source + ?Sized)) -> Report {
        let mut report = match Image::parse(source) {
            Ok(image) => Report::accepted(path, image),
            Err(error) => Report::refused(path, PartialImage::of(source), error.to_string()),
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
                setup::Error::TooLarge {
                    needed: least_memory >> 20,
                }
                .to_string()
            }),
        }
    }

    fn refused(path: &Path, sketch: PartialImage, refusal: String) -> Report {
        Report {
            file: path.to_owned(),
            machine: sketch.machine,
            era: None,
            abi: sketch.abi,
            bindings: None,
            manifest: sketch.manifest,
            segments: sketch.segments,
            entry: sketch.entry,
            end: None,
            least_memory: None,
            refusal: Some(refusal),
        }
    }

    /// The words of a command line that runs it, with IFACE and PATH where the operator's own choice belongs; none
    /// where nothing runs it.
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

    /// Options that may have to be added, where the unikernel cannot say what it needs.
    pub fn further_options(&self) -> Vec<String> {
        match (self.era, &self.manifest) {
            (Some(_), None) => vec!["--net=IFACE".to_owned(), "--disk=PATH".to_owned()],
            _ => Vec::new(),
        }
    }
}

/// Memory to start with: at least 32 MiB for the unikernel's heap, whatever it is for.
fn suggested_memory(least: u64) -> u64 {
    const STEP: u64 = 32 << 20;
    (least + STEP).next_multiple_of(STEP).min(MAX_MEMORY)
}
