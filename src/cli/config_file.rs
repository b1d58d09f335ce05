//! The configuration file, read: the one place where what the command line names is looked at before the run.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::cli::{self, Command, Configured, Fault, NamedPath, nearest};
use crate::config::{Config, UserOption};
use crate::host::files::{Files, Identity, Look, Need, Use};

/// Longest configuration file, in bytes. The longest that says anything has a tenth of it.
pub const LONGEST: u64 = 64 << 10;

/// Why there is no command that could be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something is wrong with the words of the command line, or with those of the file.
    #[error("{0}")]
    Argv(#[from] cli::Error),
    /// The file cannot be read.
    #[error(
        "cannot read configuration file '{}': {source}; give the path of a TOML file that this user may read",
        file.display()
    )]
    Read {
        /// The file.
        file: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// The file is none.
    #[error("configuration file '{}' is not a regular file; give the path of a TOML file", file.display())]
    NotAFile {
        /// The file.
        file: PathBuf,
    },
    /// The file is none that somebody wrote for this.
    #[error(
        "configuration file '{}' is longer than {LONGEST} bytes; give the path of a TOML file",
        file.display()
    )]
    TooLong {
        /// The file.
        file: PathBuf,
    },
}

/// Completes a command line by the configuration file that it names. Returns the command, and what the file is.
///
/// # Errors
/// The file cannot be read, or says what cannot be meant. For a run, the paths that it names have to be there; a check
/// tells of them by itself, and of everything else besides.
pub fn complete(configured: Configured) -> Result<(Command, Option<Use>), Error> {
    let (text, identity) = read(&configured, configured.user().as_ref())?;
    let command = command(&configured, &text);
    if let Ok(
        Command::Run(Config {
            user: user @ Some(_),
            ..
        })
        | Command::Check(Config {
            user: user @ Some(_),
            ..
        }),
    ) = &command
    {
        // The file itself may say whose run it is.
        look(&configured, user.as_ref())?;
    }
    if command.is_err() {
        // A mistake, too, is told in the form that the file asks for.
        configured.log_format(&text).set_global();
    }
    Ok((
        command?,
        identity.map(|identity| Use::config_file(configured.file(), identity)),
    ))
}

fn command(configured: &Configured, text: &[u8]) -> Result<Command, cli::Error> {
    let (command, paths) = configured.parse(text)?;
    if let Command::Run(_) = command {
        check_paths(configured.file(), &paths)?;
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

fn read(
    configured: &Configured,
    user: Option<&UserOption>,
) -> Result<(Vec<u8>, Option<Identity>), Error> {
    let path = configured.file();
    let read_error = |source| Error::Read {
        file: path.to_owned(),
        source,
    };
    let look = look(configured, user)?;
    if !look.metadata().is_file() {
        return Err(Error::NotAFile {
            file: path.to_owned(),
        });
    }
    let file = look.open(File::options().read(true)).map_err(read_error)?;
    let mut text = Vec::new();
    file.take(LONGEST + 1)
        .read_to_end(&mut text)
        .map_err(read_error)?;
    if text.len() as u64 > LONGEST {
        return Err(Error::TooLong {
            file: path.to_owned(),
        });
    }
    Ok((text, look.identity()))
}

/// Says of the first path that leads nowhere where it stands in `file`, and what is there instead.
fn check_paths(file: &Path, paths: &[NamedPath]) -> Result<(), cli::Error> {
    let is_missing = |path: &Path| {
        let error = fs::metadata(path).err();
        error.is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            )
        })
    };
    let needed = |named: &NamedPath| match named.path.parent() {
        Some(directory) if named.is_made => directory.join("."),
        _ => named.path.clone(),
    };
    let Some(named) = paths.iter().find(|named| is_missing(&needed(named))) else {
        return Ok(());
    };
    let (key, path) = (named.key.clone(), named.path.display().to_string());
    let fault = if named.is_made {
        Fault::NoDirectory { key, path }
    } else {
        let meant =
            neighbour(&named.path).map(|meant| format!("; did you mean '{}'?", meant.display()));
        Fault::Missing {
            key,
            path,
            hint: meant.unwrap_or_default(),
        }
    };
    Err(cli::Error::File {
        file: file.to_owned(),
        place: named.place,
        fault,
    })
}

/// The path of the file that is called most like `path`, in the same directory.
fn neighbour(path: &Path) -> Option<PathBuf> {
    let directory = path.parent()?;
    let listed = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    let names = fs::read_dir(listed)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let names: Vec<String> = names.collect();
    Some(directory.join(nearest(
        path.file_name()?.to_str()?,
        names.iter().map(String::as_str),
    )?))
}
