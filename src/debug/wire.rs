//! A connection to a debugger, or to a client that has sent no packet yet. Its buffers never grow.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use gdbstub::conn::Connection;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::host::signal;

/// Bytes of each buffer. A longer reply goes out in pieces of this size.
const SIZE: usize = 4096;

/// Kind of client, by the first bytes of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// A debugger: a whole packet of gdb's protocol with the right checksum.
    Packet,
    /// Possibly a debugger: the packet is not complete.
    Unfinished,
    /// Not a debugger.
    Foreign,
}

/// Classifies the first bytes of a connection. gdb may send acknowledgements and an interrupt
/// before its first packet.
pub(super) fn opening(bytes: &[u8]) -> Opening {
    let start = bytes
        .iter()
        .position(|byte| !matches!(byte, b'+' | b'-' | 0x03))
        .unwrap_or(bytes.len());
    let packet = match &bytes[start..] {
        [] => return Opening::Unfinished,
        [b'$', packet @ ..] => packet,
        _ => return Opening::Foreign,
    };
    let Some(end) = packet.iter().position(|byte| *byte == b'#') else {
        return Opening::Unfinished;
    };
    let Some(&[high, low]) = packet.get(end + 1..end + 3) else {
        return Opening::Unfinished;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let sum = digit(high).zip(digit(low));
    let expected = packet[..end].iter().copied().fold(0, u8::wrapping_add);
    if sum.is_some_and(|(high, low)| 16 * high + low == u32::from(expected)) {
        Opening::Packet
    } else {
        Opening::Foreign
    }
}

/// The connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: File,
    input: Box<[u8; SIZE]>,
    /// Received bytes of `input` that are not yet read.
    unread: std::ops::Range<usize>,
    output: Vec<u8>,
}

impl Wire {
    /// Wraps a stream socket as a file, so that only `read` and `write` are used, which take no
    /// address.
    pub(super) fn new(stream: OwnedFd) -> Wire {
        Wire {
            stream: stream.into(),
            input: Box::new([0; SIZE]),
            unread: 0..0,
            output: Vec::with_capacity(SIZE),
        }
    }

    /// The descriptor, for polls and the sandbox.
    pub(super) fn descriptor(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Reads more of the first bytes when there are some, and classifies all of them.
    pub(super) fn more(&mut self) -> Opening {
        match self.stream.read(&mut self.input[self.unread.end..]) {
            Ok(0) => return Opening::Foreign,
            Ok(count) => self.unread.end += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Opening::Foreign,
        }
        match opening(&self.input[self.unread.clone()]) {
            Opening::Unfinished if self.unread.end == SIZE => Opening::Foreign,
            opening => opening,
        }
    }

    /// Reads the next byte; none if the debugger has disconnected.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`] if the run is to end.
    pub(super) fn read_byte(&mut self) -> io::Result<Option<u8>> {
        while self.unread.is_empty() {
            match self.stream.read(&mut self.input[..]) {
                Ok(0) => return Ok(None),
                Ok(count) => self.unread = 0..count,
                // The debugger's data interrupts as well.
                Err(error)
                    if error.kind() == ErrorKind::Interrupted && signal::received().is_none() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.unread.next().map(|place| self.input[place]))
    }

    /// Whether [`Wire::read_byte`] would return immediately.
    pub(super) fn has_input(&self) -> io::Result<bool> {
        if !self.unread.is_empty() {
            return Ok(true);
        }
        let mut wait = [PollFd::new(&self.stream, PollFlags::IN)];
        Ok(poll(&mut wait, Some(&Timespec::default()))? > 0)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Connection for Wire {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        if self.output.len() == SIZE {
            // A reply may be as long as the guest's memory, so each write checks for the end of the
            // run.
            if signal::received().is_some() {
                return Err(ErrorKind::Interrupted.into());
            }
            self.flush()?;
        }
        self.output.push(byte);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut rest = &self.output[..];
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(done) => rest = &rest[done..],
                Err(error)
                    if error.kind() == ErrorKind::Interrupted && signal::received().is_none() => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Calls the trait's method by its full name, because gdbstub's trait has a `write_all` as
    /// well.
    fn send(client: &mut UnixStream, bytes: &[u8]) {
        Write::write_all(client, bytes).unwrap();
    }

    #[test]
    fn only_a_whole_packet_with_a_valid_sum_is_a_debuggers() {
        for bytes in [
            "$?#3f",
            "+$?#3f",
            "+-+$?#3F",
            "\x03$?#3f+$g#67",
            "$#00",
            "$m0,8#xx$",
            "$?#3",
        ] {
            let expected = match bytes {
                "$m0,8#xx$" => Opening::Foreign,
                "$?#3" => Opening::Unfinished,
                _ => Opening::Packet,
            };
            assert_eq!(opening(bytes.as_bytes()), expected, "{bytes:?}");
        }
        for bytes in ["", "+", "+++\x03", "$", "+$qSupported:", "$?#"] {
            assert_eq!(opening(bytes.as_bytes()), Opening::Unfinished, "{bytes:?}");
        }
        for bytes in [
            "GET / HTTP/1.0\r\n\r\n",
            "\0",
            "+?",
            "$?#40",
            "$?#+f",
            "$?#3\u{e9}",
            "\x16\x03\x01",
        ] {
            assert_eq!(opening(bytes.as_bytes()), Opening::Foreign, "{bytes:?}");
        }
    }

    /// Classifies the first bytes of a client that sends these pieces and disconnects.
    fn classified(pieces: &[&[u8]]) -> Vec<Opening> {
        let (mut client, ours) = UnixStream::pair().unwrap();
        let mut wire = Wire::new(ours.into());
        let mut judge = |piece: &&[u8]| {
            send(&mut client, piece);
            wire.more()
        };
        let mut classified: Vec<_> = pieces.iter().map(&mut judge).collect();
        drop(client);
        classified.push(wire.more());
        classified
    }

    #[test]
    fn a_client_may_be_slow_and_ends_by_hanging_up() {
        use Opening::{Foreign, Packet, Unfinished};
        assert_eq!(classified(&[]), [Foreign]);
        assert_eq!(
            classified(&[b"+$", b"?", b"#3"]),
            [Unfinished, Unfinished, Unfinished, Foreign]
        );
        assert_eq!(
            classified(&[b"+$", b"?#", b"3f"])[..3],
            [Unfinished, Unfinished, Packet]
        );
        assert_eq!(
            classified(&[&[b'+'; SIZE - 1], b"+"])[..2],
            [Unfinished, Foreign]
        );
        assert_eq!(
            classified(&[b"$", &[b'A'; SIZE - 1]])[..2],
            [Unfinished, Foreign]
        );
    }

    #[test]
    fn a_long_reply_takes_no_more_room_than_a_short_one() {
        let (mut client, ours) = UnixStream::pair().unwrap();
        let mut wire = Wire::new(ours.into());
        let reply: Vec<u8> = (0..10 * SIZE + 1).map(|place| place as u8).collect();
        reply.iter().for_each(|byte| wire.write(*byte).unwrap());
        wire.flush().unwrap();
        assert_eq!(wire.output.capacity(), SIZE);
        drop(wire);
        let mut read = Vec::new();
        client.read_to_end(&mut read).unwrap();
        assert!(read == reply);
    }

    #[test]
    fn bytes_before_the_session_are_read_first() {
        let (mut client, ours) = UnixStream::pair().unwrap();
        let mut wire = Wire::new(ours.into());
        send(&mut client, b"+$?#3f");
        assert_eq!(wire.more(), Opening::Packet);
        send(&mut client, b"\x03");
        drop(client);
        let mut read = Vec::new();
        while wire.has_input().unwrap() {
            let Some(byte) = wire.read_byte().unwrap() else {
                break;
            };
            read.push(byte);
        }
        assert_eq!(read, b"+$?#3f\x03");
    }
}
