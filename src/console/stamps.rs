//! `--console-timestamps`: each line of the guest's begins with the time at which its first byte came. Without a heap: a
//! line is put together piece by piece.

use std::io::{self, Write};
use std::os::fd::AsRawFd;

use super::{Output, transfer};
use crate::memory::GuestBytes;
use crate::timestamp::Timestamp;

/// Bytes of a stamp, with the space after it.
pub(super) const LENGTH: usize = Timestamp::LENGTH + 1;

/// Most bytes of the guest's that one write has.
const PIECE: usize = 1024;

/// Where in its lines a console is.
#[derive(Debug)]
pub(super) struct Stamps {
    /// The next byte begins a line.
    begins: bool,
}

impl Stamps {
    /// At the beginning.
    pub fn new() -> Stamps {
        Stamps { begins: true }
    }

    /// Writes the guest's bytes, a line or a piece of one at a time; says how many of them were written, and what was in
    /// the way.
    pub fn write(&mut self, out: &Output, bytes: GuestBytes<'_>) -> (usize, Option<io::Error>) {
        let mut done = 0;
        let mut piece = [0; PIECE];
        while done < bytes.len() {
            let count = bytes.skip(done).copy_to(&mut piece);
            for line in piece[..count].split_inclusive(|byte| *byte == b'\n') {
                let (written, failed) = self.write_line(out, line);
                done += written;
                if failed.is_some() {
                    return (done, failed);
                }
            }
        }
        (done, None)
    }

    /// One write for what is one line or less.
    fn write_line(&mut self, out: &Output, line: &[u8]) -> (usize, Option<io::Error>) {
        let mut text = [0; LENGTH + PIECE];
        let mut rest = &mut text[..];
        if self.begins {
            // There is room for it, as for eight thousand years to come.
            let _ = write!(rest, "{} ", Timestamp::now());
        }
        let stamp = LENGTH + PIECE - rest.len();
        text[stamp..][..line.len()].copy_from_slice(line);
        let text = &text[..stamp + line.len()];
        let (done, failed) = transfer(out, text.len(), |fd, done| {
            // SAFETY: the kernel reads as many bytes as there are.
            let result = unsafe { libc::write(fd.as_raw_fd(), text[done..].as_ptr().cast(), text.len() - done) };
            usize::try_from(result).map_err(|_| io::Error::last_os_error())
        });
        self.begins = line.ends_with(b"\n");
        (done.saturating_sub(stamp), failed)
    }
}
