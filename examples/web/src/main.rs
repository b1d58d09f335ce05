//! Serves a page on port 8080.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use core::fmt::Write;

use tender_guest::network::Network;
use tender_guest::smoltcp::iface::SocketSet;
use tender_guest::smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use tender_guest::{Boot, guest, net, println};

const PAGE: &str = "<!DOCTYPE html><title>Unikernel</title><h1>Hello from a unikernel</h1>\n";

guest!(main, [net("service")]);

fn main(boot: Boot) -> u8 {
    let mut network = Network::new(&boot, "service");
    let mut sockets = SocketSet::new(vec![]);
    let buffer = || SocketBuffer::new(vec![0; 4096]);
    // As many visitors can be served at the same time.
    let servers = [(); 4].map(|()| sockets.add(Socket::new(buffer(), buffer())));
    println!("listening on port 8080");
    loop {
        for server in servers {
            serve(sockets.get_mut::<Socket>(server));
        }
        network.wait(&mut sockets);
    }
}

/// Waits for a visitor, then for the end of the request, and sends the page.
fn serve(socket: &mut Socket) {
    match socket.state() {
        State::Closed | State::TimeWait => {
            socket.abort();
            let _ = socket.listen(8080);
        }
        State::Established if is_complete(socket) => {
            let _ = write!(
                socket,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{PAGE}",
                PAGE.len()
            );
            socket.close();
            println!("sent the page");
        }
        State::CloseWait => socket.close(),
        _ => {}
    }
}

/// Whether the head of a request has arrived, or as much as there is room for.
fn is_complete(socket: &mut Socket) -> bool {
    let full = socket.recv_queue() == socket.recv_capacity();
    let queue = socket.recv_queue();
    let request = socket.peek(queue).unwrap_or_default();
    full || request.windows(4).any(|end| end == b"\r\n\r\n")
}
