//! The console: the guest's bytes, unchanged, on the tender's standard output.
//!
//! Nothing is held back and nothing is added, unless the operator wants to know the time of each line. Output is best effort: when nobody can take it, the guest goes on. A
//! guest that prints more than the operator allows is heard up to that.

mod rate;
mod stamps;
mod stats;

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use self::rate::Rate;
use self::stamps::Stamps;
pub use self::stats::Stats;
use crate::counts::{self, Amount, Counter};
use crate::memory::{self, GuestAddress, GuestMemory};
use crate::signal;

/// Most bytes of one write: the host takes as many from a guest's memory into a file before it looks for signals.
const PIECE: usize = 1 << 20;

/// The console of one guest.
#[derive(Debug)]
pub struct Console {
    out: Output,
    rate: Option<Rate>,
    stamps: Option<Stamps>,
    stats: Arc<Stats<Counter>>,
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
        Console { out: Output::Stdout(io::stdout()), rate: None, stamps: None, stats: Arc::default() }
    }

    /// A console on any descriptor.
    pub fn new(out: impl Into<OwnedFd>) -> Console {
        Console { out: Output::Other(out.into()), rate: None, stamps: None, stats: Arc::default() }
    }

    /// The same console, through which so many bytes a second may pass; more are dropped and counted.
    pub fn limited(self, rate: Option<NonZeroU64>) -> Console {
        Console { rate: rate.map(|rate| Rate::new(rate, Instant::now())), ..self }
    }

    /// The same console, whose lines begin with the time if `stamped`.
    pub fn stamped(self, stamped: bool) -> Console {
        Console { stamps: stamped.then(Stamps::new), ..self }
    }

    /// What went through so far.
    pub fn stats(&self) -> Stats {
        self.stats.read()
    }

    /// What goes through, for another thread to read.
    pub fn counters(&self) -> Arc<Stats<Counter>> {
        Arc::clone(&self.stats)
    }

    /// PUTS: writes the `len` bytes at `addr`. What the host does not take is dropped and counted. Section 8.
    ///
    /// # Errors
    /// The bytes do not lie within guest memory.
    pub fn puts(&mut self, memory: &GuestMemory, addr: GuestAddress, len: u64) -> Result<(), memory::RangeError> {
        let mut rest = memory.bytes(addr, len)?;
        if let Some(rate) = &mut self.rate {
            let allowed = rate.take(len, Instant::now());
            if allowed < len {
                self.drop_excess(len - allowed);
                rest = rest.first(allowed as usize);
            }
        }
        match &mut self.stamps {
            None => {
                let (done, failed) =
                    transfer(&self.out, rest.len(), |fd, done| rest.skip(done).first(PIECE).write_to(fd));
                self.note(rest.len(), done, failed);
            }
            Some(stamps) => {
                let (done, failed) = stamps.write(&self.out, rest);
                self.note(rest.len(), done, failed);
            }
        }
        Ok(())
    }

    /// Of `len` bytes of the guest's, `done` were written, and the rest was not for this reason.
    fn note(&self, len: usize, done: usize, failed: Option<io::Error>) {
        self.stats.written_bytes.add(done as u64);
        if let Some(error) = failed {
            self.drop_rest(len - done, &error);
        }
    }

    /// Says at the end of a run what the operator should know of it.
    pub fn finish(&self) {
        let stats = self.stats();
        let excess = stats.excess_bytes;
        if excess > 0 {
            log::warn!("console: {} of the guest's output dropped by --console-rate", Amount(excess, "byte"));
        }
        counts::sum_up("console", stats, stats.faults().sum());
    }

    #[cold]
    fn drop_excess(&mut self, bytes: u64) {
        if self.stats.excess_bytes.get() == 0 {
            log::warn!("console: the guest prints more than --console-rate allows; what is more is dropped");
        }
        self.stats.excess_bytes.add(bytes);
        self.stats.dropped_bytes.add(bytes);
    }

    #[cold]
    fn drop_rest(&self, rest: usize, error: &io::Error) {
        self.stats.dropped_bytes.add(rest as u64);
        let counter = match error.raw_os_error() {
            Some(libc::EPIPE) => &self.stats.closed,
            Some(libc::EAGAIN) => &self.stats.slow,
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => &self.stats.full,
            Some(libc::EINTR) => {
                self.stats.interrupted.add(1);
                return;
            }
            _ => &self.stats.other,
        };
        counter.add(1);
        if counter.get() == 1 {
            log::warn!("console: cannot write to standard output: {error}; the guest's output is dropped");
        }
    }
}

/// Repeats `write`, which is told how many bytes are through, until `len` are; says how many were, and what was in the way.
fn transfer(
    out: &Output,
    len: usize,
    mut write: impl FnMut(BorrowedFd<'_>, usize) -> io::Result<usize>,
) -> (usize, Option<io::Error>) {
    let mut done = 0;
    while done < len {
        match write(out.as_fd(), done) {
            Ok(0) => return (done, Some(io::ErrorKind::WriteZero.into())),
            Ok(written) => {
                done += written;
                // A slow reader takes a little each time, so a write that is cut short by a signal does not fail.
                if done < len && signal::received().is_some() {
                    return (done, Some(io::Error::from_raw_os_error(libc::EINTR)));
                }
            }
            // Only the signals that end a run are a reason to write no more.
            Err(error) if error.kind() == io::ErrorKind::Interrupted && signal::received().is_none() => {}
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::Read;
    use std::os::fd::{AsRawFd, FromRawFd};

    use super::*;

    const TEXT: &[u8] = b"Hello\0\xff\n";

    fn memory() -> GuestMemory {
        let memory = GuestMemory::new(0x4000).unwrap();
        memory.place(GuestAddress(0x1000), TEXT).unwrap();
        memory
    }

    fn pipe(flags: libc::c_int) -> (File, File) {
        let mut fds = [0; 2];
        // SAFETY: the array has room for the two descriptors.
        assert_eq!(unsafe { libc::pipe2(fds.as_mut_ptr(), flags) }, 0);
        // SAFETY: both are new and nobody else's.
        fds.map(|fd| unsafe { File::from_raw_fd(fd) }).into()
    }

    fn puts(console: &mut Console, addr: u64, len: u64) -> Result<(), memory::RangeError> {
        console.puts(&memory(), GuestAddress(addr), len)
    }

    #[test]
    fn bytes_arrive_unchanged() {
        let (mut reader, writer) = pipe(0);
        let mut console = Console::new(writer);
        puts(&mut console, 0x1000, TEXT.len() as u64).unwrap();
        puts(&mut console, 0x1001, 2).unwrap();
        assert_eq!(console.stats(), Stats { written_bytes: TEXT.len() as u64 + 2, ..Stats::default() });
        drop(console);
        let mut seen = Vec::new();
        reader.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, [TEXT, b"el"].concat());
    }

    #[test]
    fn nothing_is_written_for_nothing() {
        // A descriptor that cannot be written to would count a failure.
        let mut console = Console::new(File::open("/dev/null").unwrap());
        puts(&mut console, 0x1000, 0).unwrap();
        assert_eq!(console.stats(), Stats::default());
    }

    #[test]
    fn the_end_of_memory_is_in_reach_and_what_follows_is_not() {
        let mut console = Console::new(OpenOptions::new().write(true).open("/dev/null").unwrap());
        puts(&mut console, 0x3fff, 1).unwrap();
        assert!(matches!(puts(&mut console, 0x3fff, 2), Err(memory::RangeError::OutOfRange { .. })));
        assert!(matches!(puts(&mut console, u64::MAX, 2), Err(memory::RangeError::OutOfRange { .. })));
        assert_eq!(console.stats().written_bytes, 1);
    }

    #[test]
    fn a_closed_reader_costs_the_guest_nothing() {
        let (reader, writer) = pipe(0);
        drop(reader);
        let mut console = Console::new(writer);
        puts(&mut console, 0x1000, 4).unwrap();
        puts(&mut console, 0x1000, 4).unwrap();
        assert_eq!(console.stats(), Stats { dropped_bytes: 8, closed: 2, ..Stats::default() });
    }

    #[test]
    fn a_full_disk_costs_the_guest_nothing() {
        let mut console = Console::new(OpenOptions::new().write(true).open("/dev/full").unwrap());
        puts(&mut console, 0x1000, 4).unwrap();
        assert_eq!(console.stats(), Stats { dropped_bytes: 4, full: 1, ..Stats::default() });
    }

    #[test]
    fn what_is_more_than_allowed_is_dropped_and_counted() {
        let (mut reader, writer) = pipe(0);
        let mut console = Console::new(writer).limited(NonZeroU64::new(5));
        for _ in 0..3 {
            puts(&mut console, 0x1000, 4).unwrap();
        }
        let stats = console.stats();
        // A second holds five bytes; a slow machine may have had more than one.
        assert!((5..12).contains(&stats.written_bytes), "{stats:?}");
        assert_eq!((stats.dropped_bytes, stats.excess_bytes), (12 - stats.written_bytes, 12 - stats.written_bytes));
        drop(console);
        let mut seen = Vec::new();
        reader.read_to_end(&mut seen).unwrap();
        assert_eq!(seen.len() as u64, stats.written_bytes);
        assert_eq!(seen[..5], *b"HellH");
    }

    #[test]
    fn what_is_more_than_a_piece_arrives_whole() {
        let file = tempfile::tempfile().unwrap();
        let len = 2 * PIECE as u64 + 5;
        let memory = GuestMemory::new(4 << 20).unwrap();
        memory.place(GuestAddress(len - TEXT.len() as u64), TEXT).unwrap();
        let mut console = Console::new(file.try_clone().unwrap());
        console.puts(&memory, GuestAddress(0), len).unwrap();
        assert_eq!(console.stats(), Stats { written_bytes: len, ..Stats::default() });
        let mut end = [0; TEXT.len()];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut end, len - TEXT.len() as u64).unwrap();
        assert_eq!((file.metadata().unwrap().len(), end.as_slice()), (len, TEXT));
    }

    /// The lines without their stamps, each of which has to be there, and nowhere else.
    fn unstamped(seen: &[u8]) -> String {
        let lines = std::str::from_utf8(seen).unwrap().split_inclusive('\n');
        let text = |line: &str| {
            let (stamp, text) = line.split_at(stamps::LENGTH);
            assert!(stamp.starts_with("20") && stamp.ends_with("Z "), "{line:?}");
            text.to_owned()
        };
        lines.map(text).collect()
    }

    #[test]
    fn lines_are_stamped_wherever_the_guest_cuts_them() {
        let (mut reader, writer) = pipe(0);
        let mut console = Console::new(writer).stamped(true);
        let long = "x".repeat(3000);
        let text = format!("one\n\ntwo {long}\nthree");
        let memory = memory();
        memory.place(GuestAddress(0), text.as_bytes()).unwrap();
        for (start, end) in [(0, 2), (2, 4), (4, 7), (7, 7), (7, 3005), (3005, text.len() as u64)] {
            console.puts(&memory, GuestAddress(start), end - start).unwrap();
        }
        assert_eq!(console.stats(), Stats { written_bytes: text.len() as u64, ..Stats::default() });
        drop(console);
        let mut seen = Vec::new();
        reader.read_to_end(&mut seen).unwrap();
        assert_eq!(unstamped(&seen), text);
    }

    #[test]
    fn stamps_are_not_the_guests_output() {
        let mut console = Console::new(OpenOptions::new().write(true).open("/dev/full").unwrap()).stamped(true);
        puts(&mut console, 0x1000, 4).unwrap();
        assert_eq!(console.stats(), Stats { dropped_bytes: 4, full: 1, ..Stats::default() });
    }

    #[test]
    fn a_slow_reader_gets_what_it_has_room_for() {
        let (mut reader, writer) = pipe(libc::O_NONBLOCK);
        // SAFETY: it shrinks the pipe's buffer to one page.
        let room = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) } as u64;
        let mut console = Console::new(writer);
        let len = room + 8192;
        let memory = GuestMemory::new(len).unwrap();
        console.puts(&memory, GuestAddress(0), len).unwrap();
        assert_eq!(console.stats(), Stats { written_bytes: room, dropped_bytes: 8192, slow: 1, ..Stats::default() });
        drop(console);
        assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap() as u64, room);
    }
}
