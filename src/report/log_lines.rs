//! The tender's own words, on standard error. A reader that does not read must not hold up a guest: a line that nobody
//! has room for is left out and counted, and the count is told with the next line that gets through.
//!
//! While the guest runs, no line waits at all. Before it there is a second for all lines together, and after it
//! another, so that a reader that is merely slow gets the reason of a refusal and the summary of a run.

mod epoll;
pub mod journal;
mod line;

use std::fmt::Display;
use std::io::{self, BufWriter, Write};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::Level;

pub use self::line::{Line, LogFormat};
use crate::report::counters::Amount;

/// What a pipe with any room at all takes at once. A longer line is cut.
const LONGEST: usize = libc::PIPE_BUF;

/// How long lines may wait for a reader, all together, before a guest runs, and again after it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether a guest would be held up.
static GUEST_RUNS: AtomicBool = AtomicBool::new(false);

/// Lines left out since the process began.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

static STATE: Mutex<State> = Mutex::new(State {
    patience: PATIENCE,
    lost: 0,
});

/// Whoever holds it is the only one who speaks. A panic elsewhere leaves the numbers as they were.
fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is left of the patience, and how many lines were left out since the last one that was not.
struct State {
    patience: Duration,
    lost: u64,
}

/// How many lines nobody had room for, since the process began.
pub fn left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// Says a line from a signal's handler, which may have come in the middle of another: without the lock, and without
/// waiting.
pub fn say_at_once(line: &Line) {
    let said = wait_for_room(libc::STDERR_FILENO, Duration::ZERO)
        && write(libc::STDERR_FILENO, line.bytes());
    LEFT_OUT.fetch_add((!said).into(), Ordering::Relaxed);
}

/// Writes text of any length and a newline, in pieces. Each waits for a reader as messages do.
///
/// # Errors
/// There is no reader, and the patience is used up.
pub fn write_long(text: impl Display) -> io::Result<()> {
    let mut pieces = BufWriter::with_capacity(LONGEST, Pieces(state()));
    writeln!(pieces, "{text}")?;
    pieces.flush()
}

/// Standard error, for one writer until it is dropped.
struct Pieces(MutexGuard<'static, State>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(LONGEST)];
        let written = self.0.has_room(libc::STDERR_FILENO) && write(libc::STDERR_FILENO, piece);
        if written {
            Ok(piece.len())
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// While it lives, no message waits.
#[derive(Debug)]
pub struct GuestRuns(());

impl GuestRuns {
    /// A guest runs from now on.
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

/// Standard error, for whole lines. Writing to it never fails: what cannot be said is counted.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        state().say(line, libc::STDERR_FILENO);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl State {
    fn say(&mut self, line: &[u8], fd: libc::c_int) {
        if self.lost > 0 && self.has_room(fd) {
            let lost = Amount(self.lost, "message");
            let told = Line::log(
                Level::Warn,
                format_args!("{lost} left out, as nobody read standard error"),
            );
            if write(fd, told.bytes()) {
                self.lost = 0;
            }
        }
        let said = match line.get(..LONGEST) {
            None => self.has_room(fd) && write(fd, line),
            Some(beginning) => {
                self.has_room(fd) && write(fd, &[&beginning[..LONGEST - 1], b"\n"].concat())
            }
        };
        self.lost += u64::from(!said);
        LEFT_OUT.fetch_add((!said).into(), Ordering::Relaxed);
    }

    /// Whether a line can be written without waiting; waits for that as long as there is patience.
    fn has_room(&mut self, fd: libc::c_int) -> bool {
        let patience = if GUEST_RUNS.load(Ordering::Relaxed) {
            Duration::ZERO
        } else {
            self.patience
        };
        let asked = Instant::now();
        let ready = wait_for_room(fd, patience);
        self.patience = self.patience.saturating_sub(asked.elapsed().min(patience));
        ready
    }
}

/// Prepares for the sandbox, which allows no new descriptors: returns the epoll sets that replace `ppoll`, if that is
/// refused.
pub(crate) fn room_without_ppoll() -> Vec<RawFd> {
    wait_for_room(libc::STDERR_FILENO, Duration::ZERO);
    epoll::seal()
}

/// One system call, or two with a signal between them. What is no pipe or socket always has room.
pub(crate) fn wait_for_room(fd: libc::c_int, patience: Duration) -> bool {
    let attempt = |patience| wait_for(fd, libc::POLLOUT, patience);
    // If no call can wait, the write itself may.
    attempt(patience)
        .or_else(|_| attempt(Duration::ZERO))
        .unwrap_or_else(|error| error.kind() == io::ErrorKind::Unsupported)
}

/// Waits for one of `events` or an error on `fd`; returns whether there is one.
///
/// # Errors
/// A signal came, or the host does not let this process wait.
pub(crate) fn wait_for(
    fd: libc::c_int,
    events: libc::c_short,
    patience: Duration,
) -> io::Result<bool> {
    let mut wait = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    let timeout = libc::timespec {
        tv_sec: patience.as_secs() as libc::time_t,
        tv_nsec: patience.subsec_nanos() as libc::c_long,
    };
    if !epoll::is_needed() {
        // SAFETY: the kernel reads the one element and the time, and writes `revents` only.
        match unsafe { libc::ppoll(&raw mut wait, 1, &raw const timeout, std::ptr::null()) } {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                _ => epoll::need(),
            },
            ready => return Ok(ready == 1),
        }
    }
    epoll::wait_for(fd, events, patience)
}

fn write(fd: libc::c_int, bytes: &[u8]) -> bool {
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

/// One system call, or two with a signal between them.
fn write_bytes(fd: libc::c_int, bytes: &[u8]) -> bool {
    // SAFETY: the bytes are ours, and as many as is said.
    let write = || unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    let written = match write() {
        -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => write(),
        written => written,
    };
    usize::try_from(written) == Ok(bytes.len())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::{AsRawFd, FromRawFd};

    use super::*;

    /// A pipe of four pages, for every page size.
    fn pipe() -> (File, File) {
        let mut fds = [0; 2];
        // SAFETY: the array has room for the two descriptors, which are new and have no other
        // owner; the rest takes numbers.
        unsafe {
            assert_eq!(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC), 0);
            let size = 4 * libc::sysconf(libc::_SC_PAGESIZE) as libc::c_int;
            assert_eq!(libc::fcntl(fds[1], libc::F_SETPIPE_SZ, size), size);
            fds.map(|fd| File::from_raw_fd(fd)).into()
        }
    }

    /// Returns how many lines of 1000 bytes are twice the pipe's capacity.
    fn too_many(writer: &File) -> usize {
        // SAFETY: the request takes no argument.
        2 * unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_GETPIPE_SZ) } as usize / 1000
    }

    /// Writes so many lines of 1000 bytes, then reads the pipe.
    fn written(state: &mut State, reader: &mut File, writer: &File, lines: usize) -> String {
        for _ in 0..lines {
            state.say(&[&[b'x'; 999][..], b"\n"].concat(), writer.as_raw_fd());
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
            "tender: warn: {} messages left out, as nobody read standard error\nx",
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
            state.say(&[b'x'; 1000], writer.as_raw_fd());
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
        state.say(&[b'x'; 10_000], writer.as_raw_fd());
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
        state.say(b"nobody\n", writer.as_raw_fd());
        assert_eq!(state.lost, 1);
    }
}
