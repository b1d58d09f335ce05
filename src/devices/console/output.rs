//! Writes to a descriptor that may be slow, full, closed or non-blocking.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;

use crate::host::signal;
use crate::report::log_lines;

/// Longest wait for a slow reader before the console checks again whether the run is to end. A
/// signal ends the wait sooner.
const WAIT_INTERVAL: Duration = Duration::from_secs(1);

/// Wait for a descriptor that reports room but accepts nothing, such as a terminal with room for
/// one byte.
const NAP: Duration = Duration::from_millis(10);

/// The descriptor of a console.
#[derive(Debug)]
pub(super) enum Output {
    Stdout(io::Stdout),
    Other(OwnedFd),
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            // Uses only the descriptor: no lock, no buffer.
            Output::Stdout(stdout) => stdout.as_fd(),
            Output::Other(fd) => fd.as_fd(),
        }
    }
}

/// Writes all of `text` to standard output, as the console does.
///
/// # Errors
/// The host's error.
pub fn print(text: &[u8]) -> io::Result<()> {
    let (_, failed) = transfer_from(&Output::Stdout(io::stdout()), text);
    failed.map_or(Ok(()), Err)
}

/// Calls [`transfer`] for the tender's own memory.
pub(super) fn transfer_from(out: &Output, text: &[u8]) -> (usize, Option<io::Error>) {
    transfer(out, text.len(), |fd, done| {
        Ok(rustix::io::write(fd, &text[done..])?)
    })
}

/// Repeats `write(fd, done)` until `len` bytes are written; returns the number written, and the
/// reason if it is less. Polls for a reader, because the write itself may not block: other owners
/// of a shared descriptor can set O_NONBLOCK.
pub(super) fn transfer(
    out: &Output,
    len: usize,
    mut write: impl FnMut(BorrowedFd<'_>, usize) -> io::Result<usize>,
) -> (usize, Option<io::Error>) {
    let (mut done, mut waited) = (0, false);
    while done < len {
        let failed = match write(out.as_fd(), done) {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(written) => {
                done += written;
                waited = false;
                // A slow reader accepts a little each time, so a write that is cut short by a
                // signal does not fail.
                io::ErrorKind::Interrupted.into()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let (events, patience) = if waited {
                    (PollFlags::empty(), NAP)
                } else {
                    (PollFlags::OUT, WAIT_INTERVAL)
                };
                waited = !waited;
                match log_lines::wait_for(out.as_fd(), events, patience) {
                    // A nap ends early only on an error of the descriptor, so the write has failed.
                    Ok(ready) if !ready || !events.is_empty() => io::ErrorKind::Interrupted.into(),
                    Err(source) if source.kind() == io::ErrorKind::Interrupted => source,
                    _ => error,
                }
            }
            Err(error) => error,
        };
        // Only signals that end a run, and a debugger, stop the output.
        if failed.kind() != io::ErrorKind::Interrupted || done < len && signal::interrupts() {
            return (done, Some(failed));
        }
    }
    (done, None)
}
