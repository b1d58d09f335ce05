//! Statistics of a console: output written, and output dropped by cause.

use std::fmt;

use crate::report::counters::{Count, Counter, Faults};

/// Output written and dropped: a snapshot, or live counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats<N = u64> {
    /// Bytes written.
    pub written_bytes: N,
    /// Bytes dropped.
    pub dropped_bytes: N,
    /// Dropped: the reader has closed its end.
    pub closed: N,
    /// Dropped: the reader is too slow and the descriptor does not wait.
    pub slow: N,
    /// Dropped: the disk is full.
    pub full: N,
    /// Dropped: a signal arrived that ends the run.
    pub interrupted: N,
    /// Dropped: any other reason.
    pub other: N,
    /// Part of the dropped bytes: those above the operator's limit.
    pub excess_bytes: N,
}

impl Stats<Counter> {
    /// Returns a snapshot.
    pub fn read(&self) -> Stats {
        Stats {
            written_bytes: self.written_bytes.get(),
            dropped_bytes: self.dropped_bytes.get(),
            closed: self.closed.get(),
            slow: self.slow.get(),
            full: self.full.get(),
            interrupted: self.interrupted.get(),
            other: self.other.get(),
            excess_bytes: self.excess_bytes.get(),
        }
    }
}

impl Stats {
    /// Returns failed writes by cause. A signal that ends the run is not one.
    pub fn faults(&self) -> Faults<4> {
        Faults([
            ("reader gone", self.closed),
            ("reader too slow", self.slow),
            ("disk full", self.full),
            ("for other reasons", self.other),
        ])
    }

    /// Returns dropped writes by cause, with names for programs, including the signal that ends a
    /// run.
    pub fn causes(&self) -> [(&'static str, u64); 5] {
        [
            ("closed", self.closed),
            ("slow", self.slow),
            ("full", self.full),
            ("interrupted", self.interrupted),
            ("other", self.other),
        ]
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} written, {} dropped",
            Count(self.written_bytes, "byte"),
            self.dropped_bytes
        )?;
        let faults = self.faults();
        if faults.sum() > 0 {
            write!(f, ", failed {faults}")
        } else {
            Ok(())
        }
    }
}
