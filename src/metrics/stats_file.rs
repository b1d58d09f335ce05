//! `--stats`: the file for the statistics at the end of a run.

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

/// A file that did not exist before. Dropping it removes it: a failed start changes nothing.
#[derive(Debug)]
pub struct NewFile(Place);

impl NewFile {
    /// Keeps the file. The directory's descriptor stays open, because the sandbox knows the number
    /// of the next one.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        self.0.remove();
    }
}

/// The output, opened before the sandbox.
#[derive(Debug)]
pub enum StatsFile {
    /// A file, with its name for messages.
    File(File, String, Option<NewFile>),
    /// Standard error.
    Stderr,
}

impl StatsFile {
    /// Opens the file without changing its content. Until [`StatsFile::begin`], a file that this
    /// creates is temporary.
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
            Target::New(place) => Ok((place.create_new()?, Some(NewFile(place)))),
        });
        match opened {
            Ok((file, made)) => Ok(StatsFile::File(file, name, made)),
            Err(source) => Err(Error::Stats { path: name, source }),
        }
    }

    /// Truncates the file: the guest is about to run, and old content is not about this run.
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

    /// Returns its descriptor, unless that is standard error's.
    pub fn descriptor(&self) -> Option<RawFd> {
        match self {
            StatsFile::File(file, ..) => Some(file.as_raw_fd()),
            StatsFile::Stderr => None,
        }
    }

    /// Writes the statistics. On standard error they are one line of any length.
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

/// Writes the document in pieces: as one string, the largest would need more heap than the sandbox
/// allows.
fn write_out(file: &File, document: &Value) -> io::Result<()> {
    let mut pieces = BufWriter::new(file);
    writeln!(pieces, "{document}")?;
    pieces.flush()
}

/// Checks that a file of this kind may be opened for statistics: a regular file, a pipe, a
/// terminal, /dev/null. Opening another device can have effects.
///
/// # Errors
/// The file is of another kind.
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
