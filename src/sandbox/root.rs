//! The root directory of `--chroot`.

use std::io;
use std::path::Path;

use super::Error;
use crate::host::capabilities;
use crate::host::files::{Files, Look, Need};
use crate::host::signal::uninterrupted;

fn root_error(path: &Path, source: io::Error) -> Error {
    let hint = match source.raw_os_error() {
        Some(libc::EPERM) => "a system call filter forbids it: use RootDirectory= of the unit",
        Some(libc::EACCES) => "give a directory that this user may enter",
        Some(libc::ENOENT) => "create it; an empty directory is enough",
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
pub(crate) fn root(path: &Path, files: &mut Files) -> Result<Root, Error> {
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
            rustix::process::fchdir(&self.0)?;
            rustix::process::chroot(c".").map_err(io::Error::from)
        });
        entered.map_err(|source| root_error(self.0.path(), source))
    }
}
