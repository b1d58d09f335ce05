//! Time: the wall clock for WALLTIME, and the longest sleep of POLL on ARM64.
//!
//! Every existing ARM64 guest converts cycles to nanoseconds in 64 bits. If it reads its counter
//! too rarely, the product overflows and its clock falls behind permanently, so the tender wakes it
//! in time. Section A5.

use crate::report::clock;

const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;

/// Largest shift that the guest's conversion uses. Section A5.
const SHIFT_MAX: u32 = 32;

/// WALLTIME: returns nanoseconds since 1970-01-01 00:00 UTC by the host's clock; 0 before that or
/// if the host has none, and at most `u64::MAX`. The vDSO answers it. Section 8.
#[inline]
pub fn walltime() -> u64 {
    clock::read(libc::CLOCK_REALTIME).map_or(0, |now| nanoseconds(now.tv_sec, now.tv_nsec as u64))
}

#[inline]
fn nanoseconds(seconds: i64, nanoseconds: u64) -> u64 {
    let Ok(seconds) = u64::try_from(seconds) else {
        return 0;
    };
    seconds
        .checked_mul(NANOSECONDS_PER_SECOND as u64)
        .and_then(|whole| whole.checked_add(nanoseconds))
        .unwrap_or(u64::MAX)
}

/// Returns the interval between two reads of the cycle counter, in nanoseconds, at which an ARM64
/// guest's monotonic clock overflows and falls behind by that interval. `frequency` is the
/// counter's, in Hz. For a frequency that no guest can use (0, or more than 2^32 GHz) there is no
/// such interval and the result is `u64::MAX`. Section A5.
pub fn overflow_horizon(frequency: u64) -> u64 {
    // The guest's product of cycles and `multiplier` overflows 64 bits.
    match multiplier(frequency) {
        0 => u64::MAX,
        multiplier => {
            let cycles = (1u128 << 64) / multiplier;
            u64::try_from(cycles * NANOSECONDS_PER_SECOND / u128::from(frequency))
                .unwrap_or(u64::MAX)
        }
    }
}

/// Returns the longest sleep of POLL on ARM64 in nanoseconds: a quarter of [`overflow_horizon`],
/// which leaves time for the guest before and after. Section A5.
pub fn poll_limit(frequency: u64) -> u64 {
    overflow_horizon(frequency) / 4
}

/// Returns the factor that guests multiply cycles by: nanoseconds per cycle, shifted left as far as
/// fits 32 bits; 0 if there is none.
fn multiplier(frequency: u64) -> u128 {
    let shifted = |shift: u32| (NANOSECONDS_PER_SECOND << shift).checked_div(u128::from(frequency));
    (0..=SHIFT_MAX)
        .rev()
        .filter_map(shifted)
        .find(|&multiplier| multiplier < 1 << 32)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_out_of_range_are_clamped() {
        assert_eq!(nanoseconds(1, 2), 1_000_000_002);
        assert_eq!(nanoseconds(-1, 999_999_999), 0);
        assert_eq!(nanoseconds(18_446_744_073, 709_551_615), u64::MAX);
        assert_eq!(nanoseconds(18_446_744_073, 709_551_616), u64::MAX);
        assert_eq!(nanoseconds(i64::MAX, 0), u64::MAX);
    }

    #[test]
    fn horizons_of_real_boards() {
        let table = [
            (19_200_000, 274_877),
            (24_000_000, 274_877),
            (25_000_000, 274_877),
            (31_250_000, 274_877),
            (50_000_000, 137_438),
            (54_000_000, 137_438),
            (62_500_000, 137_438),
            (100_000_000, 68_719),
            (121_900_000, 68_719),
            (1_000_000_000, 8_589),
        ];
        for (frequency, milliseconds) in table {
            assert_eq!(
                overflow_horizon(frequency) / 1_000_000,
                milliseconds,
                "{frequency} Hz"
            );
        }
        assert_eq!(poll_limit(19_200_000) / 1_000_000_000, 68);
    }

    #[test]
    fn frequencies_that_no_guest_can_use_set_no_limit() {
        for frequency in [0, u64::MAX] {
            assert_eq!(overflow_horizon(frequency), u64::MAX);
        }
    }

    #[test]
    fn walltime_is_the_clock_of_the_host() {
        let before = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos();
        let now = u128::from(walltime());
        let after = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos();
        assert!((before..=after).contains(&now));
    }

    proptest! {
        /// The guest's own arithmetic, with its overflow: correct up to the horizon, wrong just
        /// past it.
        #[test]
        fn the_guests_product_overflows_just_past_the_horizon(frequency in 1_000_000u64..10_000_000_000) {
            let cycles = |nanoseconds: u64| u128::from(nanoseconds) * u128::from(frequency) / NANOSECONDS_PER_SECOND;
            let product = |nanoseconds| cycles(nanoseconds) * multiplier(frequency);
            let horizon = overflow_horizon(frequency);
            let two_cycles = 2 * 1_000_000_000 / frequency + 2;
            prop_assert!(product(poll_limit(frequency) * 2) < 1 << 64);
            prop_assert!(product(horizon - two_cycles) < 1 << 64);
            prop_assert!(product(horizon + two_cycles) >= 1 << 64);
        }

        #[test]
        fn no_frequency_makes_it_panic_or_poll_spin(frequency: u64) {
            prop_assert!(poll_limit(frequency) >= 1_000_000_000);
        }
    }
}
