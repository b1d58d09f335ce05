//! The root directory of `--chroot`.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use libc::c_int;

use super::Error;
use crate::host::capabilities;
use crate::host::files::{Files, Look, Need};
use crate::host::signal::uninterrupted;

fn root_error(path: &Path, source: io::Error) -> Error {
    let hint = match source.raw_os_error() {
        Some(libc::EPERM) => "a system call filter forbids it: use RootDirectory= of the unit",
        Some(libc::EACCES) => "give a directory that this user may enter",
        _ => "give a directory, which may be empty",
    };
    Error::Root {
        path: path.to_owned(),
        source,
        hint,
    }
}

/// The future root directory.
#[derive(Debug)]
pub struct Root(Look);

/// Returns the directory `path`, if this process may make it its root directory.
///
/// # Errors
/// It may not, or there is no such directory.
pub fn root(path: &Path, files: &mut Files) -> Result<Root, Error> {
    if !capabilities::has(capabilities::CapabilitySet::SYS_CHROOT) {
        return Err(Error::Privilege);
    }
    files
        .take(path, Need::Enter)
        .map(Root)
        .map_err(|source| root_error(path, source))
}

impl Root {
    /// Enters the directory; only files below it are reachable afterwards.
    pub fn enter(self) -> Result<(), Error> {
        // The current directory is the new root, so no path leads out of it.
        let entered = uninterrupted(|| {
            // SAFETY: the descriptor is open.
            done(unsafe { libc::fchdir(self.0.as_raw_fd()) })?;
            // SAFETY: the string is a constant.
            done(unsafe { libc::chroot(c".".as_ptr()) })
        });
        entered.map_err(|source| root_error(self.0.path(), source))
    }
}

fn done(result: c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
