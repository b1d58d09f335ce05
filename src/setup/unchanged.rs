//! A unikernel's file must not change while it is copied: the guest would be a mixture of two. Under
//! a lease it cannot; without one, its times show it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, SystemTime};

use super::Error;
use crate::host::files::Look;
use crate::host::signal::uninterrupted;

/// After this time, another change gets another time: the kernel dates changes by a clock that
/// ticks each 10 ms or more often.
const SETTLED: Duration = Duration::from_millis(20);

/// The same for file systems that store whole seconds, such as FAT, which stores even ones.
const SETTLED_BY_SECONDS: Duration = Duration::from_millis(2_020);

/// The state of a file before its content was read; `None` if it was not found.
pub(super) struct Found(Option<State>);

/// Size, and times of the last changes of content and properties.
type State = [i64; 5];

impl Found {
    /// Returns the state in which the file was found.
    pub(super) fn of(look: &io::Result<Look>) -> Found {
        Found(look.as_ref().ok().map(|look| state(look.metadata())))
    }

    /// Waits if the file was changed just before, until another change would show.
    pub(super) fn settle(&self) {
        // Not a sleep: Rust's library panics if a filter around the tender rejects that.
        while let Some(left) = self.0.and_then(left) {
            thread::park_timeout(left);
        }
    }

    /// Checks that the file has not changed since then.
    pub(super) fn check(&self, file: &File) -> Result<(), Error> {
        let now = uninterrupted(|| file.metadata()).ok();
        match now.as_ref().map(state) == self.0 {
            true => Ok(()),
            false => Err(Error::Changed),
        }
    }
}

/// Returns the time until the file is settled, if it is not.
fn left(state: State) -> Option<Duration> {
    let left = settled_after(state).checked_sub(age(state)?)?;
    (!left.is_zero()).then_some(left)
}

fn settled_after([_, _, content, _, properties]: State) -> Duration {
    match (content, properties) {
        (0, 0) => SETTLED_BY_SECONDS,
        _ => SETTLED,
    }
}

/// Returns the time since the last change; `None` if it lies in the future.
fn age([.., seconds, nanoseconds]: State) -> Option<Duration> {
    let nanoseconds = u32::try_from(nanoseconds).ok()?.min(999_999_999);
    let changed = Duration::new(u64::try_from(seconds).ok()?, nanoseconds);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?;
    now.checked_sub(changed)
}

fn state(file: &Metadata) -> State {
    [
        // Only compared, so the sign does not matter.
        file.size() as i64,
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
        file.ctime_nsec(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_take_longer_to_settle() {
        assert_eq!(settled_after([5, 1, 0, 1, 0]), SETTLED_BY_SECONDS);
        for times in [[1, 0, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]] {
            let [a, b, c, d] = times;
            assert_eq!(settled_after([5, a, b, c, d]), SETTLED, "{times:?}");
        }
    }

    #[test]
    fn any_time_has_an_age_or_none() {
        for seconds in [0, 1_000_000_000] {
            assert!(age([0, 0, 0, seconds, 999_999_999]).is_some(), "{seconds}");
        }
        for [seconds, nanoseconds] in [[-1, 0], [i64::MAX, i64::MAX], [i64::MIN, 0], [0, -1]] {
            assert_eq!(age([0, 0, 0, seconds, nanoseconds]), None, "{seconds}");
        }
    }
}
