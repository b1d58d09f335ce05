//! `--stats`: where the figures of a run are written when it has ended.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use super::{End, Error, Registry, document};
use crate::cli::StatsTarget;
use crate::messages;

/// Where to write to: opened before the sandbox lets nothing be opened.
#[derive(Debug)]
pub enum StatsFile {
    /// A file, with its name for messages.
    File(File, String),
    /// Standard error.
    Stderr,
}

impl StatsFile {
    /// Opens or makes the file, and leaves alone what is in it.
    ///
    /// # Errors
    /// [`Error::Stats`].
    pub fn open(target: &StatsTarget) -> Result<StatsFile, Error> {
        let StatsTarget::File(path) = target else { return Ok(StatsFile::Stderr) };
        let name = path.to_string_lossy().into_owned();
        // A pipe without a reader is an error, not a reason to wait.
        let opened = File::options().write(true).create(true).truncate(false).custom_flags(libc::O_NONBLOCK).open(path);
        match opened {
            Ok(file) => Ok(StatsFile::File(file, name)),
            Err(source) => Err(Error::Stats { path: name, source }),
        }
    }

    /// The guest is about to run: what is in the file is not about it.
    ///
    /// # Errors
    /// [`Error::Stats`].
    pub fn begin(&self) -> Result<(), Error> {
        let StatsFile::File(file, name) = self else { return Ok(()) };
        let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
        let emptied = if is_file { file.set_len(0) } else { Ok(()) };
        emptied.map_err(|source| Error::Stats { path: name.clone(), source })
    }

    /// Its descriptor, unless that is standard error's.
    pub fn descriptor(&self) -> Option<RawFd> {
        match self {
            StatsFile::File(file, _) => Some(file.as_raw_fd()),
            StatsFile::Stderr => None,
        }
    }

    /// Writes what the run came to. On standard error it is one line, however long.
    pub fn write(&self, registry: &Registry, end: &End) {
        let document = document(registry, end);
        let written = match self {
            StatsFile::File(file, _) => (&*file).write_all(format!("{document}\n").as_bytes()),
            StatsFile::Stderr => messages::say_whole(format!("{}\n", document.to_line()).as_bytes()),
        };
        if let Err(error) = written {
            let name = match self {
                StatsFile::File(_, name) => name,
                StatsFile::Stderr => "-",
            };
            log::warn!("--stats={name}: cannot write: {error}; what the run came to is lost");
        }
    }
}
