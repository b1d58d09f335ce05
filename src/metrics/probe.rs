//! What would become of `--stats`, found out without making a file, for `--check`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;

use super::{Error, StatsFile};
use crate::cli::StatsTarget;
use crate::unix_socket::{may, may_make};

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
