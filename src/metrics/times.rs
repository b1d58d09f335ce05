//! Measures the time of a run. Each exit of the guest costs two readings of the clock, so this is
//! done only on request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A stopwatch in nanoseconds. One thread starts and stops it; any thread can read it at any time.
///
/// One word, so that no reader sees half a change: twice the sum of all intervals; while it runs,
/// twice the difference of that sum and the start, plus 1, modulo 2^64.
#[derive(Debug, Default)]
struct Stopwatch(AtomicU64);

impl Stopwatch {
    /// Starts at the timestamp `now`.
    fn start(&self, now: u64) {
        let sum = self.0.load(Ordering::Relaxed);
        self.0
            .store(sum.wrapping_sub(2 * now) | 1, Ordering::Relaxed);
    }

    /// Stops at the timestamp `now`.
    fn stop(&self, now: u64) {
        let difference = self.0.load(Ordering::Relaxed) & !1;
        self.0
            .store(difference.wrapping_add(2 * now), Ordering::Relaxed);
    }

    /// Returns the sum at the timestamp `now`, which may be from before the start.
    fn read(&self, now: u64) -> u64 {
        let value = self.0.load(Ordering::Relaxed);
        if value & 1 == 0 {
            return value / 2;
        }
        let sum = (value & !1).wrapping_add(2 * now) as i64;
        sum.max(0) as u64 / 2
    }
}

/// The times of a run.
#[derive(Debug)]
pub(crate) struct Times {
    began: Instant,
    guest: Stopwatch,
    poll: Stopwatch,
    /// The largest values that were returned so far, as no counter may decrease.
    returned: [AtomicU64; 3],
}

/// The time of a run so far, in nanoseconds. The three parts add up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spent {
    /// In `KVM_RUN`: in the guest, and in the kernel for it.
    pub guest: u64,
    /// Asleep in POLL.
    pub poll: u64,
    /// In the tender itself.
    pub tender: u64,
}

/// Guard: while it exists, time is accounted to POLL.
#[derive(Debug)]
pub(crate) struct Asleep<'t>(&'t Times);

impl Times {
    /// Starts: time is accounted to the tender until [`Times::in_guest`] or [`Times::asleep`].
    pub(crate) fn begin() -> Times {
        Times {
            began: Instant::now(),
            guest: Stopwatch::default(),
            poll: Stopwatch::default(),
            returned: Default::default(),
        }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Runs `run` and accounts the time to the guest.
    pub(crate) fn in_guest<T>(&self, run: impl FnOnce() -> T) -> T {
        self.guest.start(self.now());
        let result = run();
        self.guest.stop(self.now());
        result
    }

    /// Accounts the time to POLL until the result is dropped.
    pub(crate) fn asleep(&self) -> Asleep<'_> {
        self.poll.start(self.now());
        Asleep(self)
    }

    /// Returns the time spent so far.
    pub(crate) fn spent(&self) -> Spent {
        let now = self.now();
        let (guest, poll) = (self.guest.read(now), self.poll.read(now));
        let parts = [guest, poll, now.saturating_sub(guest + poll)];
        let [guest, poll, tender] = std::array::from_fn(|index| {
            let before = self.returned[index].fetch_max(parts[index], Ordering::Relaxed);
            before.max(parts[index])
        });
        Spent {
            guest,
            poll,
            tender,
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
        assert_eq!(watch.read(1000), 0);
        watch.start(1000);
        assert_eq!((watch.read(1000), watch.read(1500)), (0, 500));
        // A reader's timestamp may be from before the start.
        assert_eq!(watch.read(900), 0);
        watch.stop(1600);
        assert_eq!((watch.read(1600), watch.read(9000)), (600, 600));
        watch.start(10_000);
        assert_eq!(watch.read(10_001), 601);
        watch.stop(20_000);
        assert_eq!(watch.read(0), 10_600);
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
