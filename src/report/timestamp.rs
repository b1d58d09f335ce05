//! Timestamps in RFC 3339 and UTC, so that no time zone is looked up. Formatting allocates no
//! memory: signal handlers use it for log and console lines.

use std::fmt;
use std::time::Duration;

use crate::report::clock;

/// A timestamp, as time since 1970; printed with microseconds: `2026-11-25T16:17:26.123456Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp(Duration);

impl Timestamp {
    /// Length of a printed timestamp in bytes, for years of four digits.
    pub const LENGTH: usize = 27;

    /// Returns the current time of the host's clock; 1970 if it cannot be read.
    pub fn now() -> Timestamp {
        Timestamp(clock::since_zero(libc::CLOCK_REALTIME))
    }

    /// Returns seconds and nanoseconds since 1970.
    pub fn since_1970(self) -> (u64, u32) {
        (self.0.as_secs(), self.0.subsec_nanos())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanoseconds) = self.since_1970();
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let microseconds = nanoseconds / 1000;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{microseconds:06}Z"
        )
    }
}

/// Returns year, month and day of the day that is `days` after 1970-01-01 in the Gregorian
/// calendar. Years are counted from March, so that a leap day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // Since 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months alternate between 31 and 30 days; five of them have 153.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    // January and February belong to the next year.
    let next = u64::from(month >= 10);
    (400 * era + year + next, month + 3 - 12 * next, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamps_are_written_as_in_rfc_3339() {
        let written = |nanoseconds| Timestamp(Duration::from_nanos(nanoseconds)).to_string();
        // As printed by `date -u --iso-8601=ns -d @…`.
        assert_eq!(written(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(
            written(951_827_696_123_456_789),
            "2000-02-29T12:34:56.123456Z"
        );
        assert_eq!(
            written(1_795_623_446_000_001_999),
            "2026-11-25T16:17:26.000001Z"
        );
        assert_eq!(
            written(4_107_542_399_999_999_999),
            "2100-02-28T23:59:59.999999Z"
        );
        assert_eq!(
            written(4_107_542_400_000_000_000),
            "2100-03-01T00:00:00.000000Z"
        );
        assert_eq!(Timestamp::now().to_string().len(), Timestamp::LENGTH);
    }

    proptest! {
        /// Each day is the day after the one before.
        #[test]
        fn days_follow_each_other(day in 0u64..1_000_000) {
            let ((year, month, today), next) = (date(day), date(day + 1));
            let expected = match next {
                (y, 1, 1) => (y - 1, 12, 31) == (year, month, today),
                (y, m, 1) => (y, m) == (year, month + 1) && (28..=31).contains(&today),
                (y, m, d) => (y, m, d) == (year, month, today + 1),
            };
            prop_assert!(expected, "{:?} then {:?}", (year, month, today), next);
        }
    }
}
