//! The journal's stream. journald parses `<N>` at the start of a line as its priority, so the
//! console must know where a line of the stream starts. Standard error is usually the same stream:
//! console and messages take turns.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{env, hint, io};

use rustix::fs::{FileType, fstat};
use rustix::stdio::{stderr, stdout};

/// The stream of standard output.
static STREAM: Stream = Stream::new();

/// Whether standard error is that stream too.
static SHARED: AtomicBool = AtomicBool::new(false);

/// Attempts to get a turn, some hundred microseconds. Another thread's turn is one non-blocking
/// write.
const ATTEMPTS: u32 = 10_000;

/// A stream that journald reads.
#[derive(Debug)]
pub struct Stream {
    /// Whether a thread writes.
    busy: AtomicBool,
    /// Bytes since the last line break.
    column: AtomicUsize,
}

impl Stream {
    /// A stream at the start of a line.
    pub const fn new() -> Stream {
        Stream {
            busy: AtomicBool::new(false),
            column: AtomicUsize::new(0),
        }
    }

    /// The stream of standard output, if journald reads it.
    pub fn of_stdout() -> Option<&'static Stream> {
        let ours = socket(stdout())?;
        let named = env::var_os("JOURNAL_STREAM");
        let is_journal = named.is_some_and(|named| is_named(&named, ours))
            || peer(stdout()).is_ok_and(|path| is_journald(&path));
        let is_shared = is_journal && socket(stderr()) == Some(ours);
        SHARED.store(is_shared, Ordering::Relaxed);
        is_journal.then_some(&STREAM)
    }

    /// Excludes other writers until the turn is dropped. Returns none while another thread writes,
    /// or if this call is in a signal handler that interrupted this thread's write.
    pub(crate) fn turn(&self) -> Option<Turn<'_>> {
        let take = |_| {
            let taken =
                self.busy
                    .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
            if taken.is_err() {
                hint::spin_loop();
            }
            taken.is_ok()
        };
        (0..ATTEMPTS).any(take).then_some(Turn(self))
    }
}

impl Default for Stream {
    fn default() -> Stream {
        Stream::new()
    }
}

/// One writer's turn.
#[derive(Debug)]
pub(crate) struct Turn<'s>(&'s Stream);

impl Turn<'_> {
    /// Bytes since the last line break.
    pub(crate) fn column(&self) -> usize {
        self.0.column.load(Ordering::Relaxed)
    }

    /// Sets what [`Turn::column`] returns.
    pub(crate) fn set_column(&self, column: usize) {
        self.0.column.store(column, Ordering::Relaxed);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

/// The stream that `fd` shares with the console, if any.
pub(super) fn shared(fd: BorrowedFd<'_>) -> Option<&'static Stream> {
    (fd.as_raw_fd() == libc::STDERR_FILENO && SHARED.load(Ordering::Relaxed)).then_some(&STREAM)
}

/// Device and inode of a socket.
fn socket(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let stat = fstat(fd).ok()?;
    let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
    is_socket.then_some((stat.st_dev, stat.st_ino))
}

/// Whether JOURNAL_STREAM names this socket. systemd sets it, to standard error's socket if the two
/// differ.
fn is_named(variable: &OsStr, (device, inode): (u64, u64)) -> bool {
    variable.as_bytes() == format!("{device}:{inode}").as_bytes()
}

/// Whether a socket's address is that of a journald: `/run/systemd/journal/stdout`, or
/// `journal.NAME` for LogNamespace=.
fn is_journald(address: &Path) -> bool {
    let mut names = address.iter().rev().map(OsStrExt::as_bytes);
    names.next() == Some(b"stdout")
        && names
            .next()
            .is_some_and(|name| name == b"journal" || name.starts_with(b"journal."))
}

/// The path of a socket's peer.
fn peer(fd: BorrowedFd<'_>) -> io::Result<PathBuf> {
    let address = UnixStream::from(fd.try_clone_to_owned()?).peer_addr()?;
    Ok(address.as_pathname().unwrap_or(Path::new("")).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journald_is_recognised_by_its_address() {
        for path in [
            "/run/systemd/journal/stdout",
            "/run/systemd/journal.web/stdout",
            "/x/journal/stdout",
        ] {
            assert!(is_journald(Path::new(path)), "{path}");
        }
        for path in [
            "",
            "/",
            "stdout",
            "/run/systemd/journal/socket",
            "/run/systemd/journals/stdout",
            "/stdout",
        ] {
            assert!(!is_journald(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn the_variable_names_one_socket() {
        assert!(is_named(OsStr::new("8:4711"), (8, 4711)));
        for other in ["", "8:4712", "9:4711", "8:4711:", "8"] {
            assert!(!is_named(OsStr::new(other), (8, 4711)), "{other}");
        }
    }

    #[test]
    fn one_writer_at_a_time() {
        let stream = Stream::new();
        let turn = stream.turn().unwrap();
        turn.set_column(5);
        assert!(stream.turn().is_none());
        drop(turn);
        assert_eq!(stream.turn().unwrap().column(), 5);
    }
}
