//! Queries about network interfaces: by `ioctl(2)`, see netdevice(7), and in sysfs.

#![expect(unsafe_code, reason = "ioctls of interfaces")]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::host::owner::read_list;
use crate::host::signal::uninterrupted;

/// Opens the network namespace of a tap's interface. `_IO('T', 227)` of Linux's `if_tun.h`; libc
/// lacks it.
const TUNGETDEVNETNS: libc::Ioctl = 0x54e3;

/// Bytes of an interface's name with its final NUL.
const NAME_SIZE: usize = libc::IFNAMSIZ;

/// Size of the longest reply in bytes.
const VALUE_SIZE: usize = size_of::<libc::ifreq>() - NAME_SIZE;

/// The kernel's `struct ifreq`: a name, and a value whose form depends on the ioctl.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Request {
    name: [u8; NAME_SIZE],
    value: [u8; VALUE_SIZE],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());
const _: () = assert!(align_of::<Request>() >= align_of::<libc::ifreq>());

impl Request {
    /// Returns a request about the interface `name`; a name that is too long matches none.
    pub(super) fn about(name: &str) -> Request {
        let mut request = Request {
            name: [0; NAME_SIZE],
            value: [0; VALUE_SIZE],
        };
        let len = name.len().min(NAME_SIZE - 1);
        request.name[..len].copy_from_slice(&name.as_bytes()[..len]);
        request
    }

    /// Makes the ioctl `question`, one that takes a `struct ifreq`, on `fd`.
    pub(super) fn ask(mut self, fd: BorrowedFd<'_>, question: libc::Ioctl) -> io::Result<Request> {
        // SAFETY: these ioctls read and write a `struct ifreq`, which `self` has the size of.
        repeated(|| unsafe { libc::ioctl(fd.as_raw_fd(), question, &raw mut self) })?;
        Ok(self)
    }

    /// Returns the reply as a name.
    pub(super) fn name(&self) -> String {
        let len = self
            .name
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(NAME_SIZE);
        String::from_utf8_lossy(&self.name[..len]).into_owned()
    }

    /// Returns whether this flag is set in the reply.
    pub(super) fn has_flag(&self, flag: libc::c_int) -> bool {
        libc::c_int::from(i16::from_ne_bytes([self.value[0], self.value[1]])) & flag != 0
    }

    /// Returns the reply as a hardware address.
    fn mac(&self) -> [u8; 6] {
        // After the address's family.
        [2, 3, 4, 5, 6, 7].map(|place| self.value[place])
    }

    /// Returns the reply as a number.
    pub(super) fn number(&self) -> i32 {
        i32::from_ne_bytes([self.value[0], self.value[1], self.value[2], self.value[3]])
    }
}

/// Repeats a system call while signals interrupt it.
pub(super) fn repeated(mut call: impl FnMut() -> libc::c_int) -> io::Result<libc::c_int> {
    uninterrupted(|| match call() {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    })
}

/// An interface of this network namespace.
#[derive(Debug)]
pub(super) struct Interface {
    /// Its name. The interface may have been looked up by an alternative name.
    pub name: String,
    /// Whether it is up.
    pub is_up: bool,
    /// Largest payload of a frame, in bytes.
    pub mtu: u16,
    mac: [u8; 6],
}

impl Interface {
    /// Looks up the interface `name` through a socket.
    ///
    /// # Errors
    /// `ENODEV`: there is no such interface. Any other error: the query failed.
    pub(super) fn find(name: &str) -> io::Result<Interface> {
        let socket = socket()?;
        let ask = |request: Request, question| request.ask(socket.as_fd(), question as libc::Ioctl);
        let about = |question| ask(Request::about(name), question);
        Ok(Interface {
            name: ask(about(libc::SIOCGIFINDEX)?, libc::SIOCGIFNAME)?.name(),
            is_up: about(libc::SIOCGIFFLAGS)?.has_flag(libc::IFF_UP),
            mtu: u16::try_from(about(libc::SIOCGIFMTU)?.number()).unwrap_or(u16::MAX),
            mac: about(libc::SIOCGIFHWADDR)?.mac(),
        })
    }

    /// Reads the interface `name` from sysfs, which may show another network namespace.
    fn shown(name: &str) -> Option<Interface> {
        let mac: Option<Vec<u8>> = read(name, "address")?
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).ok())
            .collect();
        let mtu: u32 = read(name, "mtu")?.parse().ok()?;
        Some(Interface {
            name: name.to_owned(),
            is_up: flags(&read(name, "flags")?)? & libc::IFF_UP != 0,
            mtu: mtu.try_into().unwrap_or(u16::MAX),
            mac: mac?.try_into().ok()?,
        })
    }

    /// Returns the interface `name` of this network namespace, if the open `tap` belongs to it: a
    /// tap of another network namespace may have the same name.
    pub(super) fn of_tap(tap: BorrowedFd<'_>, name: &str) -> Option<Interface> {
        let here = match Interface::find(name) {
            Ok(here) => here,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return None,
            Err(_) => Interface::shown(name)?,
        };
        let is_same = match (network_of(tap), fs::metadata("/proc/self/ns/net")) {
            (Ok(tap), Ok(ours)) => tap == (ours.dev(), ours.ino()),
            (Err(error), _) if error.raw_os_error() == Some(libc::EPERM) => {
                here.has_mac_of(tap) && here.is_like(tap)
            }
            // A macvtap or an old kernel lacks that ioctl: only the MAC address can be compared.
            _ => here.has_mac_of(tap),
        };
        is_same.then_some(here)
    }

    fn has_mac_of(&self, tap: BorrowedFd<'_>) -> bool {
        Request::about("")
            .ask(tap, libc::SIOCGIFHWADDR as libc::Ioctl)
            .is_ok_and(|answer| answer.mac() == self.mac)
    }

    /// Returns whether this interface can belong to the open `tap`. Containers from one template
    /// can have taps with the same name and MAC address.
    fn is_like(&self, tap: BorrowedFd<'_>) -> bool {
        let is_tun = attribute(&self.name, "ifindex").is_none() || tun_flags(&self.name).is_some();
        is_tun
            && self.is_up == is_up(tap)
            && attribute(&self.name, "carrier").as_deref() != Some("0")
    }
}

/// Returns whether the interface of an open tap is up: a tap that is down is not writable. Needs
/// neither its name nor a privilege.
pub(super) fn is_up(tap: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(tap, PollFlags::OUT)];
    retry_on_intr(|| poll(&mut polled, Some(&Timespec::default()))).is_err()
        || polled[0].revents().contains(PollFlags::OUT)
}

/// Returns device and inode of the network namespace of an open tap's interface. Needs
/// CAP_NET_ADMIN there.
fn network_of(tap: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    // SAFETY: the ioctl takes no argument, and returns a new descriptor.
    let fd = repeated(|| unsafe { libc::ioctl(tap.as_raw_fd(), TUNGETDEVNETNS) })?;
    // SAFETY: it is new and has no other owner.
    let network = File::from(unsafe { OwnedFd::from_raw_fd(fd) }).metadata()?;
    Ok((network.dev(), network.ino()))
}

/// Opens a socket for queries about interfaces, of the first permitted family. A unit can forbid
/// some families, or all (RestrictAddressFamilies=).
fn socket() -> io::Result<OwnedFd> {
    let open = |family| {
        uninterrupted(|| {
            let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            Ok(socket)
        })
    };
    let others = [
        AddressFamily::UNIX,
        AddressFamily::INET6,
        AddressFamily::NETLINK,
    ];
    others
        .into_iter()
        .fold(open(AddressFamily::INET), |opened, family| {
            opened.or_else(|_| open(family))
        })
}

/// Returns whether /proc lists an interface `name` in this network namespace. Needs no socket.
pub(super) fn is_listed(name: &str) -> io::Result<bool> {
    let list = read_list("/proc/self/net/dev")?;
    Ok(list.lines().any(|line| {
        line.trim_start()
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(':'))
    }))
}

/// Reads a file of sysfs about the interface with this primary name.
fn read(name: &str, attribute: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/{attribute}")).ok()?;
    Some(text.trim_end().to_owned())
}

/// Parses flags of sysfs, such as `0x1002`.
fn flags(text: &str) -> Option<libc::c_int> {
    libc::c_int::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// Reads a file of sysfs about an interface. `None` if sysfs is missing, or shows another network
/// namespace, which may have an interface of the same name.
pub(super) fn attribute(name: &str, attribute: &str) -> Option<String> {
    let socket = socket().ok()?;
    let ask =
        |request: Request, question| request.ask(socket.as_fd(), question as libc::Ioctl).ok();
    let index = ask(Request::about(name), libc::SIOCGIFINDEX)?;
    // sysfs has no alternative names.
    let name = ask(index, libc::SIOCGIFNAME)?.name();
    let shown: i32 = read(&name, "ifindex")?.parse().ok()?;
    (shown == index.number()).then(|| read(&name, attribute))?
}

/// Lists up to `most` taps of the bridge `name`; none if it is no bridge, or sysfs does not show it.
pub(super) fn taps_of_bridge(name: &str, most: usize) -> Option<Vec<String>> {
    attribute(name, "bridge/bridge_id")?;
    let ports = fs::read_dir(format!("/sys/class/net/{name}/brif")).ok()?;
    let names = ports.filter_map(|port| port.ok()?.file_name().into_string().ok());
    let taps = names.filter(|port| tun_flags(port).is_some());
    Some(taps.take(most).collect())
}

/// Returns the flags (`IFF_TAP` and similar) of a tun or tap interface, if sysfs shows them.
pub(super) fn tun_flags(name: &str) -> Option<libc::c_int> {
    flags(&attribute(name, "tun_flags")?)
}
