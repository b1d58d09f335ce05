//! Network devices: what a unikernel's frames go through on the host, a tap interface as a rule.
//!
//! A fault of the host is not the guest's death: a frame that cannot be sent is dropped and counted, as on any wire,
//! and what cannot be received is not there yet. The first fault of each kind is told to the operator.

mod attach;
mod error;
mod interface;
mod prospect;
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
pub use self::prospect::Prospect;
pub use self::stats::Stats;
use crate::config::NetSource;
use crate::memory::{self, GuestAddress, GuestMemory};
use crate::report::counters::{Counter, WarnOnce};

/// Bytes of an Ethernet header: destination, source, type. No frame is shorter.
pub const HEADER_SIZE: u64 = 14;

/// Largest payload of a frame, in bytes, where the host does not tell another.
pub const DEFAULT_MTU: u16 = 1500;

/// Bytes that the tag of a virtual network adds to a frame.
const TAG_SIZE: u64 = 4;

/// A hardware address, as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What a network device is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    /// A tap interface. Its name does not tell it from one in another network namespace.
    Tap,
    /// A socket: its device and inode.
    Socket(u64, u64),
}

/// One network device.
#[derive(Debug)]
pub struct Nic {
    fd: OwnedFd,
    name: String,
    identity: Identity,
    mac: [u8; 6],
    mtu: u16,
    /// A read of no bytes means that the other end has closed, not that a frame was empty.
    zero_is_end: bool,
    /// Bytes of the longest frame that is sent for the guest.
    longest: u64,
    /// What those who share the interface know together.
    common: Arc<Common>,
    stats: Arc<Stats<Counter>>,
}

/// What the twins of a device know together.
#[derive(Debug, Default)]
struct Common {
    /// Found gone for good by any of them.
    gone: AtomicBool,
    /// Causes that the operator was told of by any of them.
    told: WarnOnce,
}

impl Nic {
    /// Connects a device to `source`, which it owns from then on. Without a `mac` it gets a random, locally
    /// administered one. Sections 8 and 9.
    ///
    /// # Errors
    /// An [`Error`] that says what is wrong with the interface or the descriptor. Nothing has changed then.
    pub fn attach(source: &NetSource, mac: Option<[u8; 6]>) -> Result<Nic, Error> {
        let mac = match mac {
            Some(mac) => mac,
            None => attach::random_mac()?,
        };
        let link = match source {
            NetSource::Interface(name) => attach::open(name)?,
            NetSource::Fd(handed) => attach::adopt(handed)?,
        };
        let attach::Link {
            fd,
            name,
            identity,
            mtu,
            zero_is_end,
        } = link;
        // Unikernels of 2018 know no other MTU than the usual one.
        let longest = u64::from(mtu.max(DEFAULT_MTU)) + HEADER_SIZE + TAG_SIZE;
        let (common, stats) = (Arc::default(), Arc::default());
        Ok(Nic {
            fd,
            name,
            identity,
            mac,
            mtu,
            zero_is_end,
            longest,
            common,
            stats,
        })
    }

    /// Hardware address that the guest is told.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Largest payload of a frame, in bytes, without the 14 bytes of its header.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Name of the interface, for messages; `@3` and the like for a socket.
    pub fn interface_name(&self) -> &str {
        &self.name
    }

    /// Whether this device and `other` would steal each other's frames. Not while a guest runs.
    pub fn shares_with(&self, other: &Nic) -> bool {
        match (&self.identity, &other.identity) {
            // A tap of one queue is attached once at most, so it is shared only by descriptors that are the same.
            (Identity::Tap, Identity::Tap) => attach::are_one(self.fd.as_fd(), other.fd.as_fd()),
            (identity, other) => identity == other,
        }
    }

    /// What went through so far.
    pub fn stats(&self) -> Stats {
        self.stats.read()
    }

    /// What goes through, for another thread to read.
    pub fn counters(&self) -> Arc<Stats<Counter>> {
        Arc::clone(&self.stats)
    }

    /// Whether a read or a write has found the interface gone permanently. POLL must no longer wait for it then: it
    /// would never sleep again.
    pub fn is_gone(&self) -> bool {
        self.common.gone.load(Ordering::Relaxed)
    }

    /// The same interface once more, for another thread, with counters of its own.
    ///
    /// # Errors
    /// The host has no descriptor to give.
    pub fn twin(&self) -> io::Result<Nic> {
        Ok(Nic {
            fd: self.fd.try_clone()?,
            name: self.name.clone(),
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

    /// NET_WRITE: sends the frame of `len` bytes, header included, at `addr`. Always [`Status::Ok`]: a frame that the
    /// host does not take, or that is longer than its MTU allows, is dropped and counted. Section 8.
    ///
    /// # Errors
    /// The frame does not lie within guest memory.
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

    /// NET_READ: receives one frame into the `len` bytes at `addr`, and says how long it is; a longer one is cut.
    /// [`Status::Again`] and 0 when there is none, or the host fails to give it. Section 8.
    ///
    /// # Errors
    /// The buffer does not lie within memory that the guest may write.
    pub fn read(
        &mut self,
        memory: &GuestMemory,
        addr: GuestAddress,
        len: u64,
    ) -> Result<(Status, u64), memory::RangeError> {
        match memory.buffer(addr, len)?.read_from(self.fd.as_fd()) {
            Ok(0) => {
                // Zero bytes asked are zero bytes got, whatever the other end does.
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
                // A frame that could not be had for a signal is still there.
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
        if self.common.told.first(RECEIVING | cause as u32) {
            log::warn!(
                "{}: cannot receive: {}; the guest gets no frames",
                self.name,
                cause.describe(error)
            );
        }
    }

    #[cold]
    fn drop_rest(&mut self) {
        self.stats.dropped_short.add(1);
        if self.common.told.first(SHORT) {
            log::warn!(
                "{}: the host took a part of a frame only; such frames are lost",
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
        if self.common.told.first(cause as u32) {
            log::warn!(
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

/// Tries once more what a signal has interrupted: such a call takes no time, so two signals within it are none that a
/// guest is to be held up for.
fn uninterrupted(mut transfer: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    match transfer() {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => transfer(),
        result => result,
    }
}

/// Beside the causes, what the operator is told of: frames cut, and, with a cause, that nothing is received.
const SHORT: u32 = 7;
const RECEIVING: u32 = 8;

/// Kinds of faults that an operator tells apart. Fewer than [`SHORT`].
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
            // A tap that is down answers EIO; ECONNREFUSED is a socket that nobody listens to, for now.
            Some(libc::EIO | libc::ENETDOWN | libc::ECONNREFUSED) => Cause::Down,
            // EBADFD is a tap that was deleted, the others are sockets whose other end has closed.
            Some(libc::EBADFD | libc::ENODEV | libc::ENXIO | libc::EPIPE) => Cause::Gone,
            Some(libc::ECONNRESET | libc::ENOTCONN) => Cause::Gone,
            _ => Cause::Other,
        }
    }

    fn describe(self, error: &io::Error) -> String {
        match self {
            Cause::Invalid => "the frame is malformed or too long".into(),
            Cause::Full => "the host's queue is full".into(),
            Cause::Down => "the interface is down, or nobody is at its other end".into(),
            Cause::Gone => "the other end is gone".into(),
            Cause::Other => error.to_string(),
        }
    }
}
