//! What a run counts. What did not go through a device, by kind: counted where it happens, told to the operator once a
//! kind when it first does, and once more, with how often, when the run has ended.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A number that only grows. One thread at a time adds to it, at the price of an ordinary addition; any may read it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `more`. For one thread at a time: of two at once, one might not count.
    #[inline]
    pub fn add(&self, more: u64) {
        self.0
            .store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    /// The number so far.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts of what did not go through, each with the name of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults<const KINDS: usize>(pub [(&'static str, u64); KINDS]);

impl<const KINDS: usize> Faults<KINDS> {
    /// How many there were, whatever their kind.
    pub fn sum(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

/// The sum, and in parentheses what it is made of: `5 (3 down, 2 full)`.
impl<const KINDS: usize> fmt::Display for Faults<KINDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.sum())?;
        let counted = self.0.iter().filter(|(_, count)| *count > 0);
        for (i, (kind, count)) in counted.enumerate() {
            write!(f, "{}{count} {kind}", if i == 0 { " (" } else { ", " })?;
        }
        if self.sum() > 0 {
            f.write_str(")")
        } else {
            Ok(())
        }
    }
}

/// So many of a thing, whose plural has an `s`: `1 byte`, `2 bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(pub u64, pub &'static str);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Amount(number, thing) = self;
        write!(f, "{number} {thing}{}", if *number == 1 { "" } else { "s" })
    }
}

/// Which kinds of faults an operator has been told of, by all threads that may meet them.
#[derive(Debug, Default)]
pub struct Told(AtomicU32);

impl Told {
    /// True the first time that it is called for `kind`, a number below 32.
    pub fn first(&self, kind: u32) -> bool {
        let bit = 1 << (kind % u32::BITS);
        self.0.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

/// Says what went through a device: as a warning if something did not that should have.
pub fn sum_up(name: impl fmt::Display, stats: impl fmt::Display, faults: u64) {
    let level = if faults > 0 {
        log::Level::Warn
    } else {
        log::Level::Info
    };
    log::log!(level, "{name}: {stats}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nonzero_counters_are_printed() {
        assert_eq!(
            Faults([("down", 3), ("gone", 0), ("full", 2)]).to_string(),
            "5 (3 down, 2 full)"
        );
        assert_eq!(Faults([("down", 1)]).to_string(), "1 (1 down)");
        assert_eq!(Faults([("down", 0)]).to_string(), "0");
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!(
            [0, 1, 2, 11].map(|n| Amount(n, "byte").to_string()),
            ["0 bytes", "1 byte", "2 bytes", "11 bytes"]
        );
    }

    #[test]
    fn a_kind_is_logged_once() {
        let told = Told::default();
        assert_eq!(
            [3, 3, 31, 0, 31, 0].map(|kind| told.first(kind)),
            [true, false, true, true, false, false]
        );
    }
}
