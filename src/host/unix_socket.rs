//! Listening Unix sockets for `--metrics` and `--gdb-port`, owned by the user who started the run.

#![expect(unsafe_code, reason = "ppoll with the remaining time")]

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{SocketFlags, accept_with};

use crate::config::SocketAddress;
use crate::host::files::{Files, Place};
use crate::host::{ids, signal};

/// Error of listening at an address, with the option that gives it.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("{option}={socket}: {problem}")]
    #[diagnostic(forward(problem))]
    Bind {
        option: &'static str,
        socket: String,
        problem: Problem,
    },
    #[error("{option}: cannot wait for clients: {source}")]
    #[diagnostic(help("the seccomp filter around tender must allow ppoll"))]
    Wait {
        option: &'static str,
        source: io::Error,
    },
}

/// Why an address cannot be used.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Problem {
    #[error("{0}")]
    #[diagnostic(help("give a path in a writable directory"))]
    Bind(#[from] io::Error),
    #[error("this is a {0}")]
    #[diagnostic(help("give a path that is free"))]
    Taken(&'static str),
    #[error("another process listens there")]
    #[diagnostic(help("give each run its own socket"))]
    InUse,
    #[error("a socket of another user (uid {0}) is there")]
    #[diagnostic(help("remove it, or give another path"))]
    Foreign(u32),
}

/// Mode 0600: connecting needs write permission, so only the owner can connect.
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
        Listener::bind_at(address, files).map_err(at(option, address))
    }

    fn bind_at(address: &SocketAddress, files: &mut Files) -> Result<Listener, Problem> {
        let (socket, file) = match address {
            SocketAddress::Path(path) => {
                let place = files.place(path)?;
                (bind_path(path, &place)?, Some(place))
            }
            SocketAddress::Abstract(name) => (bind_name(name)?, None),
        };
        let listener = Listener { socket, file };
        // A client may disconnect before the tender accepts it; accept4 must not block in that
        // case.
        listener.socket.set_nonblocking(true)?;
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
        probe_path(path, files).map_err(at(option, address))
    }

    /// Keeps the socket's file at exit: it cannot be removed from within a sandbox. The directory's
    /// descriptor stays open, because the sandbox allows the number of the next descriptor.
    pub fn leave_file(&mut self) {
        std::mem::forget(self.file.take());
    }
}

/// Adds the option and the address to a problem.
fn at(option: &'static str, address: &SocketAddress) -> impl FnOnce(Problem) -> Error {
    move |problem| Error::Bind {
        option,
        socket: format!("unix:{address}"),
        problem,
    }
}

/// Accepts a connection at `listener`.
///
/// # Errors
/// The host's error; [`io::ErrorKind::WouldBlock`] if no client waits.
pub fn accept(listener: BorrowedFd<'_>, flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(accept_with(listener, flags | SocketFlags::CLOEXEC)?)
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
    let (count, mask) = (fds.len() as libc::nfds_t, std::ptr::null());
    // SAFETY: the kernel reads the time, if there is one, and writes `revents` only.
    if unsafe { libc::ppoll(fds.as_mut_ptr(), count, timeout, mask) } == -1 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(())
}

/// Checks that this process may wait for clients: a seccomp filter can forbid it, or kill the
/// process for it in the sandbox.
///
/// # Errors
/// [`Error::Wait`].
pub fn may_wait(option: &'static str) -> Result<(), Error> {
    poll(&mut [], Some(Duration::ZERO)).map_err(|source| Error::Wait { option, source })
}

fn bind_name(name: &[u8]) -> Result<UnixListener, Problem> {
    let address = SocketAddr::from_abstract_name(name)?;
    UnixListener::bind_addr(&address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Problem::InUse,
        _ => source.into(),
    })
}

fn probe_path(path: &Path, files: &mut Files) -> Result<(), Problem> {
    SocketAddr::from_pathname(path)?;
    let place = files.place(path)?;
    let at = path_of(&place, path)?;
    if fs::symlink_metadata(&at).is_ok() {
        check_dead(&at)?;
    }
    Ok(place.check()?)
}

/// Returns a path of `place` of at most 107 bytes, the limit of socket calls: the one through the
/// descriptor of its directory if that exists and fits, else the operator's. A run as another user,
/// who could change the operator's path, never uses that.
fn path_of(place: &Place, path: &Path) -> io::Result<PathBuf> {
    let short = place.path();
    match short.map(|short| SocketAddr::from_pathname(&short).map(|_| short)) {
        Some(Ok(short)) => Ok(short),
        Some(Err(error)) if place.is_of_user() => Err(error),
        None if place.is_of_user() => Err(io::Error::other("--user needs /proc here")),
        _ => Ok(path.to_owned()),
    }
}

fn bind_path(path: &Path, place: &Place) -> Result<UnixListener, Problem> {
    let at = path_of(place, path)?;
    match bind_privately(&at) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            check_dead(&at)?;
            place.remove();
            Ok(bind_privately(&at)?)
        }
        bound => Ok(bound?),
    }
}

/// Must not be called while another thread creates a file.
fn bind_privately(path: &Path) -> io::Result<UnixListener> {
    let before = ids::umask(UMASK);
    let bound = UnixListener::bind(path);
    ids::umask(before);
    bound
}

/// Checks that the file at `path` is a socket of this user that no process serves.
fn check_dead(path: &Path) -> Result<(), Problem> {
    let metadata = signal::uninterrupted(|| fs::symlink_metadata(path))?;
    let kind = match metadata.file_type() {
        kind if kind.is_socket() => None,
        kind if kind.is_dir() => Some("directory"),
        kind if kind.is_symlink() => Some("symbolic link"),
        kind if kind.is_file() => Some("file"),
        _ => Some("pipe or device"),
    };
    if let Some(kind) = kind {
        return Err(Problem::Taken(kind));
    }
    if metadata.uid() != ids::user() {
        return Err(Problem::Foreign(metadata.uid()));
    }
    // A datagram socket cannot connect to a stream socket, so no server is disturbed, and this does
    // not wait for a busy one: the kernel reports a wrong type, or no listener.
    match UnixDatagram::unbound().and_then(|socket| socket.connect(path)) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.raw_os_error() != Some(libc::EPROTOTYPE) => Err(error.into()),
        _ => Err(Problem::InUse),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::report::message::Message;

    fn bind(path: &Path) -> Result<Listener, String> {
        Listener::bind(
            "--metrics",
            &SocketAddress::Path(path.to_owned()),
            &mut Files::default(),
        )
        .map_err(|error| Message::of(&error).to_string())
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
        let again = bind().map_err(Message::from).unwrap_err().to_string();
        assert!(again.contains("another process listens there"), "{again}");
        drop(first);
        assert!(bind().is_ok());
    }
}
