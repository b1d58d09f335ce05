//! `--stats`: where the figures of a run are written when it has ended.

use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use super::{End, Error, Registry, document};
use crate::config::StatsTarget;
use crate::host::files::{Files, Place, Target};
use crate::host::signal::uninterrupted;
use crate::report::json::Value;
use crate::report::log_lines;

/// A file that was not there before. Dropped, it is not there again: a start that is refused changes nothing.
#[derive(Debug)]
pub struct Made(Place);

impl Made {
    /// Lets it stay. The directory's descriptor stays open, as the sandbox knows the number of the next one.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.0.remove();
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
    pub fn open(target: &StatsTarget, files: &mut Files) -> Result<StatsFile, Error> {
        let StatsTarget::File(path) = target else {
            return Ok(StatsFile::Stderr);
        };
        let name = path.to_string_lossy().into_owned();
        let opened = files.target(path).and_then(|target| match target {
            Target::There(look) => {
                check_kind(look.metadata())?;
                // A pipe without a reader is an error, not a reason to wait.
                Ok((
                    look.open(
                        File::options()
                            .write(true)
                            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY),
                    )?,
                    None,
                ))
            }
            Target::New(place) => Ok((place.create_new()?, Some(Made(place)))),
        });
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
        let StatsFile::File(file, name, made) = self else {
            return Ok(());
        };
        if let Some(made) = made.take() {
            made.keep();
        }
        let is_file = uninterrupted(|| file.metadata()).is_ok_and(|metadata| metadata.is_file());
        let emptied = if is_file { file.set_len(0) } else { Ok(()) };
        emptied.map_err(|source| Error::Stats {
            path: name.clone(),
            source,
        })
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
            StatsFile::Stderr => log_lines::write_long(document.one_line()),
        };
        if let Err(error) = written {
            let name = match self {
                StatsFile::File(_, name, _) => name,
                StatsFile::Stderr => "-",
            };
            log::warn!("--stats={name}: cannot write: {error}; the statistics are lost");
        }
    }
}

/// Writes the document in pieces: as one text, the largest would need more heap than the sandbox allows.
fn write_out(file: &File, document: &Value) -> io::Result<()> {
    let mut pieces = BufWriter::new(file);
    writeln!(pieces, "{document}")?;
    pieces.flush()
}

/// Whether a file of this kind may be opened for statistics: a regular file, a pipe, a terminal, /dev/null. To open
/// another device can have effects.
///
/// # Errors
/// It may not.
pub(super) fn check_kind(metadata: &Metadata) -> io::Result<()> {
    /// Major numbers of /dev/null and its like, of consoles, and of pseudoterminals.
    const HARMLESS: [u32; 11] = [1, 4, 5, 136, 137, 138, 139, 140, 141, 142, 143];
    let kind = metadata.file_type();
    match kind {
        _ if kind.is_file() || kind.is_fifo() => Ok(()),
        _ if kind.is_dir() => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        _ if kind.is_socket() => Err(io::Error::from_raw_os_error(libc::ENXIO)),
        _ if kind.is_char_device() && HARMLESS.contains(&libc::major(metadata.rdev())) => Ok(()),
        _ => Err(io::Error::other("this is a device")),
    }
}
