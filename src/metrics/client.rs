//! One client of `--metrics`, from its first byte to the last of its answer. Nothing here waits, and no buffer grows.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Read, Write as _};
use std::os::fd::AsRawFd;
use std::time::Instant;

use super::http::{self, Answer};
use super::{Exposition, Registry};

/// Reads in a row, after which other clients have their turn.
const READS: usize = 16;

/// A place for a client.
#[derive(Debug)]
pub struct Place {
    /// The client and its deadline, if there is one.
    client: Option<(File, Instant)>,
    request: Box<[u8; http::LONGEST]>,
    /// Bytes of the request that have come; all of `request` if it is too long.
    length: usize,
    /// Empty until the request is complete.
    answer: String,
    /// Bytes of the answer that the client has.
    sent: usize,
}

impl Place {
    /// A place without a client, for answers of up to `room` bytes.
    pub fn new(room: usize) -> Place {
        let (request, answer) = (Box::new([0; http::LONGEST]), String::with_capacity(room));
        Place { client: None, request, length: 0, answer, sent: 0 }
    }

    /// The time by which the client must have its answer; none without a client.
    pub fn deadline(&self) -> Option<Instant> {
        self.client.as_ref().map(|(_, deadline)| *deadline)
    }

    /// What is to be waited for.
    pub fn poll(&self) -> libc::pollfd {
        let fd = self.client.as_ref().map_or(-1, |(stream, _)| stream.as_raw_fd());
        let events = if self.answer.is_empty() { libc::POLLIN } else { libc::POLLOUT };
        libc::pollfd { fd, events, revents: 0 }
    }

    /// Takes a client whose reads and writes do not wait.
    pub fn take(&mut self, stream: File, deadline: Instant) {
        self.close();
        self.client = Some((stream, deadline));
    }

    /// The client is ready: reads its request, or writes its answer, as far as that does not wait.
    pub fn go_on(&mut self, registry: &Registry) {
        if self.answer.is_empty() { self.read(registry) } else { self.write() }
    }

    /// Answers a client that has not asked in time, and ends the connection.
    pub fn expire(&mut self, registry: &Registry) {
        if self.answer.is_empty() {
            let too_long = self.length == self.request.len();
            self.reply(if too_long { http::TOO_LONG } else { http::TOO_LATE }, registry);
        }
        self.close();
    }

    fn close(&mut self) {
        (self.client, self.length, self.sent) = (None, 0, 0);
        self.answer.clear();
    }

    /// Reads a request. One that is too long is read on until it pauses: a client that is still sending would not see
    /// the answer.
    fn read(&mut self, registry: &Registry) {
        for _ in 0..READS {
            let Some((stream, _)) = &mut self.client else { return };
            let too_long = self.length == self.request.len();
            let start = if too_long { 0 } else { self.length };
            match stream.read(&mut self.request[start..]) {
                Ok(0) => return self.close(),
                Ok(_) if too_long => {}
                Ok(count) => self.length += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && too_long => {
                    return self.reply(http::TOO_LONG, registry);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.close(),
            }
            if self.length < self.request.len() && http::is_complete(&self.request[..self.length]) {
                return self.reply(http::answer(&self.request[..self.length]), registry);
            }
        }
    }

    fn reply(&mut self, answer: Answer, registry: &Registry) {
        // Writing to a string does not fail.
        let _ = match answer {
            Answer::Metrics | Answer::Head => write!(self.answer, "{}", Exposition(registry)),
            Answer::Refusal(_, reason) => writeln!(self.answer, "{reason}; GET /metrics is all there is"),
        };
        let head = answer.head(self.answer.len());
        if answer == Answer::Head {
            self.answer.clear();
        }
        self.answer.insert_str(0, &head);
        self.write();
    }

    fn write(&mut self) {
        while let (Some((stream, _)), false) = (&mut self.client, self.sent == self.answer.len()) {
            match stream.write(&self.answer.as_bytes()[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.close();
    }
}
