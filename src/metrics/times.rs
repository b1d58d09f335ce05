//! Where the time of a run goes. Two readings of the clock for each exit of the guest, so it is measured only for those
//! who asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// How long something has gone on in all, in nanoseconds, which can be read while it goes on. One thread starts and stops
/// it.
///
/// One word, lest a reader see half of a change: the lowest bit says that it goes on, and the others then hold the sum
/// minus the moment of the start.
#[derive(Debug, Default)]
pub struct Stopwatch(AtomicU64);

impl Stopwatch {
    /// It goes on from the moment `now`.
    pub fn start(&self, now: u64) {
        let sum = self.0.load(Ordering::Relaxed) >> 1;
        self.0
            .store(sum.wrapping_sub(now) << 1 | 1, Ordering::Relaxed);
    }

    /// It went on until the moment `now`.
    pub fn stop(&self, now: u64) {
        self.0.store(self.read(|| now) << 1, Ordering::Relaxed);
    }

    /// For how long so far; `now` is asked for the moment when it must be later than the start.
    pub fn read(&self, now: impl FnOnce() -> u64) -> u64 {
        // 63 bits: three hundred years.
        const BITS: u64 = u64::MAX >> 1;
        match self.0.load(Ordering::Acquire) {
            word if word & 1 == 0 => word >> 1,
            word => (word >> 1).wrapping_add(now()) & BITS,
        }
    }
}

/// The times of a run.
#[derive(Debug)]
pub struct Times {
    began: Instant,
    guest: Stopwatch,
    poll: Stopwatch,
    /// The most that was ever told of the rest.
    rest: AtomicU64,
}

/// How a run's time was spent so far, in nanoseconds: the three parts are all of it, but for what passes while they are
/// read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// In the guest, and in the kernel for it: in `KVM_RUN`.
    pub guest: u64,
    /// Asleep in POLL.
    pub poll: u64,
    /// For everything else.
    pub tender: u64,
}

/// While it lives, the guest sleeps.
#[derive(Debug)]
pub struct Asleep<'t>(&'t Times);

impl Times {
    /// Everything that follows is the tender's until told otherwise.
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

    /// Has `run` be the guest's time.
    pub fn in_guest<T>(&self, run: impl FnOnce() -> T) -> T {
        self.guest.start(self.now());
        let result = run();
        self.guest.stop(self.now());
        result
    }

    /// The guest sleeps from now on.
    pub fn asleep(&self) -> Asleep<'_> {
        self.poll.start(self.now());
        Asleep(self)
    }

    /// How the time was spent so far.
    pub fn spent(&self) -> Spent {
        let [guest, poll] = [&self.guest, &self.poll].map(|watch| watch.read(|| self.now()));
        // It is read while it changes, so it may seem to go back, which no number of ours does.
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
    fn the_parts_are_the_whole() {
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
