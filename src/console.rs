//! The console: the guest's bytes, unchanged, on the tender's standard output.
//!
//! Nothing is held back and nothing is added. Output is best effort: when nobody can take it, the guest goes on.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::memory::{self, GuestAddress, GuestBytes, GuestMemory};

/// What went through the console, and what did not. Counters only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes dropped.
    pub dropped_bytes: u64,
    /// Dropped: the reader has closed its end.
    pub closed: u64,
    /// Dropped: the reader is too slow and the descriptor does not wait.
    pub slow: u64,
    /// Dropped: the disk is full.
    pub full: u64,
    /// Dropped because a signal came, which ends the run.
    pub interrupted: u64,
    /// Dropped for any other reason.
    pub other: u64,
}

/// The console of one guest.
#[derive(Debug)]
pub struct Console {
    out: Output,
    stats: Stats,
}

#[derive(Debug)]
enum Output {
    Stdout(io::Stdout),
    Other(OwnedFd),
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            // Only its descriptor is used: no lock, no buffer.
            Output::Stdout(stdout) => stdout.as_fd(),
            Output::Other(fd) => fd.as_fd(),
        }
    }
}

impl Console {
    /// A console on standard output.
    pub fn stdout() -> Console {
        Console { out: Output::Stdout(io::stdout()), stats: Stats::default() }
    }

    /// A console on any descriptor.
    pub fn new(out: impl Into<OwnedFd>) -> Console {
        Console { out: Output::Other(out.into()), stats: Stats::default() }
    }

    /// What went through so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// PUTS: writes the `len` bytes at `addr`. What the host does not take is dropped and counted. Section 8.
    ///
    /// # Errors
    /// The bytes do not lie within guest memory.
    pub fn puts(&mut self, memory: &GuestMemory, addr: GuestAddress, len: u64) -> Result<(), memory::Error> {
        let mut rest = memory.bytes(addr, len)?;
        while !rest.is_empty() {
            match rest.write_to(self.out.as_fd()) {
                Ok(0) => {
                    self.drop_rest(rest, &io::ErrorKind::WriteZero.into());
                    break;
                }
                Ok(written) => {
                    self.stats.written_bytes += written as u64;
                    rest = rest.skip(written);
                }
                Err(error) => {
                    self.drop_rest(rest, &error);
                    break;
                }
            }
        }
        Ok(())
    }

    #[cold]
    fn drop_rest(&mut self, rest: GuestBytes<'_>, error: &io::Error) {
        self.stats.dropped_bytes += rest.len() as u64;
        let counter = match error.raw_os_error() {
            Some(libc::EPIPE) => &mut self.stats.closed,
            Some(libc::EAGAIN) => &mut self.stats.slow,
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => &mut self.stats.full,
            // Only signals that end the run are handled, so there is no use in trying again.
            Some(libc::EINTR) => {
                self.stats.interrupted += 1;
                return;
            }
            _ => &mut self.stats.other,
        };
        *counter += 1;
        if *counter == 1 {
            log::warn!("console: cannot write to standard output: {error}; the guest's output is dropped");
        }
    }
}
