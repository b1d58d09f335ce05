//! POLL waits on an epoll set of all interfaces, until a deadline.
//!
//! `epoll_pwait2(2)` (Linux 5.11) takes the timeout itself, so a sleep is one system call. After a
//! stop or a freeze it fails with EINTR, and the rest is computed from the clock. (The kernel would
//! restart `ppoll(2)` with the time left before the stop.) If `epoll_pwait2` is missing or refused,
//! a timer in the set ends the sleep, which takes two calls.

#![expect(unsafe_code, reason = "epoll_pwait2")]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use guest_abi::manifest::MAX_ENTRIES;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

use crate::host::signal;

/// A timeout that does not wait.
const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Marks the timer among the handles of the interfaces.
const TIMER: u64 = u64::MAX;

/// The interfaces that POLL waits for.
pub(super) struct Waits {
    set: OwnedFd,
    /// Ends a sleep if `epoll_pwait2` cannot.
    timer: Option<OwnedFd>,
    /// Results of the last wait: room for all interfaces, one fewer than a manifest has entries,
    /// and the timer.
    events: [Event; MAX_ENTRIES],
}

impl Waits {
    /// Returns a set without interfaces.
    ///
    /// # Errors
    /// The host refuses both ways of waiting.
    pub(super) fn new() -> io::Result<Waits> {
        let event = Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        let mut waits = Waits {
            set: epoll::create(CreateFlags::CLOEXEC)?,
            timer: None,
            events: [event; MAX_ENTRIES],
        };
        if signal::uninterrupted(|| waits.pwait2(Duration::ZERO)).is_err() {
            waits.add_timer()?;
        }
        Ok(waits)
    }

    fn add_timer(&mut self) -> io::Result<()> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        self.insert(TIMER, timer.as_fd())?;
        signal::set_timer(timer.as_raw_fd(), 1, 0)?;
        self.pwait(Some(&NOW))?;
        signal::arm_on_signal(timer.as_raw_fd());
        self.timer = Some(timer);
        Ok(())
    }

    /// Adds an interface to the set.
    pub(super) fn add(&self, handle: usize, net: BorrowedFd<'_>) -> io::Result<()> {
        self.insert(handle as u64, net)
    }

    fn insert(&self, data: u64, fd: BorrowedFd<'_>) -> io::Result<()> {
        let data = EventData::new_u64(data);
        Ok(epoll::add(&self.set, fd, data, EventFlags::IN)?)
    }

    /// Removes an interface that is gone permanently.
    pub(super) fn forget(&self, net: BorrowedFd<'_>) {
        // It fails only for an interface that is not in the set.
        let _ = epoll::delete(&self.set, net);
    }

    /// Returns the descriptors of the set and of the timer, if there is one.
    pub(super) fn descriptors(&self) -> (RawFd, Option<RawFd>) {
        (
            self.set.as_raw_fd(),
            self.timer.as_ref().map(AsRawFd::as_raw_fd),
        )
    }

    /// Waits until an interface has a frame, `timeout` nanoseconds have passed or the run is to
    /// end; returns the count for [`Waits::ready`].
    ///
    /// # Errors
    /// The host refuses to wait.
    #[inline]
    pub(super) fn wait(&mut self, timeout: u64) -> io::Result<usize> {
        if self.timer.is_some() {
            return self.wait_by_timer(timeout);
        }
        if timeout == 0 {
            return signal::uninterrupted(|| self.pwait2(Duration::ZERO));
        }
        let (timeout, start) = (Duration::from_nanos(timeout), Instant::now());
        match self.pwait2(timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.wait_on(timeout, start)
            }
            result => result,
        }
    }

    /// Continues a sleep of `timeout` since `start` after a signal, a stop or a freeze, unless the
    /// run is to end.
    #[cold]
    fn wait_on(&mut self, timeout: Duration, start: Instant) -> io::Result<usize> {
        while signal::received().is_none() {
            match self.pwait2(timeout.saturating_sub(start.elapsed())) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
        Ok(0)
    }

    #[cold]
    fn wait_by_timer(&mut self, timeout: u64) -> io::Result<usize> {
        let Some(timer) = self.timer.as_ref().filter(|_| timeout > 0) else {
            return signal::uninterrupted(|| self.pwait(Some(&NOW)));
        };
        signal::set_timer(timer.as_raw_fd(), timeout, 0)?;
        // A signal also fires the timer, so a signal just before the wait ends the wait.
        while signal::received().is_none() {
            match self.pwait(None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
        Ok(0)
    }

    /// Returns the handles of the interfaces among the `count` results of the last wait. An error
    /// or an end of file counts as a frame.
    #[inline]
    pub(super) fn ready(&self, count: usize) -> impl Iterator<Item = usize> {
        let handles = self.events[..count].iter().map(|event| event.data.u64());
        handles
            .filter(|&handle| handle != TIMER)
            .map(|handle| handle as usize)
    }

    /// Does not use the C library's wrapper, which is a cancellation point (see
    /// `memory::transfer`).
    #[inline]
    fn pwait2(&mut self, timeout: Duration) -> io::Result<usize> {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos() as libc::c_long,
        };
        let (events, room) = (self.events.as_mut_ptr(), self.events.len());
        let no_mask = std::ptr::null::<libc::sigset_t>();
        // SAFETY: the kernel writes as many events as there is room for, and reads the time; there
        // is no mask.
        let found = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.set.as_raw_fd(),
                events,
                room,
                &raw const timeout,
                no_mask,
                0,
            )
        };
        usize::try_from(found).map_err(|_| io::Error::last_os_error())
    }

    fn pwait(&mut self, timeout: Option<&Timespec>) -> io::Result<usize> {
        Ok(epoll::wait(&self.set, &mut self.events, timeout)?)
    }
}

impl fmt::Debug for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waits").finish_non_exhaustive()
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        signal::arm_on_signal(-1);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn by_timer() -> Waits {
        let mut waits = Waits::new().unwrap();
        if waits.timer.is_none() {
            waits.add_timer().unwrap();
        }
        waits
    }

    fn ready(waits: &mut Waits, timeout: u64) -> Vec<usize> {
        let count = waits.wait(timeout).unwrap();
        let mut ready: Vec<usize> = waits.ready(count).collect();
        ready.sort_unstable();
        ready
    }

    #[test]
    fn both_ways_wait_for_frames_and_for_the_timeout() {
        for mut waits in [Waits::new().unwrap(), by_timer()] {
            let pairs = [UnixDatagram::pair().unwrap(), UnixDatagram::pair().unwrap()];
            for (handle, (ours, _)) in pairs.iter().enumerate() {
                waits.add(handle, ours.as_fd()).unwrap();
            }
            let start = Instant::now();
            assert!(ready(&mut waits, 20_000_000).is_empty());
            assert!(start.elapsed() >= Duration::from_millis(20));
            assert!(ready(&mut waits, 0).is_empty());
            pairs[1].1.send(b"frame").unwrap();
            assert_eq!(ready(&mut waits, u64::MAX), [1]);
            pairs[0].1.send(b"frame").unwrap();
            assert_eq!(ready(&mut waits, 0), [0, 1]);
            waits.forget(pairs[1].0.as_fd());
            waits.forget(pairs[1].0.as_fd());
            assert_eq!(ready(&mut waits, u64::MAX), [0]);
        }
    }
}
