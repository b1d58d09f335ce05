//! The tender's log lines, on standard error. A reader that does not read must not hold up a guest:
//! a line for which there is no room is dropped and counted. The count is logged with the next line
//! that gets through.
//!
//! While the guest runs, no line waits at all. Before and after the run, all lines together may
//! wait for a second each time, so that a slow reader still gets the error message and the summary.

mod epoll;
pub mod journal;
mod line;
mod origin;

use std::fmt::Display;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::Level;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::stderr;

pub use self::line::{Line, LogFormat};
pub use self::origin::{Subject, name_run};
use crate::report::clock;
use crate::report::counters::Count;

/// The longest line that a pipe with any room accepts in one write. A longer line is cut.
const LONGEST: usize = libc::PIPE_BUF;

/// Total time that lines may wait for a reader before the guest runs, and again after it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether a guest runs, which waiting would hold up.
static GUEST_RUNS: AtomicBool = AtomicBool::new(false);

/// Lines dropped since the process began.
static DROPPED: AtomicU64 = AtomicU64::new(0);

static STATE: Mutex<State> = Mutex::new(State {
    patience: PATIENCE,
    lost: 0,
});

/// Serialises writers. Poisoning is ignored: the state is two plain numbers.
fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The remaining time to wait, and the lines dropped since the last one that was written.
struct State {
    patience: Duration,
    lost: u64,
}

/// Returns whether log lines are JSON.
pub fn are_json() -> bool {
    LogFormat::current() == LogFormat::Json
}

/// Returns the number of lines dropped since the process began.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Writes a line from a signal handler, which may have interrupted another write: takes no lock and
/// does not wait.
pub fn write_from_handler(line: &Line) {
    let written = wait_for_room(stderr(), Duration::ZERO) && write(stderr(), line.bytes());
    DROPPED.fetch_add((!written).into(), Ordering::Relaxed);
}

/// Writes text of any length and a newline, in pieces. Each piece waits for a reader as log lines
/// do.
///
/// # Errors
/// There is no reader, and the time to wait is used up.
pub fn write_long(text: impl Display) -> io::Result<()> {
    let mut pieces = BufWriter::with_capacity(LONGEST, Pieces(state()));
    writeln!(pieces, "{text}")?;
    pieces.flush()
}

/// Exclusive access to standard error until dropped.
struct Pieces(MutexGuard<'static, State>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(LONGEST)];
        if self.0.has_room(stderr()) && write(stderr(), piece) {
            Ok(piece.len())
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Guard: while it exists, no log line waits.
#[derive(Debug)]
pub struct GuestRuns(());

impl GuestRuns {
    /// Marks the guest as running.
    pub fn start() -> GuestRuns {
        GUEST_RUNS.store(true, Ordering::Relaxed);
        GuestRuns(())
    }
}

impl Drop for GuestRuns {
    fn drop(&mut self) {
        state().patience = PATIENCE;
        GUEST_RUNS.store(false, Ordering::Relaxed);
    }
}

/// Standard error, for whole lines. Writing never fails: lines that cannot be written are counted.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        state().write_line(line, stderr());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl State {
    fn write_line(&mut self, line: &[u8], fd: BorrowedFd<'_>) {
        if self.lost > 0 && self.has_room(fd) {
            let lost = Count(self.lost, "message");
            let notice = Line::log(
                Level::Warn,
                Subject::default(),
                format_args!("{lost} dropped: standard error was not read"),
            );
            if write(fd, notice.bytes()) {
                self.lost = 0;
            }
        }
        let written = self.has_room(fd)
            && match line.get(..LONGEST) {
                None => write(fd, line),
                Some(beginning) => write(fd, &[&beginning[..LONGEST - 1], b"\n"].concat()),
            };
        self.lost += u64::from(!written);
        DROPPED.fetch_add((!written).into(), Ordering::Relaxed);
    }

    /// Returns whether a line can be written without blocking; waits for that within the remaining
    /// time.
    fn has_room(&mut self, fd: BorrowedFd<'_>) -> bool {
        let patience = if GUEST_RUNS.load(Ordering::Relaxed) {
            Duration::ZERO
        } else {
            self.patience
        };
        let now = || clock::since_zero(libc::CLOCK_MONOTONIC);
        let asked = now();
        let ready = wait_for_room(fd, patience);
        let waited = now().saturating_sub(asked).min(patience);
        self.patience = self.patience.saturating_sub(waited);
        ready
    }
}

/// Prepares for the sandbox, which allows no new descriptors. Returns the epoll sets that replace
/// `ppoll` if that is refused.
pub(crate) fn room_without_ppoll() -> Vec<RawFd> {
    wait_for_room(stderr(), Duration::ZERO);
    epoll::seal()
}

/// Waits for room with one system call, or two with a signal between them. Anything but a pipe or
/// socket always has room.
pub(crate) fn wait_for_room(fd: impl AsFd, patience: Duration) -> bool {
    let attempt = |patience| wait_for(fd.as_fd(), PollFlags::OUT, patience);
    // If no call can wait, the write itself may block.
    attempt(patience)
        .or_else(|_| attempt(Duration::ZERO))
        .unwrap_or_else(|error| error.kind() == io::ErrorKind::Unsupported)
}

/// Waits for one of `events` or an error on `fd`; returns whether there is one.
///
/// # Errors
/// A signal arrived, or the host does not let this process wait.
pub(crate) fn wait_for(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    patience: Duration,
) -> io::Result<bool> {
    if !epoll::is_needed() {
        let mut wait = [PollFd::from_borrowed_fd(fd, events)];
        match poll(&mut wait, Some(&epoll::timeout(patience))) {
            Ok(ready) => return Ok(ready == 1),
            Err(Errno::INTR) => return Err(Errno::INTR.into()),
            Err(_) => epoll::need(),
        }
    }
    epoll::wait_for(fd, events, patience)
}

fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> bool {
    let Some(stream) = journal::shared(fd) else {
        return write_bytes(fd, bytes);
    };
    let Some(turn) = stream.turn() else {
        return false;
    };
    if turn.column() > 0 && write_bytes(fd, b"\n") {
        turn.set_column(0);
    }
    turn.column() == 0 && write_bytes(fd, bytes)
}

/// Writes with one system call, or two with a signal between them.
fn write_bytes(fd: BorrowedFd<'_>, bytes: &[u8]) -> bool {
    let write = || rustix::io::write(fd, bytes);
    let written = match write() {
        Err(Errno::INTR) => write(),
        written => written,
    };
    written == Ok(bytes.len())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

    use super::*;

    /// A pipe of four pages, for every page size.
    fn pipe() -> (File, File) {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        // The kernel rounds up to a page.
        let page = fcntl_setpipe_size(&writer, 1).unwrap();
        fcntl_setpipe_size(&writer, 4 * page).unwrap();
        (reader.into(), writer.into())
    }

    /// Returns how many lines of 1000 bytes are twice the pipe's capacity.
    fn too_many(writer: &File) -> usize {
        2 * fcntl_getpipe_size(writer).unwrap() / 1000
    }

    /// Writes so many lines of 1000 bytes, then reads the pipe.
    fn written(state: &mut State, reader: &mut File, writer: &File, lines: usize) -> String {
        for _ in 0..lines {
            state.write_line(&[&[b'x'; 999][..], b"\n"].concat(), writer.as_fd());
        }
        let mut written = vec![0; 1 << 20];
        let length = reader.read(&mut written).unwrap();
        String::from_utf8(written[..length].to_vec()).unwrap()
    }

    #[test]
    fn lines_without_a_reader_are_counted_and_do_not_wait() {
        let (mut reader, writer) = pipe();
        let mut state = State {
            patience: Duration::ZERO,
            lost: 0,
        };
        assert!(written(&mut state, &mut reader, &writer, 1) == format!("{}\n", "x".repeat(999)));
        assert_eq!(state.lost, 0);
        let lines = too_many(&writer);
        let some = written(&mut state, &mut reader, &writer, lines)
            .lines()
            .count() as u64;
        assert!(
            some > 0 && state.lost > 0,
            "{some} came, {} did not",
            state.lost
        );
        assert_eq!(state.lost + some, lines as u64);
        let expected = format!(
            "tender: warn: {} messages dropped: standard error was not read\nx",
            state.lost
        );
        assert!(written(&mut state, &mut reader, &writer, 1).starts_with(&expected));
        assert_eq!(state.lost, 0);
    }

    #[test]
    fn the_time_limit_is_used_up_once() {
        let (_reader, writer) = pipe();
        let mut state = State {
            patience: Duration::from_millis(50),
            lost: 0,
        };
        let lines = too_many(&writer);
        for _ in 0..lines {
            state.write_line(&[b'x'; 1000], writer.as_fd());
        }
        assert_eq!(state.patience, Duration::ZERO);
        assert!(state.lost >= lines as u64 / 2, "{}", state.lost);
    }

    #[test]
    fn long_lines_are_cut_to_one_atomic_write() {
        let (mut reader, writer) = pipe();
        let mut state = State {
            patience: Duration::ZERO,
            lost: 0,
        };
        state.write_line(&[b'x'; 10_000], writer.as_fd());
        let mut written = [0; 20_000];
        assert_eq!(
            (
                reader.read(&mut written).unwrap(),
                written[LONGEST - 1],
                state.lost
            ),
            (LONGEST, b'\n', 0)
        );
    }

    #[test]
    fn a_closed_reader_is_no_error() {
        let (reader, writer) = pipe();
        drop(reader);
        let mut state = State {
            patience: Duration::from_secs(60),
            lost: 0,
        };
        state.write_line(b"lost\n", writer.as_fd());
        assert_eq!(state.lost, 1);
    }
}
