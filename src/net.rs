//! Network devices: taps, usually, or sockets that carry a unikernel's frames on the host.
//!
//! An error of the host does not end the run: a frame that cannot be sent is dropped and counted,
//! as on any wire, and a failed receive counts as no frame. A frame that is longer than the guest's
//! buffer is cut. The first error of each kind is logged.

mod attach;
mod error;
mod interface;
mod probe;
mod stats;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use guest_abi::hypercall::Status;

pub use self::error::Error;
pub use self::probe::NicProbe;
pub use self::stats::Stats;
use crate::config::NetSource;
use crate::memory::{self, GuestAddress, GuestMemory};
use crate::report::counters::{Counter, WarnOnce};

/// Size of an Ethernet header in bytes: destination, source, type. No frame is shorter.
pub const HEADER_SIZE: u64 = 14;

/// Default for the largest payload of a frame, in bytes.
pub const DEFAULT_MTU: u16 = 1500;

/// Bytes that a VLAN tag adds to a frame.
const TAG_SIZE: u64 = 4;

/// A hardware address, displayed in the usual notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Identity of a network device's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    /// A tap interface. Its name is not unique across network namespaces.
    Tap,
    /// A socket: its device and inode.
    Socket(u64, u64),
}

/// One network device.
#[derive(Debug)]
pub struct Nic {
    fd: OwnedFd,
    name: String,
    /// The guest's name for it, for JSON log lines.
    device: String,
    identity: Identity,
    mac: [u8; 6],
    mtu: u16,
    /// A read of no bytes means that the other end has closed, not that a frame was empty.
    zero_is_end: bool,
    /// Length in bytes of the longest frame that the guest may send.
    longest: u64,
    /// State shared with duplicates of the device.
    common: Arc<Common>,
    stats: Arc<Stats<Counter>>,
}

/// State shared by the duplicates of a device.
#[derive(Debug, Default)]
struct Common {
    /// Any of them found the interface permanently gone.
    gone: AtomicBool,
    /// Kinds of errors that any of them has logged.
    logged: WarnOnce,
}

impl Nic {
    /// Connects a device to `source`, which it then owns. Without a `mac` it gets a random, locally
    /// administered one. Sections 8 and 9.
    ///
    /// # Errors
    /// The interface or the descriptor cannot be used; nothing has changed then.
    pub fn attach(source: &NetSource, mac: Option<[u8; 6]>) -> Result<Nic, Error> {
        let mac = match mac {
            Some(mac) => mac,
            None => attach::random_mac()?,
        };
        let link = match source {
            NetSource::Interface(name) => attach::open(name)?,
            NetSource::Fd(inherited) => attach::adopt(inherited)?,
        };
        let attach::Link {
            fd,
            name,
            identity,
            mtu,
            zero_is_end,
        } = link;
        // Unikernels of 2018 assume an MTU of 1500.
        let longest = u64::from(mtu.max(DEFAULT_MTU)) + HEADER_SIZE + TAG_SIZE;
        let (common, stats) = (Arc::default(), Arc::default());
        Ok(Nic {
            fd,
            name,
            device: String::new(),
            identity,
            mac,
            mtu,
            zero_is_end,
            longest,
            common,
            stats,
        })
    }

    /// Returns the guest's hardware address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Returns the largest payload of a frame in bytes, without the 14 bytes of its header.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Returns the name of the interface, for messages; `@3` and the like for a socket.
    pub fn interface_name(&self) -> &str {
        &self.name
    }

    /// Returns whether this device and `other` would steal each other's frames. Call it before the
    /// guest runs.
    pub fn shares_with(&self, other: &Nic) -> bool {
        match (&self.identity, &other.identity) {
            // A tap of one queue is attached at most once, so two descriptors share it only if they
            // are one open file.
            (Identity::Tap, Identity::Tap) => {
                attach::is_same_file(self.fd.as_fd(), other.fd.as_fd())
            }
            (identity, other) => identity == other,
        }
    }

    /// Sets the guest's name for the device, which JSON log lines contain.
    pub fn set_device(&mut self, name: &str) {
        name.clone_into(&mut self.device);
    }

    /// Returns the statistics so far.
    pub fn stats(&self) -> Stats {
        self.stats.read()
    }

    /// Returns the live counters, for another thread.
    pub fn counters(&self) -> Arc<Stats<Counter>> {
        Arc::clone(&self.stats)
    }

    /// Returns whether a read or write found the interface permanently gone. POLL must no longer
    /// wait for it then: it would never sleep again.
    pub fn is_gone(&self) -> bool {
        self.common.gone.load(Ordering::Relaxed)
    }

    /// Duplicates the device for another thread, with separate counters.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Nic> {
        Ok(Nic {
            fd: self.fd.try_clone()?,
            name: self.name.clone(),
            device: self.device.clone(),
            identity: self.identity.clone(),
            common: Arc::clone(&self.common),
            stats: Arc::default(),
            ..*self
        })
    }

    fn lost(&mut self, lost: bool) {
        if lost {
            self.common.gone.store(true, Ordering::Relaxed);
        }
    }

    /// NET_WRITE: sends the frame of `len` bytes, header included, at `addr`. Always returns
    /// [`Status::Ok`]: a frame that the host does not accept, or that exceeds the MTU, is dropped
    /// and counted. Section 8.
    ///
    /// # Errors
    /// The frame is not inside guest memory.
    pub fn write(
        &mut self,
        memory: &GuestMemory,
        addr: GuestAddress,
        len: u64,
    ) -> Result<Status, memory::RangeError> {
        let frame = memory.bytes(addr, len)?;
        if len < HEADER_SIZE || len > self.longest {
            self.drop_frame(&io::Error::from_raw_os_error(libc::EINVAL));
            return Ok(Status::Ok);
        }
        match uninterrupted(|| frame.write_to(self.fd.as_fd())) {
            Ok(sent) if sent == frame.len() => {
                self.stats.sent_frames.add(1);
                self.stats.sent_bytes.add(len);
            }
            Ok(_) => self.drop_rest(),
            Err(error) => self.drop_frame(&error),
        }
        Ok(Status::Ok)
    }

    /// NET_READ: receives one frame into the `len` bytes at `addr`, and returns its length; a
    /// longer one is cut. Returns [`Status::Again`] and 0 if there is none, or the host fails.
    /// Section 8.
    ///
    /// # Errors
    /// The buffer is not inside memory that the guest may write.
    pub fn read(
        &mut self,
        memory: &GuestMemory,
        addr: GuestAddress,
        len: u64,
    ) -> Result<(Status, u64), memory::RangeError> {
        match memory.buffer(addr, len)?.read_from(self.fd.as_fd()) {
            Ok(0) => {
                // A read into an empty buffer returns 0 even if the other end is open.
                if self.zero_is_end && len > 0 {
                    self.receive_failed(&io::Error::from_raw_os_error(libc::ECONNRESET));
                }
                Ok((Status::Again, 0))
            }
            Ok(received) => {
                self.stats.received_frames.add(1);
                self.stats.received_bytes.add(received as u64);
                Ok((Status::Ok, received as u64))
            }
            Err(error) => {
                // After a read that a signal interrupted, the frame is still queued.
                if !matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) {
                    self.receive_failed(&error);
                }
                Ok((Status::Again, 0))
            }
        }
    }

    #[cold]
    fn receive_failed(&mut self, error: &io::Error) {
        let cause = Cause::of(error);
        self.lost(cause == Cause::Gone);
        self.stats.receive_errors.add(1);
        if self.common.logged.first(RECEIVING | cause as u32) {
            log::warn!(
                device = self.device.as_str(), cause = cause.name();
                "{}: cannot receive: {}; the guest gets no frames",
                self.name,
                cause.describe(error)
            );
        }
    }

    #[cold]
    fn drop_rest(&mut self) {
        self.stats.dropped_short.add(1);
        if self.common.logged.first(SHORT) {
            log::warn!(
                device = self.device.as_str(), cause = "short";
                "{}: the host accepted only part of a frame; such frames are lost",
                self.name
            );
        }
    }

    #[cold]
    fn drop_frame(&mut self, error: &io::Error) {
        let cause = Cause::of(error);
        self.lost(cause == Cause::Gone);
        let counter = match cause {
            Cause::Invalid => &self.stats.dropped_invalid,
            Cause::Full => &self.stats.dropped_full,
            Cause::Down => &self.stats.dropped_down,
            Cause::Gone => &self.stats.dropped_gone,
            Cause::Other => &self.stats.dropped_other,
        };
        counter.add(1);
        if self.common.logged.first(cause as u32) {
            log::warn!(
                device = self.device.as_str(), cause = cause.name();
                "{}: cannot send: {}; such frames are dropped",
                self.name,
                cause.describe(error)
            );
        }
    }
}

impl AsFd for Nic {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Retries once on EINTR; the descriptor is non-blocking, so a second one is treated as an error.
fn uninterrupted(mut transfer: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    match transfer() {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => transfer(),
        result => result,
    }
}

/// Logged conditions in addition to the causes of dropped frames: partial frames, and, with a
/// cause, failed receives.
const SHORT: u32 = 7;
const RECEIVING: u32 = 8;

/// Causes that are logged separately. Fewer than [`SHORT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Invalid,
    Full,
    Down,
    Gone,
    Other,
}

impl Cause {
    fn of(error: &io::Error) -> Cause {
        match error.raw_os_error() {
            Some(libc::EINVAL | libc::EMSGSIZE) => Cause::Invalid,
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Cause::Full,
            // A tap that is down returns EIO; ECONNREFUSED is a socket that has no listener at
            // present.
            Some(libc::EIO | libc::ENETDOWN | libc::ECONNREFUSED) => Cause::Down,
            // EBADFD is a deleted tap; the others are sockets whose other end has closed.
            Some(libc::EBADFD | libc::ENODEV | libc::ENXIO | libc::EPIPE) => Cause::Gone,
            Some(libc::ECONNRESET | libc::ENOTCONN) => Cause::Gone,
            _ => Cause::Other,
        }
    }

    /// Returns its name in statistics.
    fn name(self) -> &'static str {
        match self {
            Cause::Invalid => "invalid",
            Cause::Full => "full",
            Cause::Down => "down",
            Cause::Gone => "gone",
            Cause::Other => "other",
        }
    }

    fn describe(self, error: &io::Error) -> String {
        match self {
            Cause::Invalid => "the frame is malformed or too long".into(),
            Cause::Full => "the host's queue is full".into(),
            Cause::Down => "the interface is down, or its other end has no reader".into(),
            Cause::Gone => "the other end is gone".into(),
            Cause::Other => error.to_string(),
        }
    }
}
