//! Sums up the results of test binaries.

use std::fmt;
use std::ops::AddAssign;

/// Tests passed, failed and skipped (Rust's "ignored").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl Tally {
    /// Parses a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`, as libtest and
    /// libtest-mimic write it.
    pub fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.split_once("test result: ")?;
        let count = |what: &str| {
            let before = counts.split_once(what)?.0.trim_end();
            before.rsplit([' ', '.']).next()?.parse().ok()
        };
        Some(Tally {
            passed: count("passed")?,
            failed: count("failed")?,
            skipped: count("ignored")?,
        })
    }

    /// Counts a binary that failed without a failed test as a failure.
    pub fn with_exit(mut self, succeeded: bool) -> Self {
        if !succeeded && self.failed == 0 {
            self.failed = 1;
        }
        self
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_line_is_parsed() {
        let line = "test result: FAILED. 13 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.31s";
        assert_eq!(
            Tally::parse(line),
            Some(Tally {
                passed: 13,
                failed: 2,
                skipped: 1
            })
        );
        assert_eq!(Tally::parse("running 3 tests"), None);
        assert_eq!(Tally::parse("test result: unheard of"), None);
    }

    #[test]
    fn a_crash_counts_as_one_failure() {
        assert_eq!(Tally::default().with_exit(false).failed, 1);
        assert_eq!(
            Tally {
                failed: 3,
                ..Tally::default()
            }
            .with_exit(false)
            .failed,
            3
        );
        assert_eq!(
            Tally {
                passed: 3,
                ..Tally::default()
            }
            .with_exit(true)
            .failed,
            0
        );
    }
}
