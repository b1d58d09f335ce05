//! Locks of inherited open files.
//!
//! A flock lock belongs to the open file. The lock of an image opened by path ends with the tender.
//! An inherited descriptor shares its open file with other processes, so the lock stays with them.
//! For a run this is intended: they passed the disk for it. A check restores the previous lock. If
//! the same open file is given to a run at that time, this may release the run's lock.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::lock::flock;
use crate::config::BlockSource;

/// An open file shared with the parent. On drop restores its previous flock state, if known.
#[derive(Debug)]
pub struct SharedLock {
    file: OwnedFd,
    /// The flock operation that restores the lock, if known.
    lock: Option<libc::c_int>,
}

impl SharedLock {
    /// Returns the present lock of `source`; call it before attaching. `None` for a path, or a
    /// descriptor that is not open.
    pub fn new(source: &BlockSource) -> Option<SharedLock> {
        let BlockSource::Fd(inherited) = source else {
            return None;
        };
        let fd = inherited.number().ok()?;
        // SAFETY: the call takes numbers.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
        if copy == -1 {
            return None;
        }
        Some(SharedLock {
            // SAFETY: it is new and owned by nothing else.
            file: unsafe { OwnedFd::from_raw_fd(copy) },
            lock: lock(copy),
        })
    }
}

impl Drop for SharedLock {
    fn drop(&mut self) {
        if let Some(lock) = self.lock {
            let _ = flock(self.file.as_raw_fd(), lock);
        }
    }
}

/// Returns the lock of an open file, if the host shows it: /proc may be missing.
fn lock(fd: RawFd) -> Option<libc::c_int> {
    fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))
        .ok()
        .map(|text| lock_in(&text))
}

/// Parses the same from the text of /proc/PID/fdinfo, with lines such as
/// `lock: 1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF`.
fn lock_in(text: &str) -> libc::c_int {
    let lines = text.lines().filter_map(|line| line.strip_prefix("lock:"));
    let mut kinds =
        lines.filter_map(
            |line| match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
                [_, "FLOCK", _, kind, ..] => Some(kind),
                _ => None,
            },
        );
    match kinds.next() {
        None => libc::LOCK_UN,
        Some("READ") => libc::LOCK_SH,
        Some(_) => libc::LOCK_EX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_of_an_open_file_is_read() {
        let file = tempfile::tempfile().unwrap();
        for kind in [libc::LOCK_UN, libc::LOCK_SH, libc::LOCK_EX] {
            flock(file.as_raw_fd(), kind).unwrap();
            assert_eq!(lock(file.as_raw_fd()), Some(kind));
        }
    }

    #[test]
    fn locks_of_others_are_ignored() {
        let posix = "pos:\t0\nlock:\t1: POSIX  ADVISORY  WRITE 1234 fd:01:5678 0 EOF\n";
        assert_eq!(lock_in(posix), libc::LOCK_UN);
        assert_eq!(lock_in("pos:\t0\n"), libc::LOCK_UN);
    }

    #[test]
    fn an_unknown_lock_is_not_restored() {
        assert_eq!(lock(-1), None);
    }
}
