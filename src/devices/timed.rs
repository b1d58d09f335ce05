//! POLL where `ppoll(2)` is refused: by a timer among the descriptors that are waited for, which takes two calls. Signals
//! set that timer off, as nothing else can be done about one that arrives just before the wait.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::signal;

/// What is waited for: 63 interfaces at most, and the timer.
#[derive(Debug)]
pub(super) struct Timed {
    set: OwnedFd,
    timer: OwnedFd,
    /// The interfaces in the set.
    nets: Vec<RawFd>,
}

/// In place of an interface's index.
const TIMER: u64 = u64::MAX;

impl Timed {
    /// For these interfaces; later they are known by their index.
    pub fn new(nets: impl Iterator<Item = RawFd>) -> io::Result<Timed> {
        // SAFETY: the calls take numbers, and what they give is new and nobody else's.
        let (set, timer) = unsafe {
            let set = owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
            (set, owned(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC))?)
        };
        let timed = Timed { set, timer, nets: nets.collect() };
        timed.change(libc::EPOLL_CTL_ADD, timed.timer.as_raw_fd(), TIMER)?;
        for (index, &net) in timed.nets.iter().enumerate() {
            timed.change(libc::EPOLL_CTL_ADD, net, index as u64)?;
        }
        signal::remind_by(timed.timer.as_raw_fd());
        Ok(timed)
    }

    /// No longer waits for an interface, which is gone for good.
    pub fn forget(&mut self, index: usize) {
        if let Some(net) = self.nets.get_mut(index).filter(|net| **net >= 0) {
            let net = std::mem::replace(net, -1);
            // It fails only for one that is not in the set, which is what is wanted.
            let _ = self.change(libc::EPOLL_CTL_DEL, net, index as u64);
        }
    }

    /// Waits until an interface has a frame, `timeout` nanoseconds are over or a signal arrives; says of each interface
    /// that has one.
    pub fn wait(&self, timeout: u64, mut has_frame: impl FnMut(usize)) {
        // A timer at 0 would be none.
        signal::set_timer(self.timer.as_raw_fd(), timeout.max(1), 0);
        if signal::received().is_some() {
            return;
        }
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        let set = self.set.as_raw_fd();
        let count = loop {
            // SAFETY: the kernel writes as many events as there is room for.
            let count =
                unsafe { libc::epoll_pwait(set, events.as_mut_ptr(), events.len() as i32, -1, std::ptr::null()) };
            match usize::try_from(count) {
                Ok(count) => break count,
                // Interrupted, by a signal that may ask for something else than the end.
                Err(_) if signal::received().is_none() => {}
                Err(_) => break 0,
            }
        };
        events[..count].iter().map(|event| event.u64).filter(|&index| index != TIMER).for_each(|index| {
            has_frame(index as usize);
        });
    }

    fn change(&self, what: libc::c_int, fd: RawFd, index: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: index };
        // SAFETY: the kernel reads the event.
        match unsafe { libc::epoll_ctl(self.set.as_raw_fd(), what, fd, &raw mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        signal::remind_by(-1);
    }
}

/// # Safety
/// `fd` must be what a call gave: a new descriptor, or −1.
unsafe fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as promised.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn ready(timed: &Timed, timeout: u64) -> Vec<usize> {
        let mut ready = Vec::new();
        timed.wait(timeout, |index| ready.push(index));
        ready
    }

    #[test]
    fn it_waits_for_frames_and_for_the_time() {
        let pairs = [UnixDatagram::pair().unwrap(), UnixDatagram::pair().unwrap()];
        let mut timed = Timed::new(pairs.iter().map(|(ours, _)| ours.as_raw_fd())).unwrap();
        assert!(ready(&timed, 1_000_000).is_empty());
        assert!(ready(&timed, 0).is_empty());
        pairs[1].1.send(b"frame").unwrap();
        assert_eq!(ready(&timed, u64::MAX / 2), [1]);
        pairs[0].1.send(b"frame").unwrap();
        let mut both = ready(&timed, 0);
        both.sort_unstable();
        assert_eq!(both, [0, 1]);
        timed.forget(1);
        timed.forget(1);
        assert_eq!(ready(&timed, u64::MAX / 2), [0]);
    }
}
