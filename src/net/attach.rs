//! From the name of a tap interface, or a descriptor, to something that carries frames; and why not, in words.
//!
//! An interface is never made: the operator who misspells a name must not get a new tap that leads nowhere.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tun_tap::{Iface, Mode};

use super::{DEFAULT_MTU, Identity};

/// Why a network device cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The interface does not exist.
    #[error("there is no interface '{name}'; 'ip tuntap add {name} mode tap user {user}' makes it")]
    Missing {
        /// The interface.
        name: String,
        /// This process's user.
        user: u32,
    },
    /// The interface is not up.
    #[error("interface '{name}' is down; 'ip link set {name} up' brings it up")]
    Down {
        /// The interface.
        name: String,
    },
    /// The interface is of another kind.
    #[error("interface '{name}' is {kind}; a network device needs a tap: 'ip tuntap add NAME mode tap user {user}'")]
    NotTap {
        /// The interface.
        name: String,
        /// What it is instead.
        kind: &'static str,
        /// This process's user.
        user: u32,
    },
    /// The interface is another user's.
    #[error(
        "user {user} may not attach to interface '{name}', which belongs to {owner}; 'ip tuntap add {name} mode tap user {user}' makes one that it may"
    )]
    Denied {
        /// The interface.
        name: String,
        /// Who may, in words.
        owner: String,
        /// This process's user.
        user: u32,
    },
    /// Another process is attached.
    #[error("interface '{name}' is in use by another process; every unikernel needs a tap of its own")]
    Busy {
        /// The interface.
        name: String,
    },
    /// Linux lacks the driver or the container its device.
    #[error("/dev/net/tun is missing; 'modprobe tun' loads its driver (a container must be given the device)")]
    TunMissing,
    /// The driver's device is not for this user.
    #[error(
        "user {user} may not open /dev/net/tun; 'chmod 0666 /dev/net/tun' lets every user (each tap still has its owner)"
    )]
    TunDenied {
        /// This process's user.
        user: u32,
    },
    /// Attaching failed otherwise.
    #[error("cannot attach to interface '{name}'")]
    Attach {
        /// The interface.
        name: String,
        /// The host's reason.
        source: io::Error,
    },
    /// The host does not tell about the interface.
    #[error("cannot ask the host about interface '{name}'")]
    Query {
        /// The interface.
        name: String,
        /// The host's reason.
        source: io::Error,
    },
    /// The descriptor cannot be used.
    #[error("file descriptor {fd} {rule}")]
    Descriptor {
        /// Its number.
        fd: RawFd,
        /// What is wrong with it and what would be right.
        rule: &'static str,
    },
    /// The descriptor cannot be set up.
    #[error("cannot set up file descriptor {fd}")]
    SetUp {
        /// Its number.
        fd: RawFd,
        /// The host's reason.
        source: io::Error,
    },
    /// The host gives no random bytes.
    #[error("cannot choose a random MAC address; --net-mac gives one")]
    Random {
        /// The host's reason.
        source: io::Error,
    },
}

/// An open way for frames.
pub(super) struct Link {
    pub fd: OwnedFd,
    pub name: String,
    pub identity: Identity,
    pub mtu: u16,
    pub zero_is_end: bool,
}

/// Attaches to the tap called `name`, which exists and is up.
pub(super) fn open(name: &str) -> Result<Link, Error> {
    todo!("{name}")
}

/// Takes over descriptor `fd`, which this process was started with.
pub(super) fn adopt(fd: RawFd) -> Result<Link, Error> {
    todo!("{fd}")
}

/// A random unicast address, locally administered. Section 8.
pub(super) fn random_mac() -> Result<[u8; 6], Error> {
    todo!()
}
