//! Turns the name of a tap interface, or a descriptor, into a link for frames.
//!
//! This module never creates an interface: an operator who misspells a name must not get a new tap
//! that leads nowhere.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use tun_tap::{Iface, Mode};

use super::interface::{self, Interface, Request};
use super::{DEFAULT_MTU, Error, Identity};
use crate::config::InheritedFd;
use crate::host::signal::uninterrupted;

/// Flag of a tap that remains when no process has it open; of Linux's `if_tun.h`.
const IFF_PERSIST: libc::c_int = 0x0800;

/// Warning if no interface of this network namespace is known to be the tap's.
pub(super) const UNKNOWN_MTU: &str = "its MTU is unknown (it is in another network namespace, or \
    RestrictAddressFamilies= forbids the query); the guest gets 1500";
const _: () = assert!(DEFAULT_MTU == 1500);

/// An open link for frames.
pub(super) struct Link {
    pub fd: OwnedFd,
    pub name: String,
    pub identity: Identity,
    pub mtu: u16,
    pub zero_is_end: bool,
}

/// An inherited tap.
pub(super) struct Tap {
    /// Its name in its own network namespace.
    pub name: String,
    /// Its interface, if in this network namespace.
    pub here: Option<Interface>,
    /// Whether it is up.
    pub is_up: bool,
}

impl Tap {
    fn new(fd: BorrowedFd<'_>, name: String) -> Tap {
        let here = Interface::of_tap(fd, &name);
        // A macvtap is always writable, up or not.
        let is_up = interface::is_up(fd) && here.as_ref().is_none_or(|here| here.is_up);
        Tap { name, here, is_up }
    }

    /// Returns its name for messages and statistics. The bare name means an interface of this
    /// network namespace.
    pub fn label(&self, inherited: &InheritedFd) -> String {
        if self.here.is_some() {
            self.name.clone()
        } else {
            format!("{} ({inherited})", self.name)
        }
    }

    /// Returns the largest payload of a frame, in bytes.
    pub fn mtu(&self) -> u16 {
        self.here.as_ref().map_or(DEFAULT_MTU, |here| here.mtu)
    }
}

/// Kind of an inherited descriptor.
pub(super) enum Offered {
    /// A tap.
    Tap(Tap),
    /// A socket.
    Socket { zero_is_end: bool },
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
    do_not_wait(fd.as_fd()).map_err(|error| Error::Attach {
        name: name.into(),
        error,
    })?;
    let mtu = match found.or_else(|| Interface::of_tap(fd.as_fd(), &own_name)) {
        Some(interface) => interface.mtu,
        None => {
            log::warn!("{own_name}: {UNKNOWN_MTU}");
            DEFAULT_MTU
        }
    };
    Ok(tap_link(fd, own_name, mtu))
}

/// Opens the tap `name`; returns also the interface's primary name, because `name` can be an
/// alternative one.
fn attach(name: &str) -> Result<(OwnedFd, String), Error> {
    let tap = uninterrupted(|| Iface::without_packet_info(name, Mode::Tap));
    let tap = tap.map_err(|error| Error::refused(name, error))?;
    let own_name = tap.name().to_owned();
    // SAFETY: the descriptor is open, and has no other owner from here on.
    let fd = unsafe { OwnedFd::from_raw_fd(tap.into_raw_fd()) };
    let flags = Request::about("").ask(fd.as_fd(), libc::TUNGETIFF);
    // If this process may create interfaces, the kernel has created a missing one. It ends with its
    // descriptor.
    match flags
        .map_err(|error| Error::Attach {
            name: name.into(),
            error,
        })?
        .has_flag(IFF_PERSIST)
    {
        true => Ok((fd, own_name)),
        false => Err(Error::missing(name)),
    }
}

/// Takes ownership of an inherited descriptor.
pub(super) fn adopt(inherited: &InheritedFd) -> Result<Link, Error> {
    let (fd, offered) = offered(inherited)?;
    let number = fd.as_raw_fd();
    let set_up_error = |error| Error::SetUp { fd: number, error };
    let link = match offered {
        Offered::Tap(tap) => {
            let (name, label) = (&tap.name, tap.label(inherited));
            if !tap.is_up {
                log::warn!(
                    "interface '{name}' ({inherited}) is down; until 'ip link set {name} up', all frames are dropped"
                );
            }
            if tap.here.is_none() {
                log::warn!("{label}: {UNKNOWN_MTU}");
            }
            tap_link(fd, label, tap.mtu())
        }
        Offered::Socket { zero_is_end } => {
            socket_link(fd, inherited, zero_is_end).map_err(set_up_error)?
        }
    };
    do_not_wait(link.fd.as_fd()).map_err(set_up_error)?;
    Ok(link)
}

/// Returns an inherited descriptor and its kind.
pub(super) fn offered(inherited: &InheritedFd) -> Result<(OwnedFd, Offered), Error> {
    let given = inherited.take()?;
    let fd = given.as_raw_fd();
    let refuse = |rule| Error::Descriptor { fd, rule };
    match Request::about("").ask(given.as_fd(), libc::TUNGETIFF) {
        Ok(tap) => {
            check_flags(given.as_fd(), &tap).map_err(refuse)?;
            let tap = Tap::new(given.as_fd(), tap.name());
            Ok((given, Offered::Tap(tap)))
        }
        Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Err(refuse(
            "is /dev/net/tun, but leads to no interface; attach it to a tap first (TUNSETIFF)",
        )),
        Err(_) => {
            let zero_is_end = socket_type(given.as_fd()).map_err(refuse)? == libc::SOCK_SEQPACKET;
            Ok((given, Offered::Socket { zero_is_end }))
        }
    }
}

/// Returns a random unicast address, locally administered. Section 8.
pub(super) fn random_mac() -> Result<[u8; 6], Error> {
    let mut mac = [0u8; 6];
    uninterrupted(
        // SAFETY: the array has room for the requested number of bytes. So few are returned all
        // together.
        || match unsafe { libc::getrandom(mac.as_mut_ptr().cast(), mac.len(), 0) } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        },
    )
    .map_err(|error| Error::Random { error })?;
    mac[0] = mac[0] & 0xfe | 2;
    Ok(mac)
}

/// Checks that the open tap `fd`, whose TUNGETIFF gave `answer`, carries plain frames.
fn check_flags(fd: BorrowedFd<'_>, answer: &Request) -> Result<(), &'static str> {
    if !answer.has_flag(libc::IFF_TAP) {
        return Err("is a tun, which carries no Ethernet frames; make a tap (IFF_TAP)");
    }
    if answer.has_flag(libc::IFF_VNET_HDR) {
        return Err(
            "puts a virtio header before every frame; attach it to its tap without IFF_VNET_HDR",
        );
    }
    // A tap without a filter returns IFF_NOFILTER, which is the same bit.
    if !answer.has_flag(libc::IFF_NO_PI) || has_packet_info(fd) {
        return Err("puts four bytes before every frame; attach it to its tap with IFF_NO_PI");
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
fn socket_type(fd: BorrowedFd<'_>) -> Result<libc::c_int, &'static str> {
    let mut kind: libc::c_int = 0;
    let mut len = size_of_val(&kind) as libc::socklen_t;
    // SAFETY: the pointers are to the option's value, a number, and to its size.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            (&raw mut kind).cast(),
            &raw mut len,
        )
    };
    match kind {
        libc::SOCK_DGRAM | libc::SOCK_SEQPACKET | libc::SOCK_RAW if result == 0 => Ok(kind),
        _ => Err("carries no frames; pass that of a tap, or of a datagram, packet or raw socket"),
    }
}

fn tap_link(fd: OwnedFd, name: String, mtu: u16) -> Link {
    // The guest accepts no frame longer than its MTU and computes every checksum, so the host must
    // not offload work to it. A kernel without the request does not offload either.
    // SAFETY: the call takes numbers; the descriptor is open.
    unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, 0) };
    Link {
        fd,
        identity: Identity::Tap,
        name,
        mtu,
        zero_is_end: false,
    }
}

fn socket_link(fd: OwnedFd, inherited: &InheritedFd, zero_is_end: bool) -> io::Result<Link> {
    let file = File::from(fd);
    let metadata = file.metadata()?;
    let identity = Identity::Socket(metadata.dev(), metadata.ino());
    Ok(Link {
        fd: file.into(),
        name: inherited.to_string(),
        identity,
        mtu: DEFAULT_MTU,
        zero_is_end,
    })
}

/// Returns whether two descriptors are one open file: then a change through one is visible through
/// the other. The change is undone. (The kernel's comparison, `kcmp(2)`, is not built into every
/// kernel.)
pub(super) fn is_same_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    // SAFETY: these calls take and return numbers; the descriptors are open.
    let flags = |fd: BorrowedFd<'_>| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    // SAFETY: as above.
    let set = |flags: libc::c_int| unsafe { libc::fcntl(one.as_raw_fd(), libc::F_SETFL, flags) };
    let (ours, before) = (flags(one), flags(other));
    set(ours ^ libc::O_NONBLOCK);
    let is_same_file = (flags(other) ^ before) & libc::O_NONBLOCK != 0;
    set(ours);
    is_same_file
}

/// Makes reads and writes fail with `WouldBlock` instead of waiting.
fn do_not_wait(fd: BorrowedFd<'_>) -> io::Result<()> {
    let yes: libc::c_int = 1;
    // SAFETY: the ioctl reads one number.
    interface::repeated(|| unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONBIO, &raw const yes) })
        .map(drop)
}
