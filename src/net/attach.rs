//! Turns the name of a tap interface, or a descriptor, into a link for frames.
//!
//! This module never creates an interface: an operator who misspells a name must not get a new tap
//! that leads nowhere.

#![expect(unsafe_code, reason = "ioctls of taps")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::SocketType;
use rustix::rand::GetRandomFlags;
use tun_tap::{Iface, Mode};

use super::interface::{self, Interface, Request};
use super::{DEFAULT_MTU, Error, Identity};
use crate::config::InheritedFd;
use crate::host::ids::sudo;
use crate::host::signal::uninterrupted;

/// Flag of a tap that remains when no process has it open; of Linux's `if_tun.h`.
const IFF_PERSIST: libc::c_int = 0x0800;

/// Warning if no interface of this network namespace is known to be the tap's.
const UNKNOWN_MTU: &str = "its MTU is unknown (it is in another network namespace, or \
    RestrictAddressFamilies= forbids the query); the guest gets 1500";
const _: () = assert!(DEFAULT_MTU == 1500);

/// A rule that a descriptor breaks, and the fix.
type Rule = (&'static str, &'static str);

/// An open link for frames.
pub(super) struct Link {
    pub fd: OwnedFd,
    /// Its name for messages and statistics. The bare name of a tap means an interface of this
    /// network namespace.
    pub name: String,
    pub identity: Identity,
    pub mtu: u16,
    pub zero_is_end: bool,
}

impl Link {
    fn tap(fd: OwnedFd, name: String, mtu: u16) -> Link {
        Link {
            fd,
            name,
            identity: Identity::Tap,
            mtu,
            zero_is_end: false,
        }
    }

    fn socket(fd: OwnedFd, name: String, kind: SocketType) -> io::Result<Link> {
        let file = File::from(fd);
        let metadata = file.metadata()?;
        Ok(Link {
            fd: file.into(),
            name,
            identity: Identity::Socket(metadata.dev(), metadata.ino()),
            mtu: DEFAULT_MTU,
            zero_is_end: kind == SocketType::SEQPACKET,
        })
    }

    /// Makes reads and writes fail with `WouldBlock` instead of waiting, and frames plain.
    fn set_up(&self) -> io::Result<()> {
        if self.identity == Identity::Tap {
            // The guest accepts no frame longer than its MTU and computes every checksum, so the
            // host must not offload work to it. A kernel without the request does not offload
            // either.
            // SAFETY: the call takes numbers; the descriptor is open.
            unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETOFFLOAD, 0) };
        }
        uninterrupted(|| Ok(rustix::io::ioctl_fionbio(&self.fd, true)?))
    }
}

/// Finds the interface called `name`, which must exist and be up. None if this process may not
/// query interfaces.
pub(super) fn find(name: &str) -> Result<Option<Interface>, Error> {
    if name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        // The kernel would truncate the name, and find another.
        return Err(Error::missing(name));
    }
    match Interface::find(name) {
        Ok(found) if found.is_up => Ok(Some(found)),
        Ok(_) => Err(Error::down(name)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Err(Error::missing(name)),
        Err(error) => {
            log::debug!("no socket answers about interface '{name}': {error}");
            if interface::is_listed(name).unwrap_or(true) {
                Ok(None)
            } else {
                Err(Error::missing(name))
            }
        }
    }
}

/// Attaches to the tap called `name`, which must exist and be up.
pub(super) fn open(name: &str) -> Result<Link, Error> {
    let found = find(name)?;
    let (fd, own_name) = attach(name)?;
    // Without queries, the open tap itself shows whether it is up.
    if found.is_none() && !interface::is_up(fd.as_fd()) {
        return Err(Error::down(name));
    }
    let found = found.or_else(|| Interface::of_tap(fd.as_fd(), &own_name));
    if found.is_none() {
        log::warn!("{own_name}: {UNKNOWN_MTU}");
    }
    let link = Link::tap(fd, own_name, found.map_or(DEFAULT_MTU, |found| found.mtu));
    link.set_up().map_err(|error| Error::Attach {
        name: name.into(),
        error,
    })?;
    Ok(link)
}

/// Opens the tap `name`; returns also the interface's primary name, because `name` can be an
/// alternative one.
fn attach(name: &str) -> Result<(OwnedFd, String), Error> {
    let tap = uninterrupted(|| Iface::without_packet_info(name, Mode::Tap));
    let tap = tap.map_err(|error| Error::refused(name, error))?;
    let own_name = tap.name().to_owned();
    // SAFETY: the descriptor is open, and has no other owner from here on.
    let fd = unsafe { OwnedFd::from_raw_fd(tap.into_raw_fd()) };
    // If this process may create interfaces, the kernel has created a missing one. It ends with its
    // descriptor.
    match Request::about("").ask(fd.as_fd(), libc::TUNGETIFF) {
        Ok(flags) if flags.has_flag(IFF_PERSIST) => Ok((fd, own_name)),
        Ok(_) => Err(Error::missing(name)),
        Err(error) => Err(Error::Attach {
            name: name.into(),
            error,
        }),
    }
}

/// Takes ownership of an inherited descriptor.
pub(super) fn adopt(inherited: &InheritedFd) -> Result<Link, Error> {
    let (link, doubts) = inspect(inherited)?;
    for doubt in doubts {
        log::warn!("{}: {doubt}", link.name);
    }
    let fd = link.fd.as_raw_fd();
    link.set_up().map_err(|error| Error::SetUp { fd, error })?;
    Ok(link)
}

/// Takes ownership of an inherited descriptor and changes nothing; returns possible problems.
pub(super) fn inspect(inherited: &InheritedFd) -> Result<(Link, Vec<String>), Error> {
    let given = inherited.take()?;
    let fd = given.as_raw_fd();
    let refuse = |(rule, fix)| Error::Descriptor { fd, rule, fix };
    match Request::about("").ask(given.as_fd(), libc::TUNGETIFF) {
        Ok(tap) => {
            check_flags(given.as_fd(), &tap).map_err(refuse)?;
            Ok(inspect_tap(given, tap.name(), inherited))
        }
        Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Err(refuse((
            "is /dev/net/tun, but leads to no interface",
            "attach it to a tap first (TUNSETIFF)",
        ))),
        Err(_) => {
            let kind = socket_type(given.as_fd()).map_err(refuse)?;
            let link = Link::socket(given, inherited.to_string(), kind);
            let link = link.map_err(|error| Error::SetUp { fd, error })?;
            Ok((link, Vec::new()))
        }
    }
}

fn inspect_tap(fd: OwnedFd, mut name: String, inherited: &InheritedFd) -> (Link, Vec<String>) {
    let here = Interface::of_tap(fd.as_fd(), &name);
    let mut doubts = Vec::new();
    // A macvtap is always writable, up or not.
    if !interface::is_up(fd.as_fd()) || here.as_ref().is_some_and(|here| !here.is_up) {
        doubts.push(format!(
            "it is down; until '{}ip link set {name} up', all frames are dropped",
            sudo()
        ));
    }
    if here.is_none() {
        doubts.push(UNKNOWN_MTU.to_owned());
        name = format!("{name} ({inherited})");
    }
    let mtu = here.map_or(DEFAULT_MTU, |here| here.mtu);
    (Link::tap(fd, name, mtu), doubts)
}

/// Returns a random unicast address, locally administered. Section 8.
pub(super) fn random_mac() -> Result<[u8; 6], Error> {
    let mut mac = [0u8; 6];
    // getrandom returns so few bytes in one call.
    uninterrupted(|| Ok(rustix::rand::getrandom(&mut mac, GetRandomFlags::empty())?))
        .map_err(|error| Error::Random { error })?;
    mac[0] = mac[0] & 0xfe | 2;
    Ok(mac)
}

/// Checks that the open tap `fd`, whose TUNGETIFF gave `answer`, carries plain frames.
fn check_flags(fd: BorrowedFd<'_>, answer: &Request) -> Result<(), Rule> {
    if !answer.has_flag(libc::IFF_TAP) {
        return Err((
            "is a tun, which carries no Ethernet frames",
            "make a tap (IFF_TAP)",
        ));
    }
    if answer.has_flag(libc::IFF_VNET_HDR) {
        return Err((
            "puts a virtio header before every frame",
            "attach it to its tap without IFF_VNET_HDR",
        ));
    }
    // A tap without a filter returns IFF_NOFILTER, which is the same bit.
    if !answer.has_flag(libc::IFF_NO_PI) || has_packet_info(fd) {
        return Err((
            "puts four bytes before every frame",
            "attach it to its tap with IFF_NO_PI",
        ));
    }
    Ok(())
}

/// Returns whether the open tap expects four bytes before every frame. Writes 13 bytes from an
/// unmapped address, one less than the shortest frame: the kernel reads the four bytes first, but
/// rejects so short a frame without reading it.
fn has_packet_info(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: the kernel checks the address, and reads nothing from there.
    let result = interface::repeated(
        || unsafe { libc::write(fd.as_raw_fd(), std::ptr::null(), 13) } as libc::c_int,
    );
    result.is_err_and(|error| error.raw_os_error() == Some(libc::EFAULT))
}

/// Returns the type of a socket that preserves frame boundaries.
fn socket_type(fd: BorrowedFd<'_>) -> Result<SocketType, Rule> {
    match rustix::net::sockopt::socket_type(fd) {
        Ok(kind @ (SocketType::DGRAM | SocketType::SEQPACKET | SocketType::RAW)) => Ok(kind),
        _ => Err((
            "carries no frames",
            "pass that of a tap, or of a datagram, packet or raw socket",
        )),
    }
}

/// Returns whether two descriptors are one open file: then a change through one is visible through
/// the other. The change is undone. (The kernel's comparison, `kcmp(2)`, is not built into every
/// kernel.)
pub(super) fn is_same_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let flags = |fd| fcntl_getfl(fd).unwrap_or(OFlags::empty());
    let (ours, before) = (flags(one), flags(other));
    let _ = fcntl_setfl(one, ours ^ OFlags::NONBLOCK);
    let is_same_file = (flags(other) ^ before).contains(OFlags::NONBLOCK);
    let _ = fcntl_setfl(one, ours);
    is_same_file
}
