//! What the kernel says about a network interface: by `ioctl(2)`, see netdevice(7), and in sysfs.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

/// Bytes of an interface's name with its final NUL.
const NAME_SIZE: usize = libc::IFNAMSIZ;

/// Bytes of the longest answer.
const VALUE_SIZE: usize = size_of::<libc::ifreq>() - NAME_SIZE;

/// The kernel's `struct ifreq`: a name, and a value whose form depends on the question.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Request {
    name: [u8; NAME_SIZE],
    value: [u8; VALUE_SIZE],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());
const _: () = assert!(align_of::<Request>() >= align_of::<libc::ifreq>());

impl Request {
    /// A question about the interface `name`; none is known by a name that is too long.
    pub fn about(name: &str) -> Request {
        let mut request = Request { name: [0; NAME_SIZE], value: [0; VALUE_SIZE] };
        let len = name.len().min(NAME_SIZE - 1);
        request.name[..len].copy_from_slice(&name.as_bytes()[..len]);
        request
    }

    /// Asks `question`, one of the requests that take a `struct ifreq`, of `fd`.
    pub fn ask(mut self, fd: BorrowedFd<'_>, question: libc::Ioctl) -> io::Result<Request> {
        // SAFETY: the questions asked here read and write a `struct ifreq`, which `self` has the size of.
        match unsafe { libc::ioctl(fd.as_raw_fd(), question, &raw mut self) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(self),
        }
    }

    /// The answer, if it is a name.
    pub fn name(&self) -> String {
        let len = self.name.iter().position(|&byte| byte == 0).unwrap_or(NAME_SIZE);
        String::from_utf8_lossy(&self.name[..len]).into_owned()
    }

    /// Whether the answer is a set of flags with this one.
    pub fn has_flag(&self, flag: libc::c_int) -> bool {
        libc::c_int::from(i16::from_ne_bytes([self.value[0], self.value[1]])) & flag != 0
    }

    /// The answer, if it is a number.
    pub fn number(&self) -> i32 {
        i32::from_ne_bytes([self.value[0], self.value[1], self.value[2], self.value[3]])
    }
}

/// A file of sysfs about an interface. None where sysfs is not there, or shows another network namespace, which may
/// have an interface of the same name.
pub(super) fn attribute(name: &str, attribute: &str) -> Option<String> {
    let read = |attribute| fs::read_to_string(format!("/sys/class/net/{name}/{attribute}")).ok();
    let shown: i32 = read("ifindex")?.trim_end().parse().ok()?;
    let socket = UnixDatagram::unbound().ok()?;
    let index = Request::about(name).ask(socket.as_fd(), libc::SIOCGIFINDEX as libc::Ioctl).ok()?.number();
    if shown == index { Some(read(attribute)?.trim_end().to_owned()) } else { None }
}

/// The flags (`IFF_TAP` and its like) of a tun or tap interface, where sysfs tells.
pub(super) fn tun_flags(name: &str) -> Option<libc::c_int> {
    libc::c_int::from_str_radix(attribute(name, "tun_flags")?.strip_prefix("0x")?, 16).ok()
}
