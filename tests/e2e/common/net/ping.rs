//! An echo request to a guest, and its reply.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::common::net::socket;

/// Sends an ICMP echo request with `payload` to `address` and waits a second for the reply that
/// carries it; up to `attempts` times.
pub fn ping(address: Ipv4Addr, payload: &[u8], attempts: u32) -> bool {
    let socket = socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP);
    // A std socket, for its timeout and its methods; a raw socket has the same calls.
    let socket = std::net::UdpSocket::from(socket);
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut packet = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1];
    packet.extend_from_slice(payload);
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut answer = [0; 2048];
    (0..attempts).any(|_| {
        // A tap without a carrier refuses the packet; the next attempt may succeed.
        let _ = socket.send_to(&packet, (address, 0));
        // The reply comes with its IPv4 header of 20 bytes.
        let Ok(length) = socket.recv(&mut answer) else {
            return false;
        };
        length == 20 + packet.len()
            && answer[20] == 0
            && answer[28..length] == *payload
            && checksum(&answer[20..length]) == 0
    })
}

/// Sends a datagram to the echo port of `address` until it comes back.
pub fn echo(address: Ipv4Addr, payload: &[u8]) {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut answer = [0; 10_000];
    for _ in 0..30 {
        // A tap that is down refuses the packet; it may be up the next time.
        let _ = socket.send_to(payload, (address, 7));
        if let Ok((length, from)) = socket.recv_from(&mut answer) {
            assert_eq!((from.ip(), from.port()), (address.into(), 7));
            if &answer[..length] == payload {
                return;
            }
        }
    }
    panic!("{address} does not answer {} bytes", payload.len());
}

/// Returns the Internet checksum; 0 over a packet that includes its checksum.
pub fn checksum(bytes: &[u8]) -> u16 {
    let args = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let sum: u32 = args.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

/// A frame to 02:00:00:00:00:02 and 10.0.0.2, port 7, without a UDP checksum.
pub fn datagram(payload: &[u8]) -> Vec<u8> {
    let mut frame = b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0".to_vec();
    let length = 28 + payload.len() as u8;
    let mut header = [
        0x45, 0, 0, length, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend_from_slice(&header);
    frame.extend_from_slice(&[0x30, 0x39, 0, 7, 0, length - 20, 0, 0]);
    frame.extend_from_slice(payload);
    frame
}
