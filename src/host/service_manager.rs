//! Reports to a service manager: the guest runs, it is alive, it ends. Uses sd_notify(3): datagrams
//! to the socket in NOTIFY_SOCKET, which systemd and other managers serve.
//!
//! The socket is connected before the sandbox forbids new ones, and only written to afterwards.
//! Without a watchdog there is nothing to write once the guest runs, so the socket is shut down: an
//! attacker must not send commands that a service manager accepts (`MAINPID=`, `WATCHDOG=trigger`).
//! No run depends on these messages: the first error is logged with `-v`, and a running guest never
//! waits for a service manager.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{Shutdown, shutdown};

use crate::report::log_lines;
use crate::report::text::one_line;

/// Longest wait for a busy service manager, before and after the guest runs.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Longest STATUS in bytes. systemd ignores datagrams of more than 4096 bytes, including their
/// READY=1.
const STATUS_MAX: usize = 2048;

/// Connection to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    /// Connected and non-blocking.
    socket: Option<File>,
    watchdog: Option<Watchdog>,
    /// STATUS sent with READY=1.
    status: String,
    /// Whether a failure was logged.
    is_logged: bool,
}

/// The service manager's watchdog, which needs a message within each interval.
#[derive(Debug)]
struct Watchdog {
    interval: Duration,
    /// Time of the next message.
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
    /// Connects to the service manager of the environment, if any. It shows `status` while the
    /// guest runs.
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
                is_logged: false,
            },
            Err(error) => {
                log::info!(
                    "NOTIFY_SOCKET={}: {error}; the service manager is not notified",
                    address.to_string_lossy()
                );
                Notifier::default()
            }
        }
    }

    /// Returns the descriptor of the socket.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.socket.as_ref().map(File::as_raw_fd)
    }

    /// Returns the longest sleep of POLL in nanoseconds, so that an idle guest still triggers the
    /// watchdog in time: a quarter of the watchdog's interval, because a message is due after half
    /// of it.
    pub fn poll_limit(&self) -> u64 {
        let quarter = |watchdog: &Watchdog| {
            u64::try_from((watchdog.interval / 4).as_nanos()).unwrap_or(u64::MAX)
        };
        self.watchdog.as_ref().map_or(u64::MAX, quarter)
    }

    /// Reports that the guest runs; without a watchdog, nothing can be reported afterwards.
    pub fn ready(&mut self) {
        let text = format!("READY=1\nSTATUS={}", status(&self.status));
        self.send(&text, LONGEST_WAIT);
        match (&mut self.watchdog, &self.socket) {
            (Some(watchdog), _) => *watchdog = Watchdog::new(watchdog.interval),
            // Not closed, so that no other descriptor gets its number, which a sandbox rule allows.
            (None, Some(socket)) => _ = shutdown(socket, Shutdown::Write),
            (None, None) => {}
        }
    }

    /// Reports to the watchdog, once per half of its interval, that the guest made a hypercall.
    /// Without a watchdog this costs nothing.
    #[inline]
    pub fn guest_is_alive(&mut self) {
        if let Some(watchdog) = &self.watchdog {
            let now = Instant::now();
            if now >= watchdog.due {
                self.send_watchdog(now);
            }
        }
    }

    #[cold]
    fn send_watchdog(&mut self, now: Instant) {
        let sent = self.send("WATCHDOG=1", Duration::ZERO);
        if let Some(watchdog) = &mut self.watchdog {
            // A failed message is repeated in time.
            watchdog.due = now + watchdog.interval / if sent { 2 } else { 16 };
        }
    }

    /// Reports the end of the run and its reason to a service manager.
    pub fn stopping(&mut self, outcome: &dyn std::fmt::Display) {
        if self.watchdog.take().is_some() {
            let text = format!("STOPPING=1\nSTATUS={}", status(&outcome.to_string()));
            self.send(&text, LONGEST_WAIT);
        }
    }

    /// Sends one datagram; returns whether it was accepted. Makes one system call, and two more if
    /// it has to wait.
    fn send(&mut self, text: &str, patience: Duration) -> bool {
        let Some(socket) = &self.socket else {
            return false;
        };
        let write = || retry_on_intr(|| rustix::io::write(socket, text.as_bytes()));
        let mut sent = write();
        if sent == Err(Errno::AGAIN) && log_lines::wait_for_room(socket, patience) {
            sent = write();
        }
        if let (Err(error), false) = (&sent, self.is_logged) {
            self.is_logged = true;
            log::info!("cannot notify the service manager: {error}");
        }
        sent.is_ok()
    }
}

/// Formats a text as the value of STATUS: one line of bounded length.
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

/// Connects to a socket by its path or, after `@`, by its abstract name.
fn connect(address: &OsStr) -> io::Result<File> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => {
            let message = "neither an absolute path nor @ and an abstract name";
            return Err(io::Error::other(message));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    // A file is only written to, while a socket could send to other addresses.
    Ok(OwnedFd::from(socket).into())
}

/// Returns the watchdog interval for process `pid`, if any.
fn interval(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Option<Duration> {
    let number = |name: &str| {
        variable(name).map(|text| text.to_str().and_then(|text| text.parse::<u64>().ok()))
    };
    let Some(microseconds @ 1..) = number("WATCHDOG_USEC")? else {
        log::info!("WATCHDOG_USEC is not a number of microseconds; watchdog disabled");
        return None;
    };
    let is_ours = number("WATCHDOG_PID").is_none_or(|owner| owner == Some(pid.into()));
    is_ours.then(|| Duration::from_micros(microseconds))
}

#[cfg(test)]
mod tests;
