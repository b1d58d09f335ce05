//! Sends every UDP datagram on port 7 back to its sender.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;

use tender_guest::network::Network;
use tender_guest::smoltcp::iface::SocketSet;
use tender_guest::smoltcp::socket::udp::{PacketBuffer, PacketMetadata, Socket};
use tender_guest::{Boot, guest, net, println};

guest!(main, [net("service")]);

fn main(boot: Boot) -> u8 {
    let mut network = Network::new(&boot, "service");
    let mut sockets = SocketSet::new(vec![]);
    let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; 16], vec![0; 16 << 10]);
    let echo = sockets.add(Socket::new(buffer(), buffer()));
    sockets
        .get_mut::<Socket>(echo)
        .bind(7)
        .expect("port 7 is free");

    let mut datagram = [0; 1500];
    loop {
        network.wait(&mut sockets);
        let socket = sockets.get_mut::<Socket>(echo);
        while let Ok((length, sender)) = socket.recv_slice(&mut datagram) {
            println!("{length} bytes from {sender}");
            let _ = socket.send_slice(&datagram[..length], sender);
        }
    }
}
