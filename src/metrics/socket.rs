//! The socket of `--metrics`: one of its own for each run, for the user who started it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use super::Error;
use crate::cli::MetricsAddress;

/// Read and write for the owner: to connect takes the right to write.
const UMASK: libc::mode_t = 0o177;

/// A socket that listens. Dropped, its file is removed, unless that was left.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    file: Option<PathBuf>,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.file {
            let _ = fs::remove_file(path);
        }
    }
}

impl Listener {
    /// Listens at `address`. A socket that a run left behind is replaced; whatever else is there stays. Not to be called
    /// while there is a second thread.
    ///
    /// # Errors
    /// Something is there, or nothing can be.
    pub fn bind(address: &MetricsAddress) -> Result<Listener, Error> {
        let (socket, file, name) = match address {
            MetricsAddress::Path(path) => (bind_path(path)?, Some(path.clone()), path.to_string_lossy().into_owned()),
            MetricsAddress::Abstract(name) => (bind_name(name)?, None, shown(name)),
        };
        let listener = Listener { socket, file };
        // A client that is gone before it is accepted must not be waited for.
        listener.socket.set_nonblocking(true).map_err(|source| Error::Bind { path: name, source })?;
        Ok(listener)
    }

    /// Leaves the file where it is: nobody can remove it from within a sandbox.
    pub fn leave_file(&mut self) {
        self.file = None;
    }
}

fn shown(name: &[u8]) -> String {
    format!("@{}", String::from_utf8_lossy(name))
}

fn bind_name(name: &[u8]) -> Result<UnixListener, Error> {
    let bound = SocketAddr::from_abstract_name(name).and_then(|address| UnixListener::bind_addr(&address));
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::InUse { path: shown(name) },
        _ => Error::Bind { path: shown(name), source },
    })
}

fn bind_path(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::Bind { path: path.to_string_lossy().into_owned(), source };
    match bind_privately(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            check_dead(path)?;
            fs::remove_file(path).map_err(failed)?;
            bind_privately(path).map_err(failed)
        }
        bound => bound.map_err(failed),
    }
}

fn bind_privately(path: &Path) -> io::Result<UnixListener> {
    // SAFETY: the call takes a number; no other thread makes a file meanwhile.
    let before = unsafe { libc::umask(UMASK) };
    let bound = UnixListener::bind(path);
    // SAFETY: as above.
    unsafe { libc::umask(before) };
    bound
}

/// Whether what is at `path` is a socket of this user that belongs to nobody any more.
pub(super) fn check_dead(path: &Path) -> Result<(), Error> {
    let name = || path.to_string_lossy().into_owned();
    let metadata = fs::symlink_metadata(path).map_err(|source| Error::Bind { path: name(), source })?;
    let kind = match metadata.file_type() {
        kind if kind.is_socket() => None,
        kind if kind.is_dir() => Some("directory"),
        kind if kind.is_symlink() => Some("symbolic link"),
        kind if kind.is_file() => Some("file"),
        _ => Some("pipe or device"),
    };
    if let Some(kind) = kind {
        return Err(Error::Taken { path: name(), kind });
    }
    // SAFETY: the call takes nothing and cannot fail.
    if metadata.uid() != unsafe { libc::geteuid() } {
        return Err(Error::Foreign { path: name(), uid: metadata.uid() });
    }
    // A datagram cannot be sent to a socket of streams, so nobody is disturbed, and nothing waits for a server that is
    // busy: the kernel says that the type is wrong, or that there is nobody.
    match UnixDatagram::unbound().and_then(|socket| socket.connect(path)) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => Err(Error::InUse { path: name() }),
        Err(source) => Err(Error::Bind { path: name(), source }),
        Ok(()) => Err(Error::InUse { path: name() }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn bind(path: &Path) -> Result<Listener, String> {
        Listener::bind(&MetricsAddress::Path(path.to_owned())).map_err(|error| error.to_string())
    }

    #[test]
    fn a_socket_is_its_users_and_goes_with_its_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m");
        let listener = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_was_left_behind_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m");
        let mut first = bind(&path).unwrap();
        assert!(bind(&path).unwrap_err().contains("somebody listens there"));
        first.leave_file();
        drop(first);
        assert!(path.exists());
        let _second = bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        let datagrams = directory.path().join("d");
        let _socket = UnixDatagram::bind(&datagrams).unwrap();
        assert!(bind(&datagrams).unwrap_err().contains("somebody listens there"));
    }

    #[test]
    fn what_is_no_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(bind(&file).unwrap_err().contains("this is a file"));
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        assert!(bind(directory.path()).unwrap_err().contains("this is a directory"));
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(bind(&link).unwrap_err().contains("this is a symbolic link"));
        assert!(bind(Path::new("/nonexistent/m")).unwrap_err().contains("No such file"));
        assert!(bind(&directory.path().join("m".repeat(200))).is_err());
    }

    #[test]
    fn a_name_without_a_file_is_free_again_at_the_end() {
        let name = format!("tender-test-{}", std::process::id()).into_bytes();
        let address = MetricsAddress::Abstract(name);
        let first = Listener::bind(&address).unwrap();
        assert!(Listener::bind(&address).unwrap_err().to_string().contains("somebody listens there"));
        drop(first);
        assert!(Listener::bind(&address).is_ok());
    }
}
