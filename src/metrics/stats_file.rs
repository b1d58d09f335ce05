//! `--stats`: the file for the statistics at the end of a run.

use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use super::document::document;
use super::{Error, Registry};
use crate::config::StatsTarget;
use crate::host::files::{Files, Need, Place, Target};
use crate::host::signal::uninterrupted;
use crate::outcome::{Error as RunError, Outcome};
use crate::report::json::Value;
use crate::report::log_lines;

/// A file that did not exist before. Dropping it removes it: a failed start changes nothing.
#[derive(Debug)]
struct NewFile(Place);

impl Drop for NewFile {
    fn drop(&mut self) {
        self.0.remove();
    }
}

/// The output, opened before the sandbox.
#[derive(Debug)]
pub(crate) struct StatsFile {
    /// None for standard error.
    file: Option<File>,
    /// Its name, for messages.
    name: String,
    new: Option<NewFile>,
}

impl StatsFile {
    /// Opens the file without changing its content. Until [`StatsFile::begin`], a file that this
    /// creates is temporary.
    ///
    /// # Errors
    /// [`Error::Stats`].
    pub(crate) fn open(target: &StatsTarget, files: &mut Files) -> Result<StatsFile, Error> {
        let StatsTarget::File(path) = target else {
            return Ok(StatsFile {
                file: None,
                name: "-".to_owned(),
                new: None,
            });
        };
        let name = path.to_string_lossy().into_owned();
        // A pipe without a reader is an error, not a reason to wait.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let opened = files.target(path).and_then(|target| match target {
            Target::There(look) => {
                check_kind(look.metadata())?;
                let file = look.open(File::options().write(true).custom_flags(flags))?;
                Ok((file, None))
            }
            Target::New(place) => Ok((place.create_new()?, Some(NewFile(place)))),
        });
        match opened {
            Ok((file, new)) => Ok(StatsFile {
                file: Some(file),
                name,
                new,
            }),
            Err(source) => Err(Error::Stats { path: name, source }),
        }
    }

    /// Checks that [`StatsFile::open`] would succeed. Creates no file. Does not open a pipe,
    /// because its reader would see it end.
    ///
    /// # Errors
    /// [`Error::Stats`].
    pub(crate) fn probe(target: &StatsTarget, files: &mut Files) -> Result<(), Error> {
        let StatsTarget::File(path) = target else {
            return Ok(());
        };
        let usable = files.target(path).and_then(|target| match target {
            Target::There(look) => {
                check_kind(look.metadata())?;
                if look.metadata().is_file() {
                    look.open(File::options().write(true)).map(drop)
                } else {
                    look.check(Need::Write)
                }
            }
            Target::New(place) => place.check(),
        });
        usable.map_err(|source| Error::Stats {
            path: path.to_string_lossy().into_owned(),
            source,
        })
    }

    /// Truncates the file: the guest is about to run, and old content is not about this run.
    ///
    /// # Errors
    /// [`Error::Stats`].
    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        // The directory's descriptor stays open: closing it would change the number of the next
        // descriptor, which the sandbox allows by number.
        std::mem::forget(self.new.take());
        let is_file = |file: &&File| {
            uninterrupted(|| file.metadata()).is_ok_and(|metadata| metadata.is_file())
        };
        let regular = self.file.as_ref().filter(is_file);
        regular
            .map_or(Ok(()), |file| file.set_len(0))
            .map_err(|source| Error::Stats {
                path: self.name.clone(),
                source,
            })
    }

    /// Returns its descriptor, unless that is standard error's.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.file.as_ref().map(File::as_raw_fd)
    }

    /// Writes the statistics. On standard error they are one line of any length.
    pub(crate) fn write(&self, registry: &Registry, outcome: &Result<Outcome, RunError>) {
        let document = document(registry, outcome);
        let written = match &self.file {
            Some(file) => write_out(file, &document),
            None => log_lines::write_long(document.one_line()),
        };
        if let Err(error) = written {
            let name = &self.name;
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
fn check_kind(metadata: &Metadata) -> io::Result<()> {
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
