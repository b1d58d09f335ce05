//! From the name of a tap interface, or a descriptor, to something that carries frames.
//!
//! An interface is never made: the operator who misspells a name must not get a new tap that leads nowhere.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;

use tun_tap::{Iface, Mode};

use super::interface::{self, Request};
use super::{DEFAULT_MTU, Error, Identity};
use crate::descriptors::Handed;
use crate::signal::uninterrupted;

/// Where a network device's frames come from and go to, as the operator says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetSource {
    /// A tap interface, by name.
    Interface(String),
    /// A file descriptor that this process was started with: of a tap, or a datagram or packet socket.
    Fd(Handed),
}

impl fmt::Display for NetSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetSource::Interface(name) => f.write_str(name),
            NetSource::Fd(handed) => handed.fmt(f),
        }
    }
}

/// An open way for frames.
pub(super) struct Link {
    pub fd: OwnedFd,
    pub name: String,
    pub identity: Identity,
    pub mtu: u16,
    pub zero_is_end: bool,
}

/// What an inherited descriptor leads to.
pub(super) enum Offered {
    /// A tap of this name.
    Tap(String),
    /// A socket.
    Socket { zero_is_end: bool },
}

/// Finds the interface called `name`, which must exist and be up: its MTU.
pub(super) fn find(name: &str) -> Result<u16, Error> {
    if name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        // The kernel would cut it, and find another.
        return Err(Error::missing(name));
    }
    let query_error = |error| Error::Query { name: name.into(), error };
    let socket = UnixDatagram::unbound().map_err(query_error)?;
    match Request::about(name).ask(socket.as_fd(), libc::SIOCGIFFLAGS as libc::Ioctl) {
        Ok(flags) if flags.has_flag(libc::IFF_UP) => {}
        Ok(_) => return Err(Error::down(name)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Err(Error::missing(name)),
        Err(error) => return Err(query_error(error)),
    }
    mtu(&socket, name).map_err(query_error)
}

/// Attaches to the tap called `name`, which must exist and be up.
pub(super) fn open(name: &str) -> Result<Link, Error> {
    let mtu = find(name)?;
    let tap = Iface::without_packet_info(name, Mode::Tap).map_err(|error| Error::refused(name, error))?;
    // SAFETY: the descriptor is open and, from here on, nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(tap.into_raw_fd()) };
    do_not_wait(fd.as_fd()).map_err(|error| Error::Attach { name: name.into(), error })?;
    Ok(tap_link(fd, name.into(), mtu))
}

/// Takes over a descriptor that this process was started with.
pub(super) fn adopt(handed: &Handed) -> Result<Link, Error> {
    let (fd, offered) = offered(handed)?;
    let number = fd.as_raw_fd();
    let set_up_error = |error| Error::SetUp { fd: number, error };
    let link = match offered {
        Offered::Tap(name) => {
            warn_if_down(&name, handed);
            let mtu = mtu_or_default(&name);
            tap_link(fd, name, mtu)
        }
        Offered::Socket { zero_is_end } => socket_link(fd, handed, zero_is_end).map_err(set_up_error)?,
    };
    do_not_wait(link.fd.as_fd()).map_err(set_up_error)?;
    Ok(link)
}

/// A descriptor that this process was started with, and what it leads to.
pub(super) fn offered(handed: &Handed) -> Result<(OwnedFd, Offered), Error> {
    let given = handed.take()?;
    let fd = given.as_raw_fd();
    let refuse = |rule| Error::Descriptor { fd, rule };
    match Request::about("").ask(given.as_fd(), libc::TUNGETIFF) {
        Ok(tap) => {
            check_flags(&tap).map_err(refuse)?;
            Ok((given, Offered::Tap(tap.name())))
        }
        Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {
            Err(refuse("is /dev/net/tun, but leads to no interface; attach it to a tap first (TUNSETIFF)"))
        }
        Err(_) => {
            let zero_is_end = socket_type(given.as_fd()).map_err(refuse)? == libc::SOCK_SEQPACKET;
            Ok((given, Offered::Socket { zero_is_end }))
        }
    }
}

/// A random unicast address, locally administered. Section 8.
pub(super) fn random_mac() -> Result<[u8; 6], Error> {
    let mut mac = [0u8; 6];
    // SAFETY: the array has room for as many bytes as are asked for. So few come all together.
    uninterrupted(|| match unsafe { libc::getrandom(mac.as_mut_ptr().cast(), mac.len(), 0) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    })
    .map_err(|error| Error::Random { error })?;
    mac[0] = mac[0] & 0xfe | 2;
    Ok(mac)
}

/// Whether a tap gives frames as they are.
fn check_flags(tap: &Request) -> Result<(), &'static str> {
    if !tap.has_flag(libc::IFF_TAP) {
        return Err("is a tun, which carries no Ethernet frames; make a tap (IFF_TAP)");
    }
    // TUNGETIFF says IFF_NO_PI for any tap without a filter (IFF_NOFILTER is the same bit); sysfs tells the truth.
    let packet_info = interface::tun_flags(&tap.name()).is_some_and(|flags| flags & libc::IFF_NO_PI == 0);
    if packet_info || !tap.has_flag(libc::IFF_NO_PI) {
        return Err("puts four bytes before every frame; attach it to its tap with IFF_NO_PI");
    }
    if tap.has_flag(libc::IFF_VNET_HDR) {
        return Err("puts a virtio header before every frame; attach it to its tap without IFF_VNET_HDR");
    }
    Ok(())
}

/// Type of a socket that keeps frames apart.
fn socket_type(fd: BorrowedFd<'_>) -> Result<libc::c_int, &'static str> {
    let mut kind: libc::c_int = 0;
    let mut len = size_of_val(&kind) as libc::socklen_t;
    // SAFETY: both pointers are to what the option asks for: a number, and the number of its bytes.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut len)
    };
    match kind {
        libc::SOCK_DGRAM | libc::SOCK_SEQPACKET | libc::SOCK_RAW if result == 0 => Ok(kind),
        _ => Err("carries no frames; pass that of a tap, or of a datagram, packet or raw socket"),
    }
}

fn tap_link(fd: OwnedFd, name: String, mtu: u16) -> Link {
    // The guest takes no frame longer than its MTU and fills in every checksum, so the host must not put work off to
    // it. A kernel that does not know the request does not do that either.
    // SAFETY: it takes numbers; the descriptor is open.
    unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, 0) };
    Link { fd, identity: Identity::Tap, name, mtu, zero_is_end: false }
}

fn socket_link(fd: OwnedFd, handed: &Handed, zero_is_end: bool) -> io::Result<Link> {
    let file = File::from(fd);
    let metadata = file.metadata()?;
    let identity = Identity::Socket(metadata.dev(), metadata.ino());
    Ok(Link { fd: file.into(), name: handed.to_string(), identity, mtu: DEFAULT_MTU, zero_is_end })
}

/// The MTU of the interface `name`, in bytes.
fn mtu(socket: &UnixDatagram, name: &str) -> io::Result<u16> {
    let mtu = Request::about(name).ask(socket.as_fd(), libc::SIOCGIFMTU as libc::Ioctl)?.number();
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// Says so if the interface `name` is down: who has handed it over may yet bring it up.
fn warn_if_down(name: &str, handed: &Handed) {
    if is_down(name) {
        log::warn!("interface '{name}' ({handed}) is down; until 'ip link set {name} up', all frames are dropped");
    }
}

/// Whether the interface `name` is down. One in another network namespace cannot be asked.
pub(super) fn is_down(name: &str) -> bool {
    let ask = |socket: UnixDatagram| Request::about(name).ask(socket.as_fd(), libc::SIOCGIFFLAGS as libc::Ioctl);
    UnixDatagram::unbound().and_then(ask).is_ok_and(|flags| !flags.has_flag(libc::IFF_UP))
}

/// The MTU of the interface `name`; the usual one where it lies in a network namespace that cannot be asked.
pub(super) fn mtu_or_default(name: &str) -> u16 {
    UnixDatagram::unbound().and_then(|socket| mtu(&socket, name)).unwrap_or(DEFAULT_MTU)
}

/// Whether two descriptors are one open file: then what is changed for one is changed for the other. It is changed back.
/// (The kernel's own comparison, `kcmp(2)`, is not built into every kernel.)
pub(super) fn are_one(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    // SAFETY: these requests take and give numbers; the descriptors are open.
    let flags = |fd: BorrowedFd<'_>| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    // SAFETY: as above.
    let set = |flags: libc::c_int| unsafe { libc::fcntl(one.as_raw_fd(), libc::F_SETFL, flags) };
    let (ours, before) = (flags(one), flags(other));
    set(ours ^ libc::O_NONBLOCK);
    let are_one = (flags(other) ^ before) & libc::O_NONBLOCK != 0;
    set(ours);
    are_one
}

/// Makes reads and writes fail with `WouldBlock` where they would wait.
fn do_not_wait(fd: BorrowedFd<'_>) -> io::Result<()> {
    let yes: libc::c_int = 1;
    // SAFETY: the request reads one number.
    match unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONBIO, &raw const yes) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
