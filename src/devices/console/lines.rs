//! Output with prefixes before its lines: the time with `--console-timestamps`, and `<6>` in the
//! journal, before a line that journald would parse for a priority. Uses no heap: output is
//! assembled piece by piece.

use std::io::{self, Write};

use super::Passed;
use super::output::{Output, transfer_from};
use crate::host::signal;
use crate::memory::GuestBytes;
use crate::report::log_lines::journal::{Stream, Turn};
use crate::report::timestamp::Timestamp;

/// Bytes of a stamp, with the space after it.
pub(super) const STAMP: usize = Timestamp::LENGTH + 1;

/// Most bytes of one write, and of guest bytes in it. A pipe accepts that many atomically.
const PIECE: usize = libc::PIPE_BUF;

/// Longest line in bytes. journald breaks a longer line and parses a priority after the break:
/// LineMax= of journald.conf is 48 KiB by default.
const JOURNAL_LINE: usize = (48 << 10) - 1;

/// Prefix that journald removes again. Info is systemd's default priority of lines without one.
const PRIORITY: &[u8] = b"<6>";

/// Special column: the last write was cut off, so the next line needs a line break before it.
const CUT_OFF: usize = usize::MAX;

/// Column of a console in its line, and the prefixes of lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    stamped: bool,
    journal: Option<&'static Stream>,
    /// Bytes since the last line break. A stream to the journal has its own count, because messages
    /// go there too.
    column: usize,
}

impl Lines {
    /// Begins each line with the time.
    pub(super) fn stamp(&mut self) {
        self.stamped = true;
    }

    /// Keeps the guest from setting priorities in `journal`.
    pub(super) fn protect(&mut self, journal: &'static Stream) {
        self.journal = Some(journal);
    }

    /// Writes the guest's bytes, until they or the `allowed` bytes of output are used up.
    // Inlined, its buffers would be two pages of stack even without timestamps.
    #[inline(never)]
    pub(super) fn write(&mut self, out: &Output, bytes: GuestBytes<'_>, allowed: u64) -> Passed {
        let (mut text, mut framed) = ([0; PIECE], [0; PIECE]);
        let mut passed = Passed::default();
        while passed.text < bytes.len() {
            let count = bytes.skip(passed.text).copy_to(&mut text);
            let room =
                usize::try_from(allowed - passed.output).map_or(PIECE, |room| room.min(PIECE));
            let piece = self.write_piece(out, &text[..count], &mut framed[..room]);
            passed.text += piece.text;
            passed.output += piece.output;
            passed.failed = piece.failed;
            if passed.failed.is_some() || piece.text == 0 {
                break;
            }
            if passed.text < bytes.len() && signal::interrupts() {
                passed.failed = Some(io::ErrorKind::Interrupted.into());
                break;
            }
        }
        passed
    }

    /// Makes one write, of as many bytes of `text` as `framed` has room for.
    fn write_piece(&mut self, out: &Output, text: &[u8], framed: &mut [u8]) -> Passed {
        let turn = match self.journal.map(turn).transpose() {
            Ok(turn) => turn,
            Err(failed) => {
                return Passed {
                    failed: Some(failed),
                    ..Passed::default()
                };
            }
        };
        let column = turn.as_ref().map_or(self.column, Turn::column);
        let mut stamp = [0; STAMP];
        if self.stamped {
            // The stamp has room until the year 9999.
            let _ = write!(&mut stamp[..], "{} ", Timestamp::now());
        }
        let frame = Frame {
            stamp: self.stamped.then_some(&stamp),
            journal: self.journal.is_some(),
        };
        let whole = frame.fill(column, text, framed);
        let (done, failed) = transfer_from(out, &framed[..whole.output]);
        let mut written = if failed.is_some() {
            frame.fill(column, text, &mut framed[..done])
        } else {
            whole
        };
        if written.output < done {
            written.column = CUT_OFF;
        }
        match turn {
            Some(turn) => turn.set_column(written.column),
            None => self.column = written.column,
        }
        Passed {
            text: written.text,
            output: whole.output as u64,
            failed,
        }
    }
}

/// Waits until no other thread writes to the journal.
fn turn(journal: &'static Stream) -> io::Result<Turn<'static>> {
    loop {
        match journal.turn() {
            Some(turn) => return Ok(turn),
            None if signal::interrupts() => return Err(io::ErrorKind::Interrupted.into()),
            None => {}
        }
    }
}

/// Prefixes and ends of lines.
struct Frame<'s> {
    stamp: Option<&'s [u8; STAMP]>,
    journal: bool,
}

/// Assembled output: guest bytes in it, bytes in all, and the column after them.
#[derive(Clone, Copy)]
struct Filled {
    text: usize,
    output: usize,
    column: usize,
}

impl Frame<'_> {
    /// Copies `text` with its prefixes into `framed`, as far as there is room. The current line
    /// already has `column` bytes.
    fn fill(&self, column: usize, text: &[u8], framed: &mut [u8]) -> Filled {
        let longest = if self.journal { JOURNAL_LINE } else { CUT_OFF };
        let mut filled = Filled {
            text: 0,
            output: 0,
            column,
        };
        while filled.text < text.len() {
            let rest = &text[filled.text..];
            let line_break: &[u8] = if filled.column >= longest { b"\n" } else { b"" };
            let starts = filled.column == 0 || !line_break.is_empty();
            let opening = if starts { self.opening(rest) } else { b"" };
            let start = filled.output + line_break.len() + opening.len();
            let column = if starts { opening.len() } else { filled.column };
            let line = self.line(rest, longest - column);
            let line = &line[..line.len().min(framed.len().saturating_sub(start))];
            let Some(&last) = line.last() else { break };
            // Cut before the byte that decides, this could still become a priority.
            if starts
                && opening.is_empty()
                && line.len() < rest.len()
                && !self.opening(line).is_empty()
            {
                break;
            }
            for piece in [line_break, opening, line] {
                framed[filled.output..][..piece.len()].copy_from_slice(piece);
                filled.output += piece.len();
            }
            filled.text += line.len();
            filled.column = if self.ends(last) {
                0
            } else {
                column.saturating_add(line.len())
            };
        }
        filled
    }

    /// Returns the prefix of a line of output that begins with `text`.
    fn opening(&self, text: &[u8]) -> &[u8] {
        match (self.stamp, text) {
            (Some(stamp), _) => stamp,
            // The next PUTS may begin with a digit.
            (None, [b'<'] | [b'<', b'0'..=b'9', ..]) if self.journal => PRIORITY,
            (None, _) => b"",
        }
    }

    /// Returns the first line of `text` with its end, or part of it: at most `longest` bytes
    /// without the end.
    fn line<'t>(&self, text: &'t [u8], longest: usize) -> &'t [u8] {
        match text.iter().position(|&byte| self.ends(byte)) {
            Some(end) if end <= longest => &text[..=end],
            _ => &text[..text.len().min(longest)],
        }
    }

    /// Returns whether this byte ends a line.
    fn ends(&self, byte: u8) -> bool {
        byte == b'\n' || self.journal && byte == 0
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::OwnedFd;

    use proptest::prelude::*;

    use super::*;
    use crate::devices::console::{Console, Stats};
    use crate::memory::{GuestAddress, GuestMemory};

    const STAMPED: [u8; STAMP] = *b"2026-11-25T16:17:26.123456Z ";

    /// A priority and a message.
    type Entry = (u8, Vec<u8>);

    /// Parses a stream as journald 252 does (journald-stream.c), with priority 6 by default.
    fn entries(mut stream: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        while !stream.is_empty() {
            let most = stream.len().min(48 << 10);
            let end = stream[..most]
                .iter()
                .position(|&byte| matches!(byte, 0 | b'\n'));
            let line = &stream[..end.unwrap_or(most)];
            stream = &stream[end.map_or(most, |end| end + 1)..];
            let (priority, message) = match line {
                [b'<', digit @ b'0'..=b'7', b'>', rest @ ..] => (digit - b'0', rest),
                [b'<', b'0', digit @ b'0'..=b'7', b'>', rest @ ..] => (digit - b'0', rest),
                [b'<', b'0', b'0', digit @ b'0'..=b'7', b'>', rest @ ..] => (digit - b'0', rest),
                rest => (6, rest),
            };
            if !message.is_empty() {
                entries.push((priority, message.to_vec()));
            }
        }
        entries
    }

    /// Returns the entries of a guest's text without any priority in it.
    fn messages(text: &[u8]) -> Vec<Entry> {
        let lines = text
            .split(|byte| matches!(byte, 0 | b'\n'))
            .filter(|line| !line.is_empty());
        lines.map(|line| (6, line.to_vec())).collect()
    }

    /// Prints these pieces, with a message after each marked piece; returns the output.
    fn printed(pieces: &[(Vec<u8>, bool)], stamped: bool) -> (Vec<u8>, Stats) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stream: &Stream = Box::leak(Box::new(Stream::new()));
        let out = OwnedFd::from(file.reopen().unwrap());
        let mut console = Console::new(out).stamped(stamped).journal(stream);
        let memory = GuestMemory::new(0x10_0000).unwrap();
        for (piece, message) in pieces {
            memory.place(GuestAddress(0), piece).unwrap();
            console
                .puts(&memory, GuestAddress(0), piece.len() as u64)
                .unwrap();
            if *message {
                let turn = stream.turn().unwrap();
                let line_break = if turn.column() > 0 { "\n" } else { "" };
                turn.set_column(0);
                let mut file = fs::OpenOptions::new()
                    .append(true)
                    .open(file.path())
                    .unwrap();
                file.write_all(format!("{line_break}<4>tender: warn: x\n").as_bytes())
                    .unwrap();
                // The console's own position is not at the end of the file.
                std::os::fd::AsFd::as_fd(&console.out)
                    .try_clone_to_owned()
                    .map(seek_to_end)
                    .unwrap();
            }
        }
        (fs::read(file.path()).unwrap(), console.stats())
    }

    fn seek_to_end(file: OwnedFd) {
        std::io::Seek::seek(&mut fs::File::from(file), std::io::SeekFrom::End(0)).unwrap();
    }

    /// Text of the bytes that are significant here.
    fn text(most: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(b"<<0137>\n\0 x".to_vec()), 0..most)
    }

    #[test]
    fn only_lines_that_would_set_a_priority_are_marked() {
        let frame = Frame {
            stamp: None,
            journal: true,
        };
        for (text, expected) in [
            ("plain\n<html>\n\n<>\n", "plain\n<html>\n\n<>\n"),
            ("<0>x\n", "<6><0>x\n"),
            ("a<0>x", "a<0>x"),
            ("<", "<6><"),
            ("x\0<3>y", "x\0<6><3>y"),
        ] {
            let mut framed = [0; 100];
            let filled = frame.fill(0, text.as_bytes(), &mut framed);
            assert_eq!(
                (filled.text, std::str::from_utf8(&framed[..filled.output])),
                (text.len(), Ok(expected))
            );
        }
        assert_eq!(
            entries(b"<3>x\n<8>y\n<06>z\n"),
            [(3, b"x".into()), (6, b"<8>y".into()), (6, b"z".into())]
        );
    }

    #[test]
    fn lines_that_the_journal_would_break_are_broken_before() {
        for length in [JOURNAL_LINE - 1, JOURNAL_LINE, JOURNAL_LINE + 1, 500_000] {
            let text = b"<0>".repeat(length / 3 + 1);
            let pieces = [&text[..length], b"\n<1>end\n"].map(|piece| (piece.to_vec(), false));
            let (stream, stats) = printed(&pieces, false);
            let entries = entries(&stream);
            assert!(
                entries.iter().all(|(priority, _)| *priority == 6),
                "{length}"
            );
            let (_, last) = entries.last().unwrap();
            assert_eq!(last, b"<1>end");
            let all: Vec<u8> = entries
                .into_iter()
                .flat_map(|(_, message)| message)
                .collect();
            assert!(all == [&text[..length], b"<1>end"].concat(), "{length}");
            assert_eq!(stats.written_bytes, length as u64 + 8);
        }
    }

    proptest! {
        /// Wherever the guest splits its text, and wherever messages come between.
        #[test]
        fn no_byte_of_the_guests_sets_a_priority(pieces in prop::collection::vec((text(20), any::<bool>()), 0..20)) {
            let (stream, stats) = printed(&pieces, false);
            let mut expected = Vec::new();
            let mut open = Vec::new();
            for (piece, message) in &pieces {
                open.extend_from_slice(piece);
                if *message {
                    expected.extend(messages(&std::mem::take(&mut open)));
                    expected.push((4, b"tender: warn: x".to_vec()));
                }
            }
            expected.extend(messages(&open));
            prop_assert_eq!(entries(&stream), expected);
            prop_assert_eq!(stats.written_bytes, pieces.iter().map(|(piece, _)| piece.len() as u64).sum::<u64>());
            for (priority, message) in entries(&printed(&pieces, true).0) {
                let is_stamped = priority == 6 && message.starts_with(b"20");
                prop_assert!(is_stamped || priority == 4 && message == b"tender: warn: x");
            }
        }

        /// A limit or an error may cut the output anywhere.
        #[test]
        fn output_that_is_cut_off_sets_no_priority(
            pieces in prop::collection::vec((text(20), 0..50_usize, 0..50_usize), 0..20), stamped: bool,
        ) {
            let frame = Frame { stamp: stamped.then_some(&STAMPED), journal: true };
            let (mut stream, mut column) = (Vec::new(), 0);
            for (text, room, done) in pieces {
                let mut framed = [0; 50];
                let whole = frame.fill(column, &text, &mut framed[..room]);
                let done = done.min(whole.output);
                stream.extend_from_slice(&framed[..done]);
                let written = frame.fill(column, &text, &mut framed[..done]);
                prop_assert!(written.text <= done && whole.output <= room);
                column = if written.output < done { CUT_OFF } else { written.column };
            }
            prop_assert!(entries(&stream).iter().all(|(priority, _)| *priority == 6));
        }
    }
}
