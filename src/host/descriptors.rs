//! Closes inherited descriptors that were not passed on purpose: a closed descriptor cannot be
//! misused.

#![expect(unsafe_code, reason = "closes descriptors by number")]

use std::os::fd::RawFd;

use libc::{c_long, c_uint};

use super::owner::numbers_in;

mod inherited;

pub use inherited::Error;

/// `close_range(2)`, in kernels from 5.9 on; the same number on every architecture.
const CLOSE_RANGE: c_long = 436;

/// Closes every descriptor from 3 on except `keep`: those passed by the caller, and those opened by
/// the tender.
pub fn close_inherited(keep: impl IntoIterator<Item = RawFd>) {
    let mut keep: Vec<c_uint> = keep
        .into_iter()
        .filter_map(|fd| c_uint::try_from(fd).ok())
        .collect();
    keep.sort_unstable();
    for (first, last) in gaps(&keep) {
        // SAFETY: the call takes plain numbers. No value of this process owns a descriptor in that
        // range.
        if unsafe { libc::syscall(CLOSE_RANGE, first, last, 0) } != 0 {
            return close_each(&keep);
        }
    }
}

/// Returns the ranges between the descriptors in `keep`, from 3 on. `keep` is sorted.
fn gaps(keep: &[c_uint]) -> Vec<(c_uint, c_uint)> {
    let mut first = libc::STDERR_FILENO as c_uint + 1;
    let mut gaps = Vec::new();
    for &fd in keep {
        if fd > first {
            gaps.push((first, fd - 1));
        }
        first = first.max(fd + 1);
    }
    gaps.push((first, c_uint::MAX));
    gaps
}

/// Fallback for older kernels, and for containers whose filter rejects the call.
fn close_each(keep: &[c_uint]) {
    // Includes the descriptor of the directory itself, which is closed by then.
    let mut open: Vec<c_uint> = numbers_in("/proc/self/fd").collect();
    if open.is_empty() {
        open = (0..limit()).collect();
    }
    let is_other = |fd: &c_uint| *fd > libc::STDERR_FILENO as c_uint && !keep.contains(fd);
    for fd in open.into_iter().filter(is_other) {
        // SAFETY: the call takes a number; no value of this process owns that descriptor.
        unsafe { libc::close(fd as RawFd) };
    }
}

/// Returns an upper bound for open descriptors: too low if the limit was lowered after one was
/// opened, and at most 65536, because RLIMIT_NOFILE can be 2^30.
fn limit() -> c_uint {
    // SAFETY: the call takes a number.
    let limit = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) };
    c_uint::try_from(limit).map_or(1024, |limit| limit.min(65_536))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_others_are_closed() {
        assert_eq!(gaps(&[]), [(3, u32::MAX)]);
        assert_eq!(gaps(&[0, 2]), [(3, u32::MAX)]);
        assert_eq!(gaps(&[3, 4]), [(5, u32::MAX)]);
        assert_eq!(gaps(&[5, 5, 9]), [(3, 4), (6, 8), (10, u32::MAX)]);
    }
}
