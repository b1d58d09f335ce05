//! `--config`: a file with the options of the command line. Only its text is parsed here;
//! `config_file` reads it.
//!
//! Each key becomes the option of the same name, so a new option is a new key. The same code checks
//! its value and reports the same errors, prefixed with the place in the file.

mod entries;
mod error;
mod nearest;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use self::entries::{Content, Entry};
pub use self::error::{Fault, Place};
pub(super) use self::nearest::meant;
pub use self::nearest::nearest;
use super::argv::{Argv, last_value};
use super::options::{self, Outcome, Parsed};
use super::{Command, Error, requested, value};
use crate::config::UserOption;
use crate::report::log_lines::LogFormat;

/// A command line that names a configuration file, which is still to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    pub(super) file: PathBuf,
    pub(super) args: Argv,
}

/// A path in a configuration file that must exist, or is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPath {
    /// The key, as written in the file.
    pub key: String,
    /// Its value, relative to the root directory or the working directory.
    pub path: PathBuf,
    /// Its place in the file.
    pub place: Place,
    /// Whether the run creates it, so that only its directory must exist.
    pub is_created: bool,
}

/// The option, and key, that sets the log format.
const LOG_FORMAT: &str = "log-format";

/// Options that exclude each other: one on the command line replaces the others in the file.
const EXCLUSIVE: [[&str; 2]; 3] = [
    ["net-ring", "no-net-ring"],
    ["verbose", "quiet"],
    ["block", "disk"],
];

impl Configured {
    /// Returns the path of the file, as given.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the user of a command line that may be invalid otherwise.
    pub fn user(&self) -> Option<UserOption> {
        value::user_of(last_value(&self.args.options, "user")?.to_str()?)
    }

    /// Returns the log format that the command line sets, or else the file's `text`. Either may be
    /// invalid otherwise, so that its error uses that format.
    pub fn log_format(&self, text: &[u8]) -> LogFormat {
        let line = last_value(&self.args.options, LOG_FORMAT)
            .and_then(|value| LogFormat::from_name(value.to_str()?));
        line.or_else(|| LogFormat::from_name(&entries::top_string(text, LOG_FORMAT)?))
            .unwrap_or_default()
    }

    /// Parses the command line together with the file's `text`. Returns the command, and the paths
    /// of the file that are used. Options on the command line override those of the file, one by
    /// one; for devices, one property by one.
    ///
    /// # Errors
    /// An [`Error::File`] with line and column if the file is invalid, for any command line; and
    /// the errors of [`parse`](super::parse).
    pub fn parse(&self, text: &[u8]) -> Result<(Command, Vec<NamedPath>), Error> {
        let mut content = Content::read(text, self.file.parent().unwrap_or(Path::new("")))
            .and_then(|content| check(&content.entries).map(|()| content))
            .map_err(|(place, fault)| Error::File {
                file: self.file.clone(),
                place,
                fault,
            })?;
        let Argv {
            options: given,
            unikernel,
            arguments,
            taken,
        } = self.args.clone();
        let line = parsed(given.clone())?;
        content.entries.retain(|entry| !is_replaced(entry, &line));
        let mut paths: Vec<NamedPath> = content
            .entries
            .iter()
            .filter_map(|entry| entry.path.clone())
            .collect();
        let (devices, others): (Vec<Entry>, Vec<Entry>) =
            content.entries.into_iter().partition(Entry::is_device);
        let parsed_all = parsed(
            others
                .into_iter()
                .flat_map(|entry| entry.args)
                .chain(given)
                .collect(),
        )?;
        let devices = parsed(devices.into_iter().flat_map(|entry| entry.args).collect())?;
        let unikernel = match (unikernel.filter(|path| !path.is_empty()), content.unikernel) {
            (Some(unikernel), _) => unikernel,
            (None, Some(named)) => {
                paths.insert(0, named.clone());
                named.path.into()
            }
            (None, None) => {
                return Err(Error::NoUnikernelInFile {
                    file: self.file.clone(),
                    taken,
                });
            }
        };
        let arguments = if arguments.is_empty() {
            content.arguments
        } else {
            arguments
        };
        Ok((
            requested(&parsed_all, Some(&devices), unikernel, arguments)?,
            paths,
        ))
    }
}

/// Parses options that include neither `--help` nor `--version`, as those of a [`Configured`] and
/// of files.
fn parsed(options: Vec<OsString>) -> Result<Parsed, Error> {
    match options::parse(options)? {
        Outcome::Options(parsed) => Ok(parsed),
        Outcome::Help(_) | Outcome::Version => {
            Err(Error::Other("no configuration file is needed".to_owned()))
        }
    }
}

/// Returns whether the command line overrides `entry`, for the same device.
fn is_replaced(entry: &Entry, line: &Parsed) -> bool {
    let device = entry.device.as_deref();
    let mut exclusive = EXCLUSIVE
        .iter()
        .filter(|names| names.contains(&entry.name.as_str()))
        .flatten();
    line.gives(&entry.name, device) || exclusive.any(|name| line.gives(name, device))
}

/// Checks all values like those of options. A binary search finds the error: the shortest rejected
/// prefix of the list ends with the culprit.
fn check(entries: &[Entry]) -> Result<(), (Place, Fault)> {
    let refusal = |entries: &[Entry]| {
        let args = entries
            .iter()
            .flat_map(|entry| entry.args.iter().cloned())
            .collect();
        parsed(args)
            .and_then(|parsed| requested(&parsed, None, OsString::from("-"), Vec::new()))
            .err()
    };
    let Some(mut error) = refusal(entries) else {
        return Ok(());
    };
    let (mut accepted, mut refused) = (0, entries.len());
    while refused - accepted > 1 {
        let middle = accepted + (refused - accepted) / 2;
        match refusal(&entries[..middle]) {
            None => accepted = middle,
            Some(earlier) => (refused, error) = (middle, earlier),
        }
    }
    Err((entries[accepted].place, Fault::Option(Box::new(error))))
}
