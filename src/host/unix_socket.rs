//! Listening Unix sockets for `--metrics` and `--gdb-port`, owned by the user who started the run.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::SocketAddress;
use crate::host::files::{Files, Place};
use crate::host::signal;

/// Error of listening at an address, with the option that gives it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum Error {
    #[error("{option}=unix:{path}: {source}; give a path in a writable directory")]
    Bind {
        option: &'static str,
        path: String,
        source: io::Error,
    },
    #[error("{option}=unix:{path}: this is a {kind}; give a path that is free")]
    Taken {
        option: &'static str,
        path: String,
        kind: &'static str,
    },
    #[error("{option}=unix:{path}: another process listens there; give each run its own socket")]
    InUse { option: &'static str, path: String },
    #[error(
        "{option}=unix:{path}: a socket of another user (uid {uid}) is there; remove it, or give another path"
    )]
    Foreign {
        option: &'static str,
        path: String,
        uid: u32,
    },
    #[error(
        "{option}: cannot wait for clients: {source}; the seccomp filter around tender must allow ppoll"
    )]
    Wait {
        option: &'static str,
        source: io::Error,
    },
}

/// Read and write for the owner only: a client needs the right to write.
const UMASK: libc::mode_t = 0o177;

/// A listening socket. Drop removes its file, unless [`Listener::leave_file`] was called.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    file: Option<Place>,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(place) = &self.file {
            place.remove();
        }
    }
}

impl Listener {
    /// Listens at `address`. Replaces a socket that an earlier run left, and no other file. Must
    /// not be called while there is a second thread: it changes the umask.
    ///
    /// # Errors
    /// Another file is there, or the host refuses.
    pub fn bind(
        option: &'static str,
        address: &SocketAddress,
        files: &mut Files,
    ) -> Result<Listener, Error> {
        may_wait(option)?;
        let (socket, file) = match address {
            SocketAddress::Path(path) => {
                let place = place(option, path, files)?;
                (bind_path(option, path, &place)?, Some(place))
            }
            SocketAddress::Abstract(name) => (bind_name(option, name, address)?, None),
        };
        let listener = Listener { socket, file };
        // A client may disconnect before the tender accepts it; accept4 must not block in that
        // case.
        let ready = listener.socket.set_nonblocking(true);
        ready.map_err(|source| Error::Bind {
            option,
            path: address.to_string(),
            source,
        })?;
        Ok(listener)
    }

    /// Checks whether [`Listener::bind`] would succeed. Makes and removes no file; binds an
    /// abstract name briefly.
    ///
    /// # Errors
    /// Those of [`Listener::bind`].
    pub fn probe(
        option: &'static str,
        address: &SocketAddress,
        files: &mut Files,
    ) -> Result<(), Error> {
        let SocketAddress::Path(path) = address else {
            return Listener::bind(option, address, files).map(drop);
        };
        may_wait(option)?;
        let failed = |source| Error::Bind {
            option,
            path: address.to_string(),
            source,
        };
        SocketAddr::from_pathname(path).map_err(failed)?;
        let place = place(option, path, files)?;
        let at = path_of(&place, path).map_err(failed)?;
        if fs::symlink_metadata(&at).is_ok() {
            check_dead(option, path, &at)?;
        }
        place.check().map_err(failed)
    }

    /// Keeps the socket's file at exit: it cannot be removed from within a sandbox. The directory's
    /// descriptor stays open, because the sandbox allows the number of the next descriptor.
    pub fn leave_file(&mut self) {
        std::mem::forget(self.file.take());
    }
}

/// Accepts a connection at `listener`, with `flags` of accept4.
///
/// # Errors
/// The host's error; [`io::ErrorKind::WouldBlock`] if no client waits.
pub fn accept(listener: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<OwnedFd> {
    let flags = flags | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes numbers; no address is requested.
    let client = unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            flags,
        )
    };
    if client < 0 {
        Err(io::Error::last_os_error())
    } else {
        // SAFETY: it is new and has no other owner.
        Ok(unsafe { OwnedFd::from_raw_fd(client) })
    }
}

/// Waits until one of `fds` is ready, at most `patience` if given. A signal also ends the wait.
///
/// # Errors
/// The host's error.
pub fn poll(fds: &mut [libc::pollfd], patience: Option<Duration>) -> io::Result<()> {
    let timeout = patience.map(|patience| libc::timespec {
        tv_sec: patience.as_secs() as libc::time_t,
        tv_nsec: patience.subsec_nanos() as libc::c_long,
    });
    let timeout = timeout
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the kernel reads the time, if there is one, and writes `revents` only.
    match unsafe {
        libc::ppoll(
            fds.as_mut_ptr(),
            fds.len() as libc::nfds_t,
            timeout,
            std::ptr::null(),
        )
    } {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        },
        _ => Ok(()),
    }
}

/// Checks that this process may wait for clients: a seccomp filter can forbid it, or kill the
/// process for it in the sandbox.
///
/// # Errors
/// [`Error::Wait`].
pub fn may_wait(option: &'static str) -> Result<(), Error> {
    poll(&mut [], Some(Duration::ZERO)).map_err(|source| Error::Wait { option, source })
}

fn bind_name(
    option: &'static str,
    name: &[u8],
    address: &SocketAddress,
) -> Result<UnixListener, Error> {
    let bound =
        SocketAddr::from_abstract_name(name).and_then(|address| UnixListener::bind_addr(&address));
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::InUse {
            option,
            path: address.to_string(),
        },
        _ => Error::Bind {
            option,
            path: address.to_string(),
            source,
        },
    })
}

/// Returns the place of the socket `path`.
fn place(option: &'static str, path: &Path, files: &mut Files) -> Result<Place, Error> {
    let place = files.place(path);
    place.map_err(|source| Error::Bind {
        option,
        path: path.to_string_lossy().into_owned(),
        source,
    })
}

/// Returns a path of `place` of at most 107 bytes, the limit of socket calls: the one through the
/// descriptor of its directory if that exists and fits, else the operator's. A run as another user,
/// who could change the operator's path, never uses that.
fn path_of(place: &Place, path: &Path) -> io::Result<PathBuf> {
    match place
        .path()
        .map(|short| SocketAddr::from_pathname(&short).map(|_| short))
    {
        Some(Ok(short)) => Ok(short),
        Some(Err(error)) if place.is_of_user() => Err(error),
        None if place.is_of_user() => Err(io::Error::other("--user needs /proc here")),
        _ => Ok(path.to_owned()),
    }
}

fn bind_path(option: &'static str, path: &Path, place: &Place) -> Result<UnixListener, Error> {
    let failed = |source| Error::Bind {
        option,
        path: path.to_string_lossy().into_owned(),
        source,
    };
    let at = path_of(place, path).map_err(failed)?;
    match bind_privately(&at) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            check_dead(option, path, &at)?;
            place.remove();
            bind_privately(&at).map_err(failed)
        }
        bound => bound.map_err(failed),
    }
}

fn bind_privately(path: &Path) -> io::Result<UnixListener> {
    // SAFETY: the call takes a number; no other thread creates a file meanwhile.
    let before = unsafe { libc::umask(UMASK) };
    let bound = UnixListener::bind(path);
    // SAFETY: as above.
    unsafe { libc::umask(before) };
    bound
}

/// Checks that the file at `at`, which the operator calls `path`, is a socket of this user that no
/// process serves.
fn check_dead(option: &'static str, path: &Path, at: &Path) -> Result<(), Error> {
    let name = || path.to_string_lossy().into_owned();
    let metadata = signal::uninterrupted(|| fs::symlink_metadata(at));
    let metadata = metadata.map_err(|source| Error::Bind {
        option,
        path: name(),
        source,
    })?;
    let kind = match metadata.file_type() {
        kind if kind.is_socket() => None,
        kind if kind.is_dir() => Some("directory"),
        kind if kind.is_symlink() => Some("symbolic link"),
        kind if kind.is_file() => Some("file"),
        _ => Some("pipe or device"),
    };
    if let Some(kind) = kind {
        return Err(Error::Taken {
            option,
            path: name(),
            kind,
        });
    }
    // SAFETY: the call takes nothing and cannot fail.
    if metadata.uid() != unsafe { libc::geteuid() } {
        return Err(Error::Foreign {
            option,
            path: name(),
            uid: metadata.uid(),
        });
    }
    // A datagram socket cannot connect to a stream socket, so no server is disturbed, and this does
    // not wait for a busy one: the kernel reports a wrong type, or no listener.
    match UnixDatagram::unbound().and_then(|socket| socket.connect(at)) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => Err(Error::InUse {
            option,
            path: name(),
        }),
        Err(source) => Err(Error::Bind {
            option,
            path: name(),
            source,
        }),
        Ok(()) => Err(Error::InUse {
            option,
            path: name(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn bind(path: &Path) -> Result<Listener, String> {
        Listener::bind(
            "--metrics",
            &SocketAddress::Path(path.to_owned()),
            &mut Files::default(),
        )
        .map_err(|error| error.to_string())
    }

    #[test]
    fn a_socket_is_private_and_ends_with_its_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m");
        let listener = bind(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(UnixStream::connect(&path).is_ok());
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m");
        let mut first = bind(&path).unwrap();
        assert!(
            bind(&path)
                .unwrap_err()
                .contains("another process listens there")
        );
        first.leave_file();
        drop(first);
        assert!(path.exists());
        let _second = bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        let datagrams = directory.path().join("d");
        let _socket = UnixDatagram::bind(&datagrams).unwrap();
        assert!(
            bind(&datagrams)
                .unwrap_err()
                .contains("another process listens there")
        );
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(bind(&file).unwrap_err().contains("this is a file"));
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        assert!(
            bind(directory.path())
                .unwrap_err()
                .contains("this is a directory")
        );
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(bind(&link).unwrap_err().contains("this is a symbolic link"));
        assert!(
            bind(Path::new("/nonexistent/m"))
                .unwrap_err()
                .contains("No such file")
        );
        assert!(bind(&directory.path().join("m".repeat(200))).is_err());
    }

    #[test]
    fn a_name_without_a_file_is_free_again_at_the_end() {
        let name = format!("tender-test-{}", std::process::id()).into_bytes();
        let address = SocketAddress::Abstract(name);
        let bind = || Listener::bind("--metrics", &address, &mut Files::default());
        let first = bind().unwrap();
        let again = bind().unwrap_err().to_string();
        assert!(again.contains("another process listens there"), "{again}");
        drop(first);
        assert!(bind().is_ok());
    }
}
