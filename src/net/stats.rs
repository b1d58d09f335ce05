//! Statistics of a network device: frames and bytes transferred, and frames dropped by cause.

use std::fmt;

use crate::report::counters::{Count, stats};

stats! {
    /// Statistics of a network device: a snapshot, or live counters.
    counters {
        /// Frames that the guest sent and the host accepted.
        sent_frames,
        /// Bytes of those frames, headers included.
        sent_bytes,
        /// Frames that the guest received.
        received_frames,
        /// Bytes of those frames, headers included.
        received_bytes,
        /// Failed attempts to receive, other than for lack of frames.
        receive_errors,
    }
    causes {
        /// Sent by the guest, dropped: shorter than [`super::HEADER_SIZE`], longer than the MTU
        /// allows, or rejected by the host as malformed or too long.
        dropped_invalid: "invalid", "malformed or too long",
        /// Sent by the guest, dropped: the host's queue is full.
        dropped_full: "full", "queue full",
        /// Sent by the guest, dropped: the interface is down, or has no process at its other end
        /// for now.
        dropped_down: "down", "interface down",
        /// Sent by the guest, dropped: the interface, or the other end of the socket, is gone.
        dropped_gone: "gone", "interface gone",
        /// Sent by the guest, dropped: the host accepted only a part.
        dropped_short: "short", "cut by the host",
        /// Sent by the guest, dropped for any other reason.
        dropped_other: "other", "for other reasons",
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sent {} ({}), dropped {}, received {} ({})",
            Count(self.sent_frames, "frame"),
            Count(self.sent_bytes, "byte"),
            self.faults(),
            self.received_frames,
            Count(self.received_bytes, "byte")
        )?;
        match self.receive_errors {
            0 => Ok(()),
            errors => write!(f, ", failed to receive {}", Count(errors, "time")),
        }
    }
}
