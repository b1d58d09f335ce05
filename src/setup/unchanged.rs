//! A unikernel's file must not change while it is copied: the guest would be a mixture of two
//! versions. A lease prevents a change; without a lease, size and time show it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, SystemTime};

use super::Error;
use crate::guest::image;
use crate::host::files::Look;
use crate::host::signal::uninterrupted;
use crate::outcome;

/// A change after this time gets another timestamp: the kernel takes them from a clock that ticks
/// every 10 ms or more often.
const SETTLED: Duration = Duration::from_millis(20);

/// The same for file systems that store whole seconds, such as FAT, which stores even seconds only.
const SETTLED_BY_SECONDS: Duration = Duration::from_millis(2_020);

/// The state of a file before its content was read; `None` if it was not found.
pub(super) struct Found(Option<State>);

#[derive(Clone, Copy, Debug)]
struct State {
    /// Size, and time of the last change.
    content: [i64; 3],
    /// Time of the last change of content or properties, which no program can set.
    changed: [i64; 2],
}

impl Found {
    /// Returns the state in which the file was found.
    pub(super) fn of(look: &io::Result<Look>) -> Found {
        Found(look.as_ref().ok().map(|look| state(look.metadata())))
    }

    /// Waits until another change of the file would get another timestamp.
    pub(super) fn settle(&self) {
        // Not a sleep: Rust's library panics if a filter around the tender rejects that.
        while let Some(left) = self.0.and_then(left) {
            thread::park_timeout(left);
        }
    }

    /// Checks that the content of the file has not changed since then. Its properties may: its
    /// links, when another file replaces it, or its owner.
    pub(super) fn check(&self, file: &File) -> Result<(), outcome::Error> {
        let now = uninterrupted(|| file.metadata()).map_err(image::Error::Io)?;
        match self.0.map(|found| found.content) == Some(state(&now).content) {
            true => Ok(()),
            false => Err(Error::Changed.into()),
        }
    }
}

/// Returns the time until the file is settled, if it is not.
fn left(state: State) -> Option<Duration> {
    let left = settled_after(state).checked_sub(age(state.changed)?)?;
    (!left.is_zero()).then_some(left)
}

fn settled_after(state: State) -> Duration {
    match (state.content, state.changed) {
        ([.., 0], [.., 0]) => SETTLED_BY_SECONDS,
        _ => SETTLED,
    }
}

/// Returns the time since the last change; `None` if it lies in the future.
fn age([seconds, nanoseconds]: [i64; 2]) -> Option<Duration> {
    let nanoseconds = u32::try_from(nanoseconds).ok()?.min(999_999_999);
    let changed = Duration::new(u64::try_from(seconds).ok()?, nanoseconds);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?;
    now.checked_sub(changed)
}

fn state(file: &Metadata) -> State {
    State {
        // Only compared, so the sign does not matter.
        content: [file.size() as i64, file.mtime(), file.mtime_nsec()],
        changed: [file.ctime(), file.ctime_nsec()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_take_longer_to_settle() {
        let after = |content, properties| {
            settled_after(State {
                content: [5, 1, content],
                changed: [1, properties],
            })
        };
        assert_eq!(after(0, 0), SETTLED_BY_SECONDS);
        for (content, properties) in [(0, 1), (1, 0), (1, 1)] {
            assert_eq!(
                after(content, properties),
                SETTLED,
                "{content} {properties}"
            );
        }
    }

    #[test]
    fn any_time_has_an_age_or_none() {
        for seconds in [0, 1_000_000_000] {
            assert!(age([seconds, 999_999_999]).is_some(), "{seconds}");
        }
        for [seconds, nanoseconds] in [[-1, 0], [i64::MAX, i64::MAX], [i64::MIN, 0], [0, -1]] {
            assert_eq!(age([seconds, nanoseconds]), None, "{seconds}");
        }
    }
}
