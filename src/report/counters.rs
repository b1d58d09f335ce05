//! Run counters. The first fault of each kind is logged when it happens, and the totals are logged
//! at the end.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use log::Level;

/// A counter that only grows. Only one thread at a time may add to it, so adding costs an ordinary
/// addition; any thread may read it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `more`. Only one thread may call this at a time; a concurrent addition could be lost.
    #[inline]
    pub fn add(&self, more: u64) {
        self.0
            .store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    /// Adds 1 as [`Counter::add`] does; returns whether it is the first.
    pub fn add_first(&self) -> bool {
        self.add(1);
        self.get() == 1
    }

    /// Returns the current value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Defines the statistics of a device, `Stats`: a snapshot, or live counters. Each of its `causes`
/// is a kind of fault, with its name for programs and its name in messages. A cause with an empty
/// name in messages is no fault of the host and not in its sum.
macro_rules! stats {
    (
        $(#[$stats_doc:meta])*
        counters { $($(#[$doc:meta])* $counter:ident,)* }
        causes { $($(#[$cause_doc:meta])* $cause:ident: $key:literal, $words:literal,)* }
    ) => {
        $(#[$stats_doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats<N = u64> {
            $($(#[$doc])* pub $counter: N,)*
            $($(#[$cause_doc])* pub $cause: N,)*
        }

        impl Stats<$crate::report::counters::Counter> {
            /// Returns a snapshot.
            pub fn read(&self) -> Stats {
                Stats {
                    $($counter: self.$counter.get(),)*
                    $($cause: self.$cause.get(),)*
                }
            }
        }

        impl Stats {
            /// Returns the faults by cause, with names for programs.
            pub fn causes(&self) -> [(&'static str, u64); [$($key),*].len()] {
                [$(($key, self.$cause)),*]
            }

            /// Returns the host's faults by cause, with names for messages.
            pub fn faults(&self) -> $crate::report::counters::Faults<{ [$($key),*].len() }> {
                $crate::report::counters::Faults([$(($words, self.$cause)),*])
            }
        }

        impl std::ops::Add for Stats {
            type Output = Stats;

            fn add(self, other: Stats) -> Stats {
                Stats {
                    $($counter: self.$counter + other.$counter,)*
                    $($cause: self.$cause + other.$cause,)*
                }
            }
        }
    };
}
pub(crate) use stats;

/// Fault counts, each with the name of its kind. A kind without a name does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults<const KINDS: usize>(pub [(&'static str, u64); KINDS]);

impl<const KINDS: usize> Faults<KINDS> {
    /// Returns the sum over all kinds.
    pub fn sum(&self) -> u64 {
        self.counted().map(|(_, count)| count).sum()
    }

    fn counted(&self) -> impl Iterator<Item = &(&'static str, u64)> {
        self.0
            .iter()
            .filter(|(kind, count)| !kind.is_empty() && *count > 0)
    }
}

/// Prints the sum and its parts in parentheses: `5 (3 down, 2 full)`.
impl<const KINDS: usize> fmt::Display for Faults<KINDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.sum())?;
        for (i, (kind, count)) in self.counted().enumerate() {
            write!(f, "{}{count} {kind}", if i == 0 { " (" } else { ", " })?;
        }
        f.write_str(if self.sum() > 0 { ")" } else { "" })
    }
}

/// A count with its noun, whose plural ends in `s`: `1 byte`, `2 bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u64, pub &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count(number, thing) = self;
        write!(f, "{number} {thing}{}", if *number == 1 { "" } else { "s" })
    }
}

/// The kinds of faults that have been logged, shared by all threads that may meet them.
#[derive(Debug, Default)]
pub struct WarnOnce(AtomicU32);

impl WarnOnce {
    /// Returns true on the first call for `kind`, a number below 32.
    pub fn first(&self, kind: u32) -> bool {
        let bit = 1 << (kind % u32::BITS);
        self.0.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

/// Logs the totals of a device, which is `name` on the host: as a warning if there were faults.
pub fn log_totals(device: &str, name: impl fmt::Display, stats: impl fmt::Display, faults: u64) {
    let level = if faults == 0 {
        Level::Info
    } else {
        Level::Warn
    };
    log::log!(level, device = device; "{name}: {stats}");
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
        assert_eq!(Faults([("", 3), ("down", 1)]).to_string(), "1 (1 down)");
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!(
            [0, 1, 2, 11].map(|n| Count(n, "byte").to_string()),
            ["0 bytes", "1 byte", "2 bytes", "11 bytes"]
        );
    }

    #[test]
    fn a_kind_is_logged_once() {
        let warned = WarnOnce::default();
        assert_eq!(
            [3, 3, 31, 0, 31, 0].map(|kind| warned.first(kind)),
            [true, false, true, true, false, false]
        );
    }
}
