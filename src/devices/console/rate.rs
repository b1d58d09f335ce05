//! A limit of bytes per second: a token bucket that holds one second's worth.

use std::num::NonZeroU64;
use std::time::Instant;

const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;

/// A limit of bytes per second.
#[derive(Debug)]
pub(super) struct Rate {
    rate: NonZeroU64,
    /// Bytes that may pass now, times a billion, so that fractions of a byte are kept.
    room: u128,
    /// Time of the last update of `room`.
    last: Instant,
}

impl Rate {
    /// Limits to `rate` bytes per second from `now` on; a burst of one second's worth may pass
    /// immediately.
    pub(super) fn new(rate: NonZeroU64, now: Instant) -> Rate {
        Rate {
            rate,
            room: u128::from(rate.get()) * NANOSECONDS_PER_SECOND,
            last: now,
        }
    }

    /// Returns how many bytes may pass at `now`.
    pub(super) fn room(&mut self, now: Instant) -> u64 {
        let rate = u128::from(self.rate.get());
        let most = rate * NANOSECONDS_PER_SECOND;
        let elapsed = now.saturating_duration_since(self.last).as_nanos();
        self.room = rate
            .saturating_mul(elapsed)
            .saturating_add(self.room)
            .min(most);
        self.last = now;
        // At most the rate, which is 64 bits wide.
        (self.room / NANOSECONDS_PER_SECOND) as u64
    }

    /// Records that `bytes` have passed.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.room = self
            .room
            .saturating_sub(u128::from(bytes) * NANOSECONDS_PER_SECOND);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn take(rate: &mut Rate, wanted: u64, now: Instant) -> u64 {
        let taken = rate.room(now).min(wanted);
        rate.spend(taken);
        taken
    }

    fn rate(bytes: u64, now: Instant) -> Rate {
        Rate::new(NonZeroU64::new(bytes).unwrap(), now)
    }

    #[test]
    fn a_second_allows_the_rate() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut rate = rate(1000, start);
        assert_eq!(take(&mut rate, 600, start), 600);
        assert_eq!(take(&mut rate, 600, start), 400);
        assert_eq!(take(&mut rate, 600, start), 0);
        assert_eq!(take(&mut rate, 600, at(250)), 250);
        // At most a second's worth is saved up.
        assert_eq!(take(&mut rate, 5000, at(60_000)), 1000);
        // A clock that goes back adds nothing and removes nothing.
        assert_eq!(take(&mut rate, 1, at(59_000)), 0);
    }

    #[test]
    fn parts_of_a_byte_add_up() {
        let start = Instant::now();
        let mut rate = rate(1, start);
        assert_eq!(take(&mut rate, 1, start), 1);
        let passed: u64 = (1..=3000)
            .map(|i| take(&mut rate, 9, start + Duration::from_millis(i)))
            .sum();
        assert_eq!(passed, 3);
    }

    proptest! {
        #[test]
        fn no_more_than_the_rate_passes(bytes in 1u64.., steps: Vec<(u64, u32)>) {
            let start = Instant::now();
            let (mut rate, mut now, mut passed) = (rate(bytes, start), start, 0u128);
            for (wanted, nanoseconds) in steps {
                now += Duration::from_nanos(nanoseconds.into());
                let taken = take(&mut rate, wanted, now);
                prop_assert!(taken <= wanted);
                passed += u128::from(taken);
            }
            let seconds = (now - start).as_nanos() + NANOSECONDS_PER_SECOND;
            prop_assert!(passed <= u128::from(bytes) * seconds / NANOSECONDS_PER_SECOND);
        }
    }
}
