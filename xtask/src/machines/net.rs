//! A network namespace and a tap in it, without ip(8) and, where the kernel permits it, without
//! root.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::{Duration, Instant};

use crate::base::error::{Context, Result, fail};
use crate::build::packages;

/// Moves this process, which must have only one thread, into a new network namespace. It ends with
/// the process.
pub fn enter_namespace() -> Result<()> {
    // SAFETY: both take no arguments, touch no memory and cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let user = if packages::is_root() {
        0
    } else {
        libc::CLONE_NEWUSER
    };
    // SAFETY: unshare takes flags and changes nothing in our memory.
    if unsafe { libc::unshare(libc::CLONE_NEWNET | user) } != 0 {
        return fail(format!(
            "no network namespace of our own: {}; run as root, or allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)",
            io::Error::last_os_error()
        ));
    }
    if user != 0 {
        // Mapped to itself, not to root: children have no more rights than the user.
        fs::write("/proc/self/setgroups", "deny").context("cannot write /proc/self/setgroups")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))
            .context("cannot write /proc/self/uid_map")?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
            .context("cannot write /proc/self/gid_map")?;
    }
    bring_up("lo", None)
}

/// Makes a persistent tap, gives it an address with a 24-bit network, and brings it up.
pub fn make_tap(name: &str, address: Ipv4Addr) -> Result<()> {
    keep_tap(name, true)?;
    bring_up(name, Some(address))
}

/// Removes a persistent tap that no process uses.
pub fn remove_tap(name: &str) -> Result<()> {
    keep_tap(name, false)
}

/// Attaches to a tap, and makes it persistent or not: then it ends here.
fn keep_tap(name: &str, persistent: bool) -> Result<()> {
    const TUN: &str = "/dev/net/tun";
    let tun = File::options()
        .read(true)
        .write(true)
        .open(TUN)
        .context(format_args!("cannot open {TUN}"))?;
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    control(&tun, libc::TUNSETIFF as libc::Ioctl, &mut request)
        .context(format_args!("cannot attach to the tap {name}"))?;
    let persistent = libc::c_int::from(persistent);
    // SAFETY: TUNSETPERSIST takes a number, not a pointer, and `tun` is open.
    if unsafe {
        libc::ioctl(
            tun.as_raw_fd(),
            libc::TUNSETPERSIST as libc::Ioctl,
            persistent,
        )
    } != 0
    {
        return fail(format!(
            "cannot keep or remove the tap {name}: {}",
            io::Error::last_os_error()
        ));
    }
    Ok(())
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
    // SAFETY: the descriptor is new and has no other owner; File only closes it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Counters of a tap.
pub struct Packets {
    /// Frames sent by the attached process.
    pub from_tender: u64,
    /// Frames taken by the attached process.
    pub to_tender: u64,
}

/// Returns the counters of the tap `name`.
pub fn packets(name: &str) -> Result<Packets> {
    // Unlike sysfs, which shows the namespace of its mount.
    let table = fs::read_to_string("/proc/net/dev").context("cannot read /proc/net/dev")?;
    let line = table
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'));
    let numbers: Vec<u64> = line
        .unwrap_or("")
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    match numbers[..] {
        [_, from_tender, _, _, _, _, _, _, _, to_tender, ..] => Ok(Packets {
            from_tender,
            to_tender,
        }),
        _ => fail(format!("/proc/net/dev has no tap {name}")),
    }
}

/// Waits until the host's frames reach the process that has just attached to a tap. The kernel
/// notices it up to a second later and silently drops frames until then.
pub fn wait_until_running(name: &str) -> Result<()> {
    let socket = socket().context("cannot open a socket for interface requests")?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let mut asked = request(name);
        control(&socket, libc::SIOCGIFFLAGS as libc::Ioctl, &mut asked)
            .context(format_args!("no interface {name}"))?;
        // SAFETY: the kernel has just filled in the flags.
        let flags = libc::c_int::from(unsafe { asked.ifr_ifru.ifru_flags });
        if flags & libc::IFF_RUNNING != 0 {
            // Waits for the lock that the kernel holds during the change, of which the flag is only
            // a part.
            return bring_up(name, None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    fail(format!("no process is attached to {name}"))
}

/// Sends whole frames through the interface `name`, and receives none.
pub fn packet_socket(name: &str) -> Result<File> {
    let string = CString::new(name).context("an interface's name has no NUL")?;
    // SAFETY: the call takes numbers only; a packet socket's address is plain numbers, for which
    // zeros are a value.
    let (fd, mut address): (_, libc::sockaddr_ll) = unsafe {
        (
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0),
            std::mem::zeroed(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("cannot open a packet socket");
    }
    // SAFETY: the descriptor is new and has no other owner; File only closes it.
    let socket = unsafe { File::from_raw_fd(fd) };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    // SAFETY: the name ends with a NUL.
    address.sll_ifindex = unsafe { libc::if_nametoindex(string.as_ptr()) } as libc::c_int;
    let size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads the address, whose length is correct.
    if unsafe { libc::bind(fd, (&raw const address).cast(), size) } != 0 {
        return Err(io::Error::last_os_error()).context(format_args!("cannot send through {name}"));
    }
    Ok(socket)
}

/// A request about the interface of this name; a name that is too long is cut, and so not found.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: ifreq is plain numbers and arrays, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .zip(name.bytes().take(libc::IFNAMSIZ - 1))
    {
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
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: data,
    }
}

fn control(file: &File, number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: every request used here reads and writes one ifreq, which `request` is, alive for the
    // call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), number, request) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
