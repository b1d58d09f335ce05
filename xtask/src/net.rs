//! A network namespace of our own and a tap in it, without ip(8) and, where the kernel lets users do so, without root.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd};

use crate::error::{Context, Result, fail};
use crate::packages;

/// Moves this process, which must have one thread only, into a network namespace of its own. It goes with the process.
pub fn enter_namespace() -> Result<()> {
    // SAFETY: both take nothing, touch no memory and cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let user = if packages::is_root() { 0 } else { libc::CLONE_NEWUSER };
    // SAFETY: unshare takes flags and changes nothing in our memory.
    if unsafe { libc::unshare(libc::CLONE_NEWNET | user) } != 0 {
        return fail(format!(
            "no network namespace of our own: {}; run as root, or allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)",
            io::Error::last_os_error()
        ));
    }
    if user != 0 {
        // Mapped to itself, not to root: what we start has no more rights than its user.
        fs::write("/proc/self/setgroups", "deny").context("cannot write /proc/self/setgroups")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).context("cannot write /proc/self/uid_map")?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).context("cannot write /proc/self/gid_map")?;
    }
    bring_up("lo", None)
}

/// Makes a tap that stays when no one holds it, gives it an address with a 24-bit network, and brings it up.
pub fn make_tap(name: &str, address: Ipv4Addr) -> Result<()> {
    const TUN: &str = "/dev/net/tun";
    let tun = File::options().read(true).write(true).open(TUN).context(format_args!("cannot open {TUN}"))?;
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    control(&tun, libc::TUNSETIFF as libc::Ioctl, &mut request).context(format_args!("cannot make the tap {name}"))?;
    // SAFETY: TUNSETPERSIST takes a number, not a pointer, and `tun` is open.
    if unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST as libc::Ioctl, 1) } != 0 {
        return fail(format!("cannot keep the tap {name}: {}", io::Error::last_os_error()));
    }
    bring_up(name, Some(address))
}

fn bring_up(name: &str, address: Option<Ipv4Addr>) -> Result<()> {
    let socket = socket().context("cannot open a socket for interface requests")?;
    let what = format!("cannot configure {name}");
    if let Some(address) = address {
        let mut wanted = request(name);
        wanted.ifr_ifru.ifru_addr = internet(address);
        control(&socket, libc::SIOCSIFADDR as libc::Ioctl, &mut wanted).context(&what)?;
        wanted.ifr_ifru.ifru_netmask = internet(Ipv4Addr::new(255, 255, 255, 0));
        control(&socket, libc::SIOCSIFNETMASK as libc::Ioctl, &mut wanted).context(&what)?;
    }
    let mut wanted = request(name);
    wanted.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    control(&socket, libc::SIOCSIFFLAGS as libc::Ioctl, &mut wanted).context(&what)
}

fn socket() -> io::Result<File> {
    // SAFETY: socket takes numbers only.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and no one else has it; File only closes it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// A request about the interface of this name; longer names than the kernel has are cut, and so not found.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: ifreq is plain numbers and arrays, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request
}

/// An IPv4 address as a `sockaddr`: family, port, then the four bytes.
fn internet(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

fn control(file: &File, number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: every request used here reads and writes one ifreq, which `request` is, alive for the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), number, request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
