//! `--stats`: where the figures of a run are written when it has ended.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::{End, Error, Registry, document};
use crate::cli::StatsTarget;
use crate::json::Value;
use crate::messages;
use crate::signal::uninterrupted;

/// A file that was not there before. Dropped, it is not there again: a start that is refused changes nothing.
#[derive(Debug)]
pub struct Made(PathBuf);

impl Made {
    /// Lets it stay.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // If it is gone already, so much the better.
        let _ = fs::remove_file(&self.0);
    }
}

/// Where to write to: opened before the sandbox lets nothing be opened.
#[derive(Debug)]
pub enum StatsFile {
    /// A file, with its name for messages.
    File(File, String, Option<Made>),
    /// Standard error.
    Stderr,
}

impl StatsFile {
    /// Opens the file and leaves alone what is in it, or makes it, until [`StatsFile::begin`] only for the time being.
    ///
    /// # Errors
    /// [`Error::Stats`].
    pub fn open(target: &StatsTarget) -> Result<StatsFile, Error> {
        let StatsTarget::File(path) = target else { return Ok(StatsFile::Stderr) };
        let name = path.to_string_lossy().into_owned();
        // A pipe without a reader is an error, not a reason to wait.
        let mut options = File::options();
        options.write(true).custom_flags(libc::O_NONBLOCK);
        let opened = match options.clone().create_new(true).open(path) {
            Ok(file) => Ok((file, Some(Made(path.clone())))),
            // A symbolic link to nothing is there too.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                options.create(true).truncate(false).open(path).map(|file| (file, None))
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok((file, made)) => Ok(StatsFile::File(file, name, made)),
            Err(source) => Err(Error::Stats { path: name, source }),
        }
    }

    /// The guest is about to run: what is in the file is not about it.
    ///
    /// # Errors
    /// [`Error::Stats`].
    pub fn begin(&mut self) -> Result<(), Error> {
        let StatsFile::File(file, name, made) = self else { return Ok(()) };
        if let Some(made) = made.take() {
            made.keep();
        }
        let is_file = uninterrupted(|| file.metadata()).is_ok_and(|metadata| metadata.is_file());
        let emptied = if is_file { file.set_len(0) } else { Ok(()) };
        emptied.map_err(|source| Error::Stats { path: name.clone(), source })
    }

    /// Its descriptor, unless that is standard error's.
    pub fn descriptor(&self) -> Option<RawFd> {
        match self {
            StatsFile::File(file, ..) => Some(file.as_raw_fd()),
            StatsFile::Stderr => None,
        }
    }

    /// Writes what the run came to. On standard error it is one line, however long.
    pub fn write(&self, registry: &Registry, end: &End) {
        let document = document(registry, end);
        let written = match self {
            StatsFile::File(file, ..) => write_out(file, &document),
            StatsFile::Stderr => messages::write_long(document.one_line()),
        };
        if let Err(error) = written {
            let name = match self {
                StatsFile::File(_, name, _) => name,
                StatsFile::Stderr => "-",
            };
            log::warn!("--stats={name}: cannot write: {error}; what the run came to is lost");
        }
    }
}

/// Writes the document in pieces: as one text, the largest would take more heap than the sandbox lets grow.
fn write_out(file: &File, document: &Value) -> io::Result<()> {
    let mut pieces = BufWriter::new(file);
    writeln!(pieces, "{document}")?;
    pieces.flush()
}
