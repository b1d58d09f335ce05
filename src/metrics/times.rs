//! Measures the time of a run. Each exit of the guest costs two readings of the clock, so this is
//! done only on request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A stopwatch in nanoseconds that can be read while it runs. One thread starts and stops it.
///
/// The state is one 64-bit value, so that no reader sees half of a change. The lowest bit is set
/// while the stopwatch runs; the other bits then hold the sum minus the timestamp of the start.
#[derive(Debug, Default)]
pub struct Stopwatch(AtomicU64);

impl Stopwatch {
    /// Starts at the timestamp `now`.
    pub fn start(&self, now: u64) {
        let sum = self.0.load(Ordering::Relaxed) >> 1;
        self.0
            .store(sum.wrapping_sub(now) << 1 | 1, Ordering::Relaxed);
    }

    /// Stops at the timestamp `now`.
    pub fn stop(&self, now: u64) {
        self.0.store(self.read(|| now) << 1, Ordering::Relaxed);
    }

    /// Returns the sum so far. Calls `now` for a timestamp only if that must be later than the
    /// start.
    pub fn read(&self, now: impl FnOnce() -> u64) -> u64 {
        // 63 bits: three hundred years.
        const BITS: u64 = u64::MAX >> 1;
        match self.0.load(Ordering::Acquire) {
            value if value & 1 == 0 => value >> 1,
            value => (value >> 1).wrapping_add(now()) & BITS,
        }
    }
}

/// The times of a run.
#[derive(Debug)]
pub struct Times {
    began: Instant,
    guest: Stopwatch,
    poll: Stopwatch,
    /// The largest value of the rest that was returned so far.
    rest: AtomicU64,
}

/// The time of a run so far, in nanoseconds. The three parts add up to it, except for the time of
/// reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// In `KVM_RUN`: in the guest, and in the kernel for it.
    pub guest: u64,
    /// Asleep in POLL.
    pub poll: u64,
    /// In the tender itself.
    pub tender: u64,
}

/// Guard: while it exists, time is accounted to POLL.
#[derive(Debug)]
pub struct Asleep<'t>(&'t Times);

impl Times {
    /// Starts: time is accounted to the tender until [`Times::in_guest`] or [`Times::asleep`].
    pub fn begin() -> Times {
        Times {
            began: Instant::now(),
            guest: Stopwatch::default(),
            poll: Stopwatch::default(),
            rest: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Runs `run` and accounts the time to the guest.
    pub fn in_guest<T>(&self, run: impl FnOnce() -> T) -> T {
        self.guest.start(self.now());
        let result = run();
        self.guest.stop(self.now());
        result
    }

    /// Accounts the time to POLL until the result is dropped.
    pub fn asleep(&self) -> Asleep<'_> {
        self.poll.start(self.now());
        Asleep(self)
    }

    /// Returns the time spent so far.
    pub fn spent(&self) -> Spent {
        let [guest, poll] = [&self.guest, &self.poll].map(|watch| watch.read(|| self.now()));
        // The parts change while they are read, so the rest may seem to decrease, which no counter
        // may do.
        let rest = self.now().saturating_sub(guest + poll);
        Spent {
            guest,
            poll,
            tender: self.rest.fetch_max(rest, Ordering::Relaxed).max(rest),
        }
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.0.poll.stop(self.0.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopwatch_can_be_read_while_it_runs() {
        let watch = Stopwatch::default();
        assert_eq!(watch.read(|| 1000), 0);
        watch.start(1000);
        assert_eq!((watch.read(|| 1000), watch.read(|| 1500)), (0, 500));
        watch.stop(1600);
        assert_eq!((watch.read(|| 1600), watch.read(|| 9000)), (600, 600));
        watch.start(10_000);
        assert_eq!(watch.read(|| 10_001), 601);
        watch.stop(20_000);
        assert_eq!(watch.read(|| 0), 10_600);
    }

    #[test]
    fn the_parts_add_up() {
        let times = Times::begin();
        times.in_guest(|| std::thread::sleep(std::time::Duration::from_millis(3)));
        drop(times.asleep());
        let spent = times.spent();
        assert!(
            spent.guest >= 3_000_000 && spent.poll < spent.guest,
            "{spent:?}"
        );
        let later = times.spent();
        assert!(
            (later.guest, later.poll) == (spent.guest, spent.poll) && later.tender >= spent.tender,
            "{later:?}"
        );
    }
}
