//! A TCP/IP network by smoltcp (feature `smoltcp`).
//!
//! ```
//! # #[cfg(feature = "alloc")]
//! # fn example(boot: tender_guest::Boot) -> ! {
//! # extern crate alloc;
//! use alloc::vec;
//! use tender_guest::network::Network;
//! use tender_guest::smoltcp::iface::SocketSet;
//! use tender_guest::smoltcp::socket::tcp;
//!
//! let mut network = Network::new(&boot, "service");
//! let mut sockets = SocketSet::new(vec![]);
//! let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
//! let server = sockets.add(tcp::Socket::new(buffer(), buffer()));
//! loop {
//!     let socket = sockets.get_mut::<tcp::Socket>(server);
//!     if !socket.is_open() {
//!         let _ = socket.listen(80);
//!     }
//!     // Serve the socket here.
//!     network.wait(&mut sockets);
//! }
//! # }
//! ```

use core::net::Ipv4Addr;

use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpCidr};

use crate::{Boot, Clock, NetDevice, calls, counter, wire};

/// Longest sleep of [`Network::wait`]. A program with nothing to do sleeps again.
const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 60 * 60);

/// An interface with an IPv4 address on a network device, and the clock of its timers.
pub struct Network {
    interface: Interface,
    tap: Tap,
    clock: Clock,
}

impl Network {
    /// The network on the device `name`, with the address of the argument `--ipv4=A.B.C.D/N` and the gateway of
    /// `--ipv4-gateway=A.B.C.D`, as in MirageOS. Announces the address. Without a valid `--ipv4`, prints
    /// what is needed and ends the program with status 1.
    ///
    /// # Panics
    /// If the program does not declare the device, or `--ipv4-gateway` has another form.
    #[cfg(feature = "alloc")]
    pub fn new(boot: &Boot, name: &str) -> Network {
        Network::on(boot, Tap::new(boot.net(name)))
    }

    /// The same, on a device that is in use already.
    ///
    /// # Panics
    /// If `--ipv4-gateway` has another form.
    pub fn on(boot: &Boot, mut tap: Tap) -> Network {
        let clock = boot.clock();
        let (address, prefix) = boot.ipv4("--ipv4");
        let mut config = Config::new(EthernetAddress(tap.device.mac).into());
        config.random_seed = calls::walltime() ^ counter().rotate_left(32);
        let mut interface = Interface::new(config, &mut tap, now(&clock));
        interface.update_ip_addrs(|list| {
            // The list is empty and has room for more than one.
            let _ = list.push(IpCidr::new(address.into(), prefix));
        });
        if let Some(gateway) = boot.option("--ipv4-gateway") {
            let Ok(gateway) = gateway.parse::<Ipv4Addr>() else {
                panic!("--ipv4-gateway={gateway} is not of the form A.B.C.D")
            };
            // The table of routes is empty and has room for more than one.
            let _ = interface.routes_mut().add_default_ipv4_route(gateway);
        }
        wire::announce(&tap.device, address);
        Network {
            interface,
            tap,
            clock,
        }
    }

    /// smoltcp's interface, for addresses and routes.
    pub fn interface(&mut self) -> &mut Interface {
        &mut self.interface
    }

    /// The time of the sockets' timers, since the start of this network.
    pub fn now(&self) -> Instant {
        now(&self.clock)
    }

    /// Sends what the sockets have queued and passes received frames to them, until something has happened to a socket.
    pub fn wait(&mut self, sockets: &mut SocketSet<'_>) {
        while self.poll(sockets) == PollResult::None {
            self.sleep(sockets, LONGEST_SLEEP);
        }
    }

    /// The same, without sleeping: for programs with other work.
    pub fn poll(&mut self, sockets: &mut SocketSet<'_>) -> PollResult {
        let now = self.now();
        self.interface.poll(now, &mut self.tap, sockets)
    }

    /// Sleeps until a frame arrives, a timer of a socket expires or `longest` is over.
    pub fn sleep(&mut self, sockets: &SocketSet<'_>, longest: Duration) {
        let timer = self.interface.poll_delay(self.now(), sockets);
        let delay = timer.unwrap_or(longest).min(longest);
        let ready = calls::poll(delay.total_micros().saturating_mul(1000));
        self.tap.waiting = self.tap.device.is_ready(ready);
    }
}

fn now(clock: &Clock) -> Instant {
    Instant::from_micros((clock.nanoseconds() / 1000) as i64)
}

/// A network device as a device of smoltcp, with a buffer for each direction.
pub struct Tap {
    device: NetDevice,
    receive: &'static mut [u8],
    send: &'static mut [u8],
    /// Whether a frame may be waiting. Saves a hypercall when POLL has just reported none.
    waiting: bool,
}

impl Tap {
    /// With buffers from the heap, which are never freed.
    #[cfg(feature = "alloc")]
    pub fn new(device: NetDevice) -> Tap {
        extern crate alloc;
        let [receive, send] = [(); 2].map(|()| alloc::vec![0; device.frame_size()].leak());
        Tap::with_buffers(device, receive, send)
    }

    /// With buffers of [`NetDevice::frame_size`] bytes.
    ///
    /// # Panics
    /// If one is shorter.
    pub fn with_buffers(
        device: NetDevice,
        receive: &'static mut [u8],
        send: &'static mut [u8],
    ) -> Tap {
        let size = device.frame_size();
        assert!(
            receive.len() >= size && send.len() >= size,
            "a buffer is too short for a frame"
        );
        Tap {
            device,
            receive,
            send,
            waiting: true,
        }
    }
}

impl Device for Tap {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Slot<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Slot<'_>)> {
        if !self.waiting {
            return None;
        }
        match self.device.read(self.receive) {
            Ok(length) => Some((
                Received(&self.receive[..length]),
                Slot {
                    device: self.device,
                    buffer: self.send,
                },
            )),
            Err(_) => {
                self.waiting = false;
                None
            }
        }
    }

    fn transmit(&mut self, _: Instant) -> Option<Slot<'_>> {
        Some(Slot {
            device: self.device,
            buffer: self.send,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.device.frame_size();
        capabilities
    }
}

/// A received frame.
pub struct Received<'a>(&'a [u8]);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a frame to be sent.
pub struct Slot<'a> {
    device: NetDevice,
    buffer: &'a mut [u8],
}

impl phy::TxToken for Slot<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let frame = &mut self.buffer[..length];
        let result = f(frame);
        // A lost frame is one that the network could have lost.
        let _ = self.device.write(frame);
        result
    }
}
