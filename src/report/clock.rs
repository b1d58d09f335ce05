//! The host's clocks. std's `Instant::now` and `SystemTime::now` panic where the vDSO does not
//! provide the time and a seccomp filter around the tender rejects `clock_gettime`. So a start
//! checks the clocks before its first `Instant`, and messages read them here.

#![expect(unsafe_code, reason = "clock_gettime that may fail")]

use std::io;
use std::time::Duration;

use libc::{clockid_t, timespec};

/// Returns the time of this clock of the host. The vDSO answers it for most clocks.
///
/// # Errors
/// A seccomp filter rejects the system call.
#[inline]
pub fn read(clock: clockid_t) -> io::Result<timespec> {
    let mut now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one timespec.
    match unsafe { libc::clock_gettime(clock, &raw mut now) } {
        0 => Ok(now),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns the time of this clock since its zero; zero for earlier times, or if it cannot be read.
pub fn since_zero(clock: clockid_t) -> Duration {
    let since = |now: timespec| {
        let seconds = u64::try_from(now.tv_sec).ok()?;
        Some(Duration::new(seconds, u32::try_from(now.tv_nsec).ok()?))
    };
    read(clock).ok().and_then(since).unwrap_or_default()
}

/// Checks that the clocks of `Instant` and `SystemTime` can be read.
///
/// # Errors
/// Those of [`read`].
pub fn check() -> io::Result<()> {
    read(libc::CLOCK_MONOTONIC)?;
    read(libc::CLOCK_REALTIME).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_clock_is_that_of_std() {
        let by_std = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let before = by_std();
        let now = since_zero(libc::CLOCK_REALTIME);
        assert!((before..=by_std()).contains(&now), "{now:?}");
        assert!(check().is_ok());
    }

    #[test]
    fn a_clock_that_cannot_be_read_is_an_error() {
        let none = clockid_t::MAX;
        assert_eq!(read(none).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(since_zero(none), Duration::ZERO);
    }
}
