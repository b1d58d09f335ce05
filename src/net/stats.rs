//! Statistics of a network device: frames and bytes transferred, and frames dropped by cause.

use std::fmt;
use std::ops::Add;

use crate::report::counters::{Count, Counter, Faults};

/// Statistics of a network device: a snapshot, or live counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats<N = u64> {
    /// Frames that the guest sent and the host accepted.
    pub sent_frames: N,
    /// Bytes of those frames, headers included.
    pub sent_bytes: N,
    /// Frames that the guest received.
    pub received_frames: N,
    /// Bytes of those frames, headers included.
    pub received_bytes: N,
    /// Sent by the guest, dropped: shorter than [`super::HEADER_SIZE`], longer than the MTU allows,
    /// or rejected by the host as malformed or too long.
    pub dropped_invalid: N,
    /// Sent by the guest, dropped: the host's queue is full.
    pub dropped_full: N,
    /// Sent by the guest, dropped: the interface is down, or has no process at its other end for
    /// now.
    pub dropped_down: N,
    /// Sent by the guest, dropped: the interface, or the other end of the socket, is gone.
    pub dropped_gone: N,
    /// Sent by the guest, dropped: the host accepted only a part.
    pub dropped_short: N,
    /// Sent by the guest, dropped for any other reason.
    pub dropped_other: N,
    /// Failed attempts to receive, other than for lack of frames.
    pub receive_errors: N,
}

impl Stats<Counter> {
    /// Returns a snapshot.
    pub fn read(&self) -> Stats {
        Stats {
            sent_frames: self.sent_frames.get(),
            sent_bytes: self.sent_bytes.get(),
            received_frames: self.received_frames.get(),
            received_bytes: self.received_bytes.get(),
            dropped_invalid: self.dropped_invalid.get(),
            dropped_full: self.dropped_full.get(),
            dropped_down: self.dropped_down.get(),
            dropped_gone: self.dropped_gone.get(),
            dropped_short: self.dropped_short.get(),
            dropped_other: self.dropped_other.get(),
            receive_errors: self.receive_errors.get(),
        }
    }
}

impl Stats {
    /// Returns the number of the guest's dropped frames, by cause.
    pub fn dropped(&self) -> Faults<6> {
        Faults([
            ("malformed or too long", self.dropped_invalid),
            ("queue full", self.dropped_full),
            ("interface down", self.dropped_down),
            ("interface gone", self.dropped_gone),
            ("cut by the host", self.dropped_short),
            ("for other reasons", self.dropped_other),
        ])
    }

    /// Returns the same with names for programs.
    pub fn causes(&self) -> [(&'static str, u64); 6] {
        [
            ("invalid", self.dropped_invalid),
            ("full", self.dropped_full),
            ("down", self.dropped_down),
            ("gone", self.dropped_gone),
            ("short", self.dropped_short),
            ("other", self.dropped_other),
        ]
    }

    /// Returns the number of the guest's dropped frames for any cause.
    pub fn dropped_frames(&self) -> u64 {
        self.dropped().sum()
    }

    /// Returns the number of errors of the host, in either direction.
    pub fn faults(&self) -> u64 {
        self.dropped_frames() + self.receive_errors
    }
}

/// Adds the statistics of an interface and its duplicate.
impl Add for Stats {
    type Output = Stats;

    fn add(self, other: Stats) -> Stats {
        Stats {
            sent_frames: self.sent_frames + other.sent_frames,
            sent_bytes: self.sent_bytes + other.sent_bytes,
            received_frames: self.received_frames + other.received_frames,
            received_bytes: self.received_bytes + other.received_bytes,
            dropped_invalid: self.dropped_invalid + other.dropped_invalid,
            dropped_full: self.dropped_full + other.dropped_full,
            dropped_down: self.dropped_down + other.dropped_down,
            dropped_gone: self.dropped_gone + other.dropped_gone,
            dropped_short: self.dropped_short + other.dropped_short,
            dropped_other: self.dropped_other + other.dropped_other,
            receive_errors: self.receive_errors + other.receive_errors,
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats {
            sent_frames,
            sent_bytes,
            received_frames,
            received_bytes,
            receive_errors,
            ..
        } = self;
        let [sent, received] = [*sent_bytes, *received_bytes].map(|bytes| Count(bytes, "byte"));
        write!(
            f,
            "sent {} ({sent}), dropped {}, ",
            Count(*sent_frames, "frame"),
            self.dropped()
        )?;
        write!(f, "received {received_frames} ({received})")?;
        if *receive_errors == 0 {
            return Ok(());
        }
        write!(f, ", failed to receive {}", Count(*receive_errors, "time"))
    }
}
