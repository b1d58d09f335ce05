//! Networks for one test: a network namespace with taps in it. Made by system calls, as the
//! emulated machines have no `ip`.

mod namespace;
mod ping;

pub use namespace::{OtherNamespace, available, become_root, in_namespace, is_superuser};
pub use ping::{datagram, echo, ping};

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::{LIMIT, children, host_error};

const TUNSETIFF: u32 = 0x4004_54ca;
const TUNSETPERSIST: u32 = 0x4004_54cb;
const TUNSETOWNER: u32 = 0x4004_54cc;
const SIOCBRADDBR: u32 = 0x89a0;
const SIOCBRADDIF: u32 = 0x89a2;

/// Frames with their Ethernet header and nothing before it.
const TAP: i32 = libc::IFF_TAP | libc::IFF_NO_PI;

/// Packets instead of frames.
const TUN: i32 = libc::IFF_TUN | libc::IFF_NO_PI;

/// An interface request for `name`, with nothing else in it.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: an interface request is plain numbers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    assert!(
        name.len() < request.ifr_name.len(),
        "interface names have 15 characters at most"
    );
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// Attaches to the interface `name`, and makes it if it does not exist; it ends with the
/// descriptor.
fn attach(name: &str, flags: i32) -> Result<File, String> {
    let file = File::options().read(true).write(true).open("/dev/net/tun");
    let file = file.map_err(|error| format!("no /dev/net/tun: {error}"))?;
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // The child of another test may still hold a tap that was just released: see `children`.
    for _ in 0..100 {
        // SAFETY: the kernel reads and writes the request, which is alive.
        if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, &raw mut request) } == 0 {
            return Ok(file);
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::EBUSY) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(host_error("no tap"))
}

/// A persistent interface of this namespace.
pub struct Tap(&'static str);

impl Tap {
    /// Makes a tap that is up, with `address` and a prefix of 24 bits on the host's side.
    pub fn up(name: &'static str, address: Ipv4Addr) -> Tap {
        let tap = Tap::down(name);
        tap.set_address(address);
        tap.set_up(true);
        tap
    }

    /// Makes a tap that is down and has no address.
    pub fn down(name: &'static str) -> Tap {
        Tap::persistent(name, TAP)
    }

    /// Makes a tap with packet information, four bytes before every frame. Does not bring it up.
    pub fn with_packet_info(name: &'static str) -> Tap {
        Tap::persistent(name, libc::IFF_TAP)
    }

    /// Makes a tun, which carries packets and is useless to a unikernel.
    pub fn tun(name: &'static str) -> Tap {
        let tun = Tap::persistent(name, TUN);
        tun.set_up(true);
        tun
    }

    fn persistent(name: &'static str, flags: i32) -> Tap {
        let _none = children::hold_back();
        let file = attach(name, flags).unwrap();
        tap_option(&file, TUNSETPERSIST, 1);
        Tap(name)
    }

    /// Returns its name.
    pub fn name(&self) -> &'static str {
        self.0
    }

    /// Sets its owner.
    pub fn set_owner(&self, user: u32) {
        let _none = children::hold_back();
        tap_option(&self.attach(), TUNSETOWNER, user.into());
    }

    /// Waits until no process is attached.
    pub fn wait_until_free(&self) {
        let _none = children::hold_back();
        self.attach();
    }

    /// Attaches to it, as `tender` does.
    pub fn attach(&self) -> File {
        attach(self.0, TAP).unwrap()
    }

    /// Attaches to a tap with packet information.
    pub fn attach_with_packet_info(&self) -> File {
        attach(self.0, libc::IFF_TAP).unwrap()
    }

    /// Attaches to a tun.
    pub fn attach_tun(&self) -> File {
        attach(self.0, TUN).unwrap()
    }

    /// Returns how many frames the host has received from the other side.
    pub fn received(&self) -> u64 {
        self.statistic("rx_packets")
    }

    /// Returns how many of the host's frames the other side has taken.
    pub fn sent(&self) -> u64 {
        self.statistic("tx_packets")
    }

    fn statistic(&self, name: &str) -> u64 {
        let count = std::fs::read_to_string(format!("/sys/class/net/{}/statistics/{name}", self.0))
            .unwrap();
        count.trim_end().parse().unwrap()
    }

    /// Gives the host's side an address, with a prefix of 24 bits.
    pub fn set_address(&self, address: Ipv4Addr) {
        for (command, address) in [
            (libc::SIOCSIFADDR, address),
            (libc::SIOCSIFNETMASK, Ipv4Addr::new(255, 255, 255, 0)),
        ] {
            let mut request = request(self.0);
            // SAFETY: an IPv4 socket address is plain numbers, and no larger than the union's room
            // for addresses.
            unsafe {
                let place = (&raw mut request.ifr_ifru.ifru_addr).cast::<libc::sockaddr_in>();
                (*place).sin_family = libc::AF_INET as libc::sa_family_t;
                (*place).sin_addr.s_addr = u32::from_ne_bytes(address.octets());
            }
            control(command as u32, &mut request, "address");
        }
    }

    /// Brings it up or down.
    pub fn set_up(&self, up: bool) {
        set_up(self.0, up);
    }

    /// Waits until the host's frames reach the process that has just attached. The kernel notices
    /// it after a delay and silently drops frames until then.
    pub fn wait_until_running(&self) {
        let deadline = Instant::now() + LIMIT;
        while std::fs::read_to_string(format!("/sys/class/net/{}/operstate", self.0)).unwrap()
            != "up\n"
        {
            assert!(Instant::now() < deadline, "{} has no carrier", self.0);
            std::thread::sleep(Duration::from_millis(2));
        }
        // Waits for the lock that the kernel holds during the change, of which the state is only a
        // part.
        self.set_up(true);
    }

    /// Gives the host's side this hardware address.
    pub fn set_mac(&self, mac: [u8; 6]) {
        let mut request = request(self.0);
        // SAFETY: a hardware address is plain numbers, of which the union has room for more.
        unsafe {
            request.ifr_ifru.ifru_hwaddr.sa_family = libc::ARPHRD_ETHER;
            for (to, from) in request.ifr_ifru.ifru_hwaddr.sa_data.iter_mut().zip(mac) {
                *to = from as libc::c_char;
            }
        }
        control(libc::SIOCSIFHWADDR as u32, &mut request, "hardware address");
    }

    /// Renames the tap, which must be down.
    pub fn rename(self, name: &'static str) -> Tap {
        let mut request = request(self.0);
        // SAFETY: a name is plain numbers.
        for (to, from) in unsafe { &mut request.ifr_ifru.ifru_newname }
            .iter_mut()
            .zip(name.bytes())
        {
            *to = from as libc::c_char;
        }
        control(libc::SIOCSIFNAME as u32, &mut request, "name");
        Tap(name)
    }

    /// Gives it the alternative name `alt0`, as `ip link property add`. Needs Linux 5.5.
    pub fn add_alternative_name(&self) -> io::Result<()> {
        const RTM_NEWLINKPROP: u16 = 108;
        const IFLA_PROP_LIST: u32 = 52 | 1 << 15;
        const IFLA_ALT_IFNAME: u32 = 53;
        // A list of 16 bytes with one string of 9 bytes, including its NUL and its header.
        let list = [
            16 | IFLA_PROP_LIST << 16,
            9 | IFLA_ALT_IFNAME << 16,
            u32::from_ne_bytes(*b"alt0"),
            0,
        ];
        change_link(
            RTM_NEWLINKPROP,
            libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_APPEND,
            index(self.0),
            &list,
        )
    }

    /// Sets its MTU.
    pub fn set_mtu(&self, mtu: u16) {
        let mut request = request(self.0);
        request.ifr_ifru.ifru_mtu = mtu.into();
        control(libc::SIOCSIFMTU as u32, &mut request, "mtu");
    }

    /// Removes it, as `ip link del`, even while a process is attached.
    pub fn delete(self) {
        change_link(libc::RTM_DELLINK, 0, index(self.0), &[])
            .unwrap_or_else(|error| panic!("{} cannot be deleted: {error}", self.0));
    }
}

fn tap_option(file: &File, option: u32, value: libc::c_ulong) {
    // SAFETY: this request takes a number.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), option as _, value) };
    assert!(result == 0, "{}", host_error("tap option"));
}

fn socket(domain: i32, kind: i32, protocol: i32) -> OwnedFd {
    // SAFETY: socket takes numbers.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    assert!(fd >= 0, "{}", host_error("socket"));
    // SAFETY: it is new and has no other owner.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A socket for the frames of one EtherType on the interface `name`.
pub fn packet_socket(name: &str, ethertype: u16) -> OwnedFd {
    // Without an EtherType at first: the socket would receive from all interfaces until it is
    // bound.
    let socket = socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
    // SAFETY: a packet socket's address is plain numbers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index(name) as libc::c_int;
    let size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads the address, whose length is correct.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    assert!(result == 0, "{}", host_error(name));
    socket
}

fn index(name: &str) -> u32 {
    let string = CString::new(name).unwrap();
    // SAFETY: the name ends with a NUL.
    let index = unsafe { libc::if_nametoindex(string.as_ptr()) };
    assert!(index != 0, "{}", host_error(name));
    index
}

/// Brings an interface up or down.
fn set_up(name: &str, up: bool) {
    let mut request = request(name);
    control(libc::SIOCGIFFLAGS as u32, &mut request, "flags");
    // SAFETY: the kernel has just filled in the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let bit = libc::IFF_UP as libc::c_short;
    request.ifr_ifru.ifru_flags = if up { flags | bit } else { flags & !bit };
    control(libc::SIOCSIFFLAGS as u32, &mut request, "flags");
}

/// Makes a bridge that is up and contains these taps.
///
/// # Errors
/// This kernel has no bridges.
pub fn bridge(name: &str, taps: &[&Tap]) -> Result<(), String> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
    let string = CString::new(name).unwrap();
    // SAFETY: the request takes a string that ends with a NUL.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCBRADDBR as _, string.as_ptr()) };
    if result != 0 {
        return Err(host_error("no bridge"));
    }
    for tap in taps {
        let mut request = request(name);
        request.ifr_ifru.ifru_ifindex = index(tap.name()) as libc::c_int;
        control(SIOCBRADDIF, &mut request, "a port");
    }
    set_up(name, true);
    Ok(())
}

/// Brings up the loopback interface, which is down in a new network namespace.
pub fn bring_up_loopback() {
    set_up("lo", true);
}

fn control(command: u32, request: &mut libc::ifreq, what: &str) {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
    // SAFETY: the kernel reads and writes the request, which is alive.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), command as _, &raw mut *request) };
    assert!(result == 0, "{}", host_error(what));
}

/// Sends a request about one interface: a netlink header of 16 bytes, an `ifinfomsg` of 16, and
/// `attributes`. Returns the error of the answer.
fn change_link(request: u16, flags: libc::c_int, index: u32, attributes: &[u32]) -> io::Result<()> {
    let socket = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE);
    let flags = (flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u32;
    let length = 32 + size_of_val(attributes) as u32;
    let message = [
        &[
            length,
            u32::from(request) | flags << 16,
            1,
            0,
            0,
            index,
            0,
            0,
        ],
        attributes,
    ]
    .concat();
    let mut answer = [0u32; 64];
    // SAFETY: both buffers are alive, and their lengths are correct.
    unsafe {
        if libc::send(
            socket.as_raw_fd(),
            message.as_ptr().cast(),
            length as usize,
            0,
        ) < 0
            || libc::recv(
                socket.as_raw_fd(),
                answer.as_mut_ptr().cast(),
                size_of_val(&answer),
                0,
            ) < 20
        {
            return Err(io::Error::last_os_error());
        }
    }
    match answer[4] as i32 {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}
