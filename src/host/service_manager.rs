//! What a service manager gets to know of a run: that the guest runs and what it is, that it is still alive, that it
//! ends. By sd_notify(3): datagrams to the socket that NOTIFY_SOCKET names, which systemd listens at, and others do.
//!
//! The socket is connected before the sandbox forbids new ones; from then on it is only written to. Without a watchdog
//! there is nothing to write once the guest runs, so the socket is shut down: an attacker must not send what a service
//! manager accepts from it (`MAINPID=`, `WATCHDOG=trigger`). No run depends on these messages: an error is logged with
//! `-v`, once, and a running guest never waits for a service manager.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::{Duration, Instant};

use crate::host::signal::uninterrupted;
use crate::report::log_lines;
use crate::report::text::one_line;

/// How long the words before and after a guest may wait for a service manager that is busy.
const PATIENCE: Duration = Duration::from_secs(1);

/// Most bytes of a STATUS. systemd ignores datagrams of more than 4096 bytes, READY=1 and all.
const STATUS_MAX: usize = 2048;

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    /// Connected, and never waiting.
    socket: Option<File>,
    watchdog: Option<Watchdog>,
    /// What READY=1 is sent with.
    status: String,
    /// Whether a failure has been told.
    told: bool,
}

/// A service manager's wish to hear of the guest in every such time, or to take it for dead.
#[derive(Debug)]
struct Watchdog {
    interval: Duration,
    /// When the next word is due.
    due: Instant,
}

impl Watchdog {
    fn new(interval: Duration) -> Watchdog {
        Watchdog {
            interval,
            due: Instant::now() + interval / 2,
        }
    }
}

impl Notifier {
    /// Connects to the service manager that the environment names, if it names one. `status` is what it is to show
    /// while the guest runs.
    pub fn from_environment(status: impl FnOnce() -> String) -> Notifier {
        Notifier::new(|variable| env::var_os(variable), process::id(), status)
    }

    fn new(
        variable: impl Fn(&str) -> Option<OsString>,
        pid: u32,
        status: impl FnOnce() -> String,
    ) -> Notifier {
        let Some(address) = variable("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Notifier::default();
        };
        match connect(&address) {
            Ok(socket) => Notifier {
                socket: Some(socket),
                watchdog: interval(&variable, pid).map(Watchdog::new),
                status: status(),
                told: false,
            },
            Err(error) => {
                log::info!(
                    "NOTIFY_SOCKET={}: {error}; no service manager hears of this run",
                    address.to_string_lossy()
                );
                Notifier::default()
            }
        }
    }

    /// The descriptor that is written to.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.socket.as_ref().map(File::as_raw_fd)
    }

    /// The longest that POLL may sleep, in nanoseconds: a guest that has nothing to do must come by in time to be seen.
    /// A quarter of the watchdog's interval, after half of which a word is due.
    pub fn poll_limit(&self) -> u64 {
        let quarter = |watchdog: &Watchdog| {
            u64::try_from((watchdog.interval / 4).as_nanos()).unwrap_or(u64::MAX)
        };
        self.watchdog.as_ref().map_or(u64::MAX, quarter)
    }

    /// Reports that the guest runs from now on; without a watchdog, nothing can be reported after this.
    pub fn ready(&mut self) {
        let args = format!("READY=1\nSTATUS={}", status(&self.status));
        self.send(&args, PATIENCE);
        match (&mut self.watchdog, &self.socket) {
            (Some(watchdog), _) => *watchdog = Watchdog::new(watchdog.interval),
            // Not closed, so that no other descriptor gets its number, which a sandbox rule allows.
            // SAFETY: the call takes plain numbers.
            (None, Some(socket)) => {
                _ = unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) }
            }
            (None, None) => {}
        }
    }

    /// The guest has just made a hypercall. Where a watchdog is asked for, it is told once in half of its interval; to
    /// all others this costs nothing.
    #[inline]
    pub fn guest_is_alive(&mut self) {
        if let Some(watchdog) = &self.watchdog {
            let now = Instant::now();
            if now >= watchdog.due {
                self.pat(now);
            }
        }
    }

    #[cold]
    fn pat(&mut self, now: Instant) {
        let sent = self.send("WATCHDOG=1", Duration::ZERO);
        if let Some(watchdog) = &mut self.watchdog {
            // What did not get through is tried again before it is too late.
            watchdog.due = now
                + if sent {
                    watchdog.interval / 2
                } else {
                    watchdog.interval / 16
                };
        }
    }

    /// Reports the end of the run and its reason to a service manager that watches.
    pub fn stopping(&mut self, outcome: &dyn std::fmt::Display) {
        if self.watchdog.take().is_some() {
            let args = format!("STOPPING=1\nSTATUS={}", status(&outcome.to_string()));
            self.send(&args, PATIENCE);
        }
    }

    /// Sends one datagram; whether it got through. One system call, and two more where it has to wait.
    fn send(&mut self, args: &str, patience: Duration) -> bool {
        let Some(socket) = &mut self.socket else {
            return false;
        };
        let fd = socket.as_raw_fd();
        let mut write = || uninterrupted(|| socket.write(args.as_bytes()));
        let mut sent = write();
        let is_full = |error: &io::Error| error.kind() == ErrorKind::WouldBlock;
        if sent.as_ref().is_err_and(is_full) && log_lines::wait_for_room(fd, patience) {
            sent = write();
        }
        if let (Err(error), false) = (&sent, self.told) {
            self.told = true;
            log::info!("the service manager does not take what it is told of this run: {error}");
        }
        sent.is_ok()
    }
}

/// A text as the value of STATUS: one line, and not too long.
fn status(text: &str) -> String {
    let mut line = one_line(text);
    if line.len() > STATUS_MAX {
        let end = (0..=STATUS_MAX)
            .rev()
            .find(|&end| line.is_char_boundary(end))
            .unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line
}

/// Connects to a socket by its path, or, after `@`, by its abstract name.
fn connect(address: &OsStr) -> io::Result<File> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => {
            return Err(io::Error::other(
                "neither a path from / on nor @ and an abstract name",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    // A file is only written to, while a socket may be asked to send elsewhere.
    Ok(OwnedFd::from(socket).into())
}

/// How often the service manager wants to hear of process `pid`, if at all.
fn interval(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Option<Duration> {
    let number = |name: &str| {
        variable(name).map(|text| text.to_str().and_then(|text| text.parse::<u64>().ok()))
    };
    let microseconds = match number("WATCHDOG_USEC")? {
        Some(microseconds @ 1..) => microseconds,
        _ => {
            log::info!("WATCHDOG_USEC is no number of microseconds; there is no watchdog");
            return None;
        }
    };
    let is_ours = number("WATCHDOG_PID").is_none_or(|owner| owner == Some(pid.into()));
    is_ours.then(|| Duration::from_micros(microseconds))
}

#[cfg(test)]
mod tests;
