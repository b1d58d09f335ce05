//! One client of `--metrics`, from its first byte to the end of its response. No call waits, and no
//! buffer grows.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Read, Write as _};
use std::os::fd::AsRawFd;
use std::time::Instant;

use super::http::{self, Answer};
use super::{Exposition, Registry};

/// Consecutive reads of one client before the others' turn.
const READS: usize = 16;

/// A slot for a client.
#[derive(Debug)]
pub(super) struct Place {
    /// The client and its deadline, if there is one.
    client: Option<(File, Instant)>,
    request: Box<[u8; http::LONGEST]>,
    /// Received bytes of the request; all of `request` if it is too long.
    length: usize,
    /// Empty until the request is complete.
    answer: String,
    /// Sent bytes of the answer.
    sent: usize,
}

impl Place {
    /// Makes an empty slot, for answers of up to `room` bytes.
    pub(super) fn new(room: usize) -> Place {
        Place {
            client: None,
            request: Box::new([0; http::LONGEST]),
            length: 0,
            answer: String::with_capacity(room),
            sent: 0,
        }
    }

    /// Returns the deadline of the client's answer; none without a client.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.client.as_ref().map(|(_, deadline)| *deadline)
    }

    /// Returns the event that this client waits for.
    pub(super) fn poll(&self) -> libc::pollfd {
        let client = self.client.as_ref();
        let fd = client.map_or(-1, |(stream, _)| stream.as_raw_fd());
        let events = if self.answer.is_empty() {
            libc::POLLIN
        } else {
            libc::POLLOUT
        };
        libc::pollfd {
            fd,
            events,
            revents: 0,
        }
    }

    /// Accepts a client with a non-blocking socket.
    pub(super) fn take(&mut self, stream: File, deadline: Instant) {
        self.close();
        self.client = Some((stream, deadline));
    }

    /// Serves a client that is ready: reads its request, or writes its answer, as far as possible
    /// without waiting.
    pub(super) fn go_on(&mut self, registry: &Registry) {
        if self.answer.is_empty() {
            self.read(registry)
        } else {
            self.write()
        }
    }

    /// Answers a client whose request is not complete in time, and ends the connection.
    pub(super) fn expire(&mut self, registry: &Registry) {
        if self.answer.is_empty() {
            let too_long = self.length == self.request.len();
            let answer = if too_long {
                http::TOO_LONG
            } else {
                http::TOO_LATE
            };
            self.reply(answer, registry);
        }
        self.close();
    }

    fn close(&mut self) {
        (self.client, self.length, self.sent) = (None, 0, 0);
        self.answer.clear();
    }

    /// Reads a request. If it is too long, reads on until the client pauses: a client that still
    /// sends would not see the answer.
    fn read(&mut self, registry: &Registry) {
        for _ in 0..READS {
            let Some((stream, _)) = &mut self.client else {
                return;
            };
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
            Answer::Refusal(_, reason) => {
                writeln!(self.answer, "{reason}; only GET /metrics is served")
            }
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
