//! Reads the configuration file. Only here are paths of the command line accessed before the run.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::cli::config::MOST_ERRORS;
use crate::cli::{self, Command, Configured, Fault, NamedPath};
use crate::config::UserOption;
use crate::host::files::{Files, Identity, Look, Need, Use};
use crate::host::similar::similar_path;
use crate::report::message::Message;

/// Size limit of a configuration file in bytes; ten times a realistic file.
pub const LONGEST: u64 = 64 << 10;

/// Errors in the command line or the configuration file.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Argv(#[from] cli::Error),
    #[error("cannot read configuration file '{}': {source}", file.display())]
    #[diagnostic(help(
        "give the path of a TOML file{}",
        if source.kind() == io::ErrorKind::NotFound { "" } else { " that this user may read" }
    ))]
    Read { file: PathBuf, source: io::Error },
    #[error("configuration file '{}' is not a regular file", file.display())]
    #[diagnostic(help("give the path of a TOML file"))]
    NotAFile { file: PathBuf },
    #[error("configuration file '{}' is longer than {LONGEST} bytes", file.display())]
    #[diagnostic(help("give the path of a TOML file"))]
    TooLong { file: PathBuf },
}

impl Error {
    /// Returns the messages, one line each.
    pub fn messages(&self) -> Vec<String> {
        match self {
            Error::Argv(error) => error.messages(),
            error => vec![Message::of(error).to_string()],
        }
    }
}

/// Completes a command line with the configuration file that it names. Returns the command and the
/// identity of the file.
///
/// # Errors
/// The file cannot be read or is invalid. For a run, the paths that it names must exist; a check
/// reports missing paths itself, together with everything else.
pub fn complete(configured: Configured) -> Result<(Command, Option<Use>), Error> {
    let (text, identity) = read(&configured)?;
    let command = command(&configured, &text);
    if let Ok(Command::Run(config) | Command::Check(config)) = &command {
        // The file itself may set the user of the run.
        if config.user.is_some() {
            look(&configured, config.user.as_ref())?;
        }
    }
    if command.is_err() {
        // Errors use the format that the file sets, too.
        configured.log_format(&text).set_global();
    }
    let config_file = identity.map(|identity| Use::config_file(configured.file(), identity));
    Ok((command?, config_file))
}

fn command(configured: &Configured, text: &[u8]) -> Result<Command, cli::Error> {
    let (command, paths) = configured.parse(text)?;
    if let Command::Run(config) = &command {
        check_paths(configured.file(), &paths, config.user.is_some())?;
    }
    Ok(command)
}

fn look(configured: &Configured, user: Option<&UserOption>) -> Result<Look, Error> {
    let path = configured.file();
    Files::for_user(user)
        .take(path, Need::Read)
        .map_err(|source| Error::Read {
            file: path.to_owned(),
            source,
        })
}

fn read(configured: &Configured) -> Result<(Vec<u8>, Option<Identity>), Error> {
    let look = look(configured, configured.user().as_ref())?;
    let file = configured.file().to_owned();
    if !look.metadata().is_file() {
        return Err(Error::NotAFile { file });
    }
    let mut text = Vec::new();
    look.open(File::options().read(true))
        .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut text))
        .map_err(|source| Error::Read {
            file: file.clone(),
            source,
        })?;
    if text.len() as u64 > LONGEST {
        return Err(Error::TooLong { file });
    }
    Ok((text, look.identity()))
}

/// Reports the paths of `file` that do not exist, each with its place and a similar name. With
/// `--user` there is no such name: that user may control the directory.
fn check_paths(file: &Path, paths: &[NamedPath], has_user: bool) -> Result<(), cli::Error> {
    let is_missing = |path: &Path| {
        let error = fs::metadata(path).map_err(|error| error.kind());
        matches!(
            error,
            Err(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        )
    };
    let needed = |named: &NamedPath| match named.path.parent() {
        Some(directory) if named.is_created => directory.join("."),
        _ => named.path.clone(),
    };
    let missing = paths.iter().filter(|named| is_missing(&needed(named)));
    let faults = missing.take(MOST_ERRORS + 1);
    let faults: Vec<_> = faults
        .map(|named| (named.place, missing_path(named, has_user)))
        .collect();
    if faults.is_empty() {
        return Ok(());
    }
    Err(cli::Error::in_file(file, faults))
}

fn missing_path(named: &NamedPath, has_user: bool) -> Fault {
    let (key, path) = (named.key.clone(), named.path.display().to_string());
    if named.is_created {
        return Fault::NoDirectory { key, path };
    }
    let similar = (!has_user).then(|| similar_path(&named.path)).flatten();
    let meant = similar.map(|meant| format!("did you mean '{}'?", meant.display()));
    Fault::Missing { key, path, meant }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::config::Place;

    #[test]
    fn a_similar_path_is_suggested_only_without_a_user() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("app.hvt"), "").unwrap();
        let named = NamedPath {
            key: "unikernel".into(),
            path: directory.path().join("ap.hvt"),
            place: Place { line: 1, column: 1 },
            is_created: false,
        };
        let message = |has_user| {
            let checked = check_paths(Path::new("a"), std::slice::from_ref(&named), has_user);
            checked.map_err(Message::from).unwrap_err().to_string()
        };
        assert!(message(false).contains("did you mean"));
        assert!(message(true).ends_with("which does not exist"));
    }
}
