//! `--config`: a file with the options of the command line. Only its text is parsed here;
//! `config_file` reads it.
//!
//! Each option of the table is a key. The same functions put its value into the configuration and
//! report the same errors, prefixed with the place in the file.

mod entries;
mod error;
mod nearest;
mod syntax;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use self::entries::Content;
pub(super) use self::entries::MOST_ERRORS;
pub use self::error::{Fault, Place};
pub(super) use self::nearest::meant;
use super::argv::Argv;
use super::options::OptionValue;
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

impl Configured {
    /// Returns the path of the file, as given.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the user of a command line that may be invalid otherwise.
    pub fn user(&self) -> Option<UserOption> {
        value::user(self.args.last("user")?).ok()
    }

    /// Returns the log format that the command line sets, or else the file's `text`. Either may be
    /// invalid otherwise, so that its error uses that format.
    pub fn log_format(&self, text: &[u8]) -> LogFormat {
        let line = self.args.last("log-format").map(value::log_format);
        line.and_then(Result::ok)
            .or_else(|| LogFormat::from_name(&entries::top_string(text, "log-format")?))
            .unwrap_or_default()
    }

    /// Parses the command line together with the file's `text`. Returns the command, and the paths
    /// of the file that are used. Options on the command line override those of the file, one by
    /// one; for devices, one property by one.
    ///
    /// # Errors
    /// An [`Error::File`] with line and column, or several, if the file is invalid, for any command
    /// line; and the errors of [`parse`](super::parse).
    pub fn parse(&self, text: &[u8]) -> Result<(Command, Vec<NamedPath>), Error> {
        let file = &self.file;
        let content = Content::read(text, file).map_err(|errors| Error::in_file(file, errors))?;
        let args = &self.args;
        let mut options: Vec<&OptionValue> = args.options.iter().collect();
        let mut paths = Vec::new();
        let unikernel = match (&args.unikernel, content.unikernel) {
            (Some(unikernel), _) if !unikernel.is_empty() => unikernel.clone(),
            (_, Some(named)) => {
                paths.push(named.clone());
                named.path.into()
            }
            (_, None) => {
                let (file, taken) = (file.clone(), args.taken.clone());
                return Err(Error::NoUnikernelInFile { file, taken });
            }
        };
        for entry in &content.entries {
            let field = entry.option.field();
            if !args.options.iter().any(|given| given.field() == field) {
                options.push(&entry.option);
                paths.extend(entry.path.clone());
            }
        }
        let arguments = match &args.arguments[..] {
            [] => content.arguments,
            arguments => arguments.to_vec(),
        };
        Ok((requested(options, unikernel, arguments)?, paths))
    }
}
