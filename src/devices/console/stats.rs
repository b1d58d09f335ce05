//! Statistics of a console: output written, and output dropped by cause.

use std::fmt;

use crate::report::counters::{Count, stats};

stats! {
    /// Output written and dropped: a snapshot, or live counters.
    counters {
        /// Bytes written.
        written_bytes,
        /// Bytes dropped.
        dropped_bytes,
        /// Part of the dropped bytes: those above the operator's limit.
        excess_bytes,
    }
    causes {
        /// Dropped: the reader has closed its end.
        closed: "closed", "reader gone",
        /// Dropped: the reader is too slow and the descriptor does not wait.
        slow: "slow", "reader too slow",
        /// Dropped: the disk is full.
        full: "full", "disk full",
        /// Dropped: a signal arrived that ends the run, which is no fault.
        interrupted: "interrupted", "",
        /// Dropped: any other reason.
        other: "other", "for other reasons",
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (written, dropped) = (Count(self.written_bytes, "byte"), self.dropped_bytes);
        write!(f, "{written} written, {dropped} dropped")?;
        match self.faults() {
            faults if faults.sum() > 0 => write!(f, ", failed {faults}"),
            _ => Ok(()),
        }
    }
}
