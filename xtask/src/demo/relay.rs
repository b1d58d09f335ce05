//! Connects a browser on this machine with a server inside the demo's network namespace.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::base::progress;

/// A listener on the loopback address: the server's port, or any other if that is in use. Call it
/// before entering the namespace, as a socket belongs to the namespace it was made in.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            progress::note(format_args!("port {port}: {error}; another port follows"));
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        }
        listener => listener,
    }
}

/// Forwards every connection to `server`, for as long as the process lives.
pub fn serve(listener: TcpListener, server: SocketAddr) {
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || carry(client, server));
        }
    });
}

/// A broken connection ends for the browser as without the relay.
fn carry(client: TcpStream, server: SocketAddr) {
    let Ok(server) = TcpStream::connect_timeout(&server, Duration::from_secs(10)) else {
        return;
    };
    if let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) {
        thread::spawn(move || one_way(from_client, to_server));
        one_way(server, client);
    }
}

fn one_way(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn both_directions_are_forwarded() {
        let server = listen(0).unwrap();
        let relay = listen(0).unwrap();
        let relay_address = relay.local_addr().unwrap();
        serve(relay, server.local_addr().unwrap());
        let mut client = TcpStream::connect(relay_address).unwrap();
        let (mut accepted, _) = server.accept().unwrap();
        client.write_all(b"GET").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        accepted.read_to_string(&mut heard).unwrap();
        accepted.write_all(b"200").unwrap();
        drop(accepted);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!((heard.as_str(), answer.as_str()), ("GET", "200"));
    }
}
