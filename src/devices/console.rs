//! The console: the guest's bytes, unchanged, on the tender's standard output.
//!
//! The console buffers nothing. It adds the time, if the operator asks for it, and a prefix that
//! keeps the guest from setting priorities in the journal. The guest waits for a slow reader. The
//! console drops and counts output that cannot be written or exceeds the operator's limit.

mod lines;
mod output;
mod rate;
mod stats;
#[cfg(test)]
mod tests;

use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use self::lines::Lines;
pub use self::output::print;
use self::output::{Output, transfer};
use self::rate::Rate;
pub use self::stats::Stats;
use crate::host::signal;
use crate::memory::{self, GuestAddress, GuestBytes, GuestMemory};
use crate::report::counters::{self, Count, Counter};
use crate::report::log_lines::journal::Stream;

/// Largest write, in bytes: between two checks for signals, the host writes that many bytes from
/// guest memory to a file.
const PIECE: usize = 1 << 20;

/// The console of one guest.
#[derive(Debug)]
pub struct Console {
    out: Output,
    rate: Option<Rate>,
    /// Prefixes of lines, if any are added.
    lines: Option<Lines>,
    stats: Arc<Stats<Counter>>,
}

impl Console {
    /// Returns a console on standard output.
    pub fn stdout() -> Console {
        let console = Console::on(Output::Stdout(io::stdout()));
        match Stream::of_stdout() {
            Some(journal) => console.journal(journal),
            None => console,
        }
    }

    /// Returns a console on any descriptor.
    pub fn new(out: impl Into<OwnedFd>) -> Console {
        Console::on(Output::Other(out.into()))
    }

    fn on(out: Output) -> Console {
        Console {
            out,
            rate: None,
            lines: None,
            stats: Arc::default(),
        }
    }

    /// Limits the console to `rate` bytes per second; it drops and counts the excess.
    pub fn limited(self, rate: Option<NonZeroU64>) -> Console {
        Console {
            rate: rate.map(|rate| Rate::new(rate, Instant::now())),
            ..self
        }
    }

    /// Prefixes lines with the time if `stamped`.
    pub fn stamped(mut self, stamped: bool) -> Console {
        if stamped {
            self.lines.get_or_insert_default().stamp();
        }
        self
    }

    /// Marks the console as a stream to the journal.
    fn journal(mut self, journal: &'static Stream) -> Console {
        self.lines.get_or_insert_default().protect(journal);
        self
    }

    /// Returns the statistics so far.
    pub fn stats(&self) -> Stats {
        self.stats.read()
    }

    /// Returns the live counters, for another thread.
    pub fn counters(&self) -> Arc<Stats<Counter>> {
        Arc::clone(&self.stats)
    }

    /// PUTS: writes the `len` bytes at `addr`. Drops and counts bytes that the host does not
    /// accept. Section 8.
    ///
    /// Returns the number of bytes at the end that were not written because a debugger sent data.
    /// Pass them to another call, or to [`Console::drop_unwritten`].
    ///
    /// # Errors
    /// The bytes are not inside guest memory.
    pub fn puts(
        &mut self,
        memory: &GuestMemory,
        addr: GuestAddress,
        len: u64,
    ) -> Result<u64, memory::RangeError> {
        let bytes = memory.bytes(addr, len)?;
        let passed = self.pass(bytes);
        let interrupted = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
        let postponed =
            passed.failed.as_ref().is_some_and(interrupted) && signal::received().is_none();
        if let Some(rate) = &mut self.rate {
            rate.spend(if postponed {
                passed.text as u64
            } else {
                passed.output
            });
        }
        self.stats.written_bytes.add(passed.text as u64);
        let rest = bytes.len() - passed.text;
        match passed.failed {
            Some(_) if postponed => return Ok(rest as u64),
            Some(error) => self.drop_rest(rest, &error),
            None if rest > 0 => self.drop_excess(rest as u64),
            None => {}
        }
        Ok(0)
    }

    /// Writes as many of the bytes as the rate allows.
    fn pass(&mut self, bytes: GuestBytes<'_>) -> Passed {
        let allowed = self
            .rate
            .as_mut()
            .map_or(u64::MAX, |rate| rate.room(Instant::now()));
        if let Some(lines) = &mut self.lines {
            return lines.write(&self.out, bytes, allowed);
        }
        let bytes = bytes.first(usize::try_from(allowed).unwrap_or(usize::MAX));
        let (text, failed) = transfer(&self.out, bytes.len(), |fd, done| {
            bytes.skip(done).first(PIECE).write_to(fd)
        });
        Passed {
            text,
            output: bytes.len() as u64,
            failed,
        }
    }

    /// Counts bytes that [`Console::puts`] left and that no other call will write.
    pub fn drop_unwritten(&self, bytes: u64) {
        self.drop_rest(bytes as usize, &io::ErrorKind::Interrupted.into());
    }

    /// Logs dropped output at the end of a run.
    pub fn finish(&self) {
        let stats = self.stats();
        let excess = stats.excess_bytes;
        if excess > 0 {
            log::warn!(
                "console: {} of guest output dropped by --console-rate",
                Count(excess, "byte")
            );
        }
        counters::log_totals("", "console", stats, stats.faults().sum());
    }

    #[cold]
    fn drop_excess(&mut self, bytes: u64) {
        if self.stats.excess_bytes.get() == 0 {
            log::warn!(cause = "excess"; "console: output exceeds --console-rate; the excess is dropped");
        }
        self.stats.excess_bytes.add(bytes);
        self.stats.dropped_bytes.add(bytes);
    }

    #[cold]
    fn drop_rest(&self, rest: usize, error: &io::Error) {
        self.stats.dropped_bytes.add(rest as u64);
        if error.kind() == io::ErrorKind::Interrupted {
            return self.stats.interrupted.add(1);
        }
        let (counter, cause) = match error.raw_os_error() {
            Some(libc::EPIPE) => (&self.stats.closed, "closed"),
            Some(libc::EAGAIN) => (&self.stats.slow, "slow"),
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => (&self.stats.full, "full"),
            _ => (&self.stats.other, "other"),
        };
        if counter.add_first() {
            log::warn!(
                cause = cause;
                "console: cannot write to standard output: {error}; the guest's output is dropped"
            );
        }
    }
}

/// Result of writing some of the guest's bytes.
#[derive(Debug, Default)]
struct Passed {
    /// Guest bytes written.
    text: usize,
    /// Bytes of output that `--console-rate` counts: prefixes included, and even if the host did
    /// not accept them all.
    output: u64,
    /// The error that ended the output, unless the limit did.
    failed: Option<io::Error>,
}
