//! What would become of `--stats` and `--metrics`, found out without making a file, for `--check`.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use super::socket::{Listener, check_dead};
use super::{Error, StatsFile};
use crate::cli::{MetricsAddress, StatsTarget};
use crate::signal::uninterrupted;

impl StatsFile {
    /// Whether [`StatsFile::open`] would succeed. Makes no file; a pipe is not opened, as its reader would see it end.
    ///
    /// # Errors
    /// [`Error::Stats`].
    pub fn probe(target: &StatsTarget) -> Result<(), Error> {
        let StatsTarget::File(path) = target else { return Ok(()) };
        let usable = match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => File::options().write(true).open(path).map(drop),
            Ok(metadata) if metadata.is_dir() => Err(io::Error::from_raw_os_error(libc::EISDIR)),
            Ok(metadata) if metadata.file_type().is_socket() => Err(io::Error::from_raw_os_error(libc::ENXIO)),
            Ok(_) => may(path, libc::W_OK),
            Err(error) if error.kind() == io::ErrorKind::NotFound => may_make(path),
            Err(error) => Err(error),
        };
        usable.map_err(|source| Error::Stats { path: path.to_string_lossy().into_owned(), source })
    }
}

impl Listener {
    /// Whether [`Listener::bind`] would succeed. Makes no file, and removes none; a name without a file is taken for a
    /// moment.
    ///
    /// # Errors
    /// Those of [`Listener::bind`].
    pub fn probe(address: &MetricsAddress) -> Result<(), Error> {
        let MetricsAddress::Path(path) = address else { return Listener::bind(address).map(drop) };
        if fs::symlink_metadata(path).is_ok() {
            check_dead(path)?;
        }
        let possible = SocketAddr::from_pathname(path).and_then(|_| may_make(path));
        possible.map_err(|source| Error::Bind { path: path.to_string_lossy().into_owned(), source })
    }
}

/// Whether this process may make, and remove, a file at `path`.
fn may_make(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if directory.as_os_str().is_empty() => may(Path::new("."), libc::W_OK | libc::X_OK),
        Some(directory) => may(directory, libc::W_OK | libc::X_OK),
        None => Err(io::Error::from_raw_os_error(libc::EISDIR)),
    }
}

/// Whether this process, as the user that it acts for, has these rights to what is at `path`.
fn may(path: &Path, rights: libc::c_int) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends with a NUL, and the rest are numbers.
    uninterrupted(|| match unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), rights, libc::AT_EACCESS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    })
}
