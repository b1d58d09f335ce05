//! `--config`: a file with the same options as the command line, for those who keep one beside a unikernel. Only its
//! text is looked at here; who runs the tender reads it (`config_file`).
//!
//! A key becomes the option that it stands for, so a new option is a new key: its value is checked by the same code
//! and refused in the same words, after the place in the file.

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

/// A command line that is not all: the text of a file is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    pub(super) file: PathBuf,
    pub(super) args: Argv,
}

/// A path that a configuration file names, and that has to be there, or can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPath {
    /// The key, as the file has it.
    pub key: String,
    /// What the key is set to, from the root or from where the tender was started.
    pub path: PathBuf,
    /// Where the file says so.
    pub place: Place,
    /// It is made where it is missing, so only its directory has to be there.
    pub is_made: bool,
}

/// The option, and key, that says how messages look.
const FORM: &str = "log-format";

/// Options that answer the same question: one on the command line replaces the others in the file.
const ALIKE: [[&str; 2]; 3] = [
    ["net-ring", "no-net-ring"],
    ["verbose", "quiet"],
    ["block", "disk"],
];

impl Configured {
    /// The file whose text is wanted, as given.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The user that the command line names, be it in whatever else wrong.
    pub fn user(&self) -> Option<UserOption> {
        value::user_of(last_value(&self.args.options, "user")?.to_str()?)
    }

    /// The form of messages that the command line asks for, or else the file's `text`, be they in whatever else a
    /// mistake: for the message about that.
    pub fn log_format(&self, text: &[u8]) -> LogFormat {
        let line = last_value(&self.args.options, FORM)
            .and_then(|value| LogFormat::from_name(value.to_str()?));
        line.or_else(|| LogFormat::from_name(&entries::top_string(text, FORM)?))
            .unwrap_or_default()
    }

    /// What the command line asks for together with the file's `text`, and the paths of the file that count. Options
    /// on the command line win, one by one, and for devices one device's property by another.
    ///
    /// # Errors
    /// An [`Error::File`] with line and column for what is wrong with the file, whatever the command line has; and what
    /// [`parse`](super::parse) says.
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

/// Parses options that are neither `--help` nor `--version`, as those of a [`Configured`] and of files are.
fn parsed(options: Vec<OsString>) -> Result<Parsed, Error> {
    match options::parse(options)? {
        Outcome::Options(parsed) => Ok(parsed),
        Outcome::Help(_) | Outcome::Version => {
            Err(Error::Other("no configuration file is needed".to_owned()))
        }
    }
}

/// Whether the command line says what `entry` says, for the same device.
fn is_replaced(entry: &Entry, line: &Parsed) -> bool {
    let device = entry.device.as_deref();
    let mut alike = ALIKE
        .iter()
        .filter(|names| names.contains(&entry.name.as_str()))
        .flatten();
    line.gives(&entry.name, device) || alike.any(|name| line.gives(name, device))
}

/// Checks all values as those of options are. What is wrong is found by halving: of a list of options that is refused,
/// the shortest beginning that is refused ends with the culprit.
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
