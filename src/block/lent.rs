//! A lock belongs to the open file that it was asked for by. That of an image by path ends with the tender; a descriptor
//! that was handed over shares its open file with whoever has it still, and so the lock stays with them. For a run that
//! is as it should be: they meant the disk for it. Who only looks puts everything back; where the same open file is given
//! to a run at that very moment, that may take the run's lock away.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::lock::flock;
use crate::config::BlockSource;

/// A disk's open file that is somebody else's too. Dropped, it has the lock again that it had; what was not to be found
/// out stays locked.
#[derive(Debug)]
pub struct Lent {
    file: OwnedFd,
    /// What to ask `flock` for, if it is known.
    lock: Option<libc::c_int>,
}

impl Lent {
    /// As `source` is now, to be asked before it is attached. Nothing where it is a path, or no descriptor that is open.
    pub fn new(source: &BlockSource) -> Option<Lent> {
        let BlockSource::Fd(handed) = source else {
            return None;
        };
        let fd = handed.number().ok()?;
        // SAFETY: it takes numbers.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
        if copy == -1 {
            return None;
        }
        // SAFETY: it is new and nobody else's.
        Some(Lent {
            file: unsafe { OwnedFd::from_raw_fd(copy) },
            lock: lock(copy),
        })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(lock) = self.lock {
            let _ = flock(self.file.as_raw_fd(), lock);
        }
    }
}

/// The lock that an open file has, where the host tells: /proc may be missing.
fn lock(fd: RawFd) -> Option<libc::c_int> {
    fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))
        .ok()
        .map(|text| lock_in(&text))
}

/// The same from the text of /proc/PID/fdinfo, with lines such as `lock: 1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF`.
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
