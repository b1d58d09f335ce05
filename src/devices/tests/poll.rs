//! POLL: which devices it reports, when it returns, and how it handles disconnected peers.

use std::net::{Shutdown, UdpSocket};
use std::os::fd::IntoRawFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::FdFlags;
use rustix::net::SocketType;

use super::attached::{FRAME, RECEIVED, SENT, memory, net_request, nets, poll, wire};
use super::*;

const MILLISECOND: u64 = 1_000_000;
/// Ten seconds: longer than any successful test takes.
const LONG: u64 = 10_000 * MILLISECOND;
/// A sleep that ends before this has begun was too short.
const SLEEP: u64 = 20 * MILLISECOND;

/// Returns what POLL reports, and whether it slept for `SLEEP`.
fn sleep(devices: &mut Devices) -> (u64, bool) {
    let start = Instant::now();
    let ready = poll(devices, SLEEP);
    (ready, start.elapsed() >= Duration::from_nanos(SLEEP))
}

fn read(devices: &mut Devices, handle: u64) -> Reply {
    devices
        .net_read(&memory(), net_request(handle, RECEIVED, 100))
        .expect("memory")
}

#[test]
fn without_devices_a_poll_is_a_sleep() {
    let mut devices = nets(&[]);
    assert_eq!(poll(&mut devices, 0), 0);
    assert_eq!(sleep(&mut devices), (0, true));
}

#[test]
fn without_frames_a_poll_is_a_sleep() {
    let (near, _far) = wire(SocketType::DGRAM);
    let mut devices = nets(&[near]);
    assert_eq!(poll(&mut devices, 0), 0);
    assert_eq!(sleep(&mut devices), (0, true));
}

#[test]
fn a_frame_is_reported_until_it_is_read() {
    let (near, far) = wire(SocketType::DGRAM);
    let mut devices = nets(&[near]);
    far.send(FRAME).expect("room");
    far.send(FRAME).expect("room");
    for _ in 0..2 {
        assert_eq!(
            (poll(&mut devices, 0), poll(&mut devices, LONG)),
            (0b10, 0b10)
        );
        assert_eq!(read(&mut devices, 1), Reply::Frame(20));
    }
    assert_eq!(poll(&mut devices, 0), 0);
}

#[test]
fn any_timeout_is_accepted() {
    let (near, far) = wire(SocketType::DGRAM);
    let mut devices = nets(&[near]);
    far.send(FRAME).expect("room");
    for timeout in [0, 1, 999_999_999, 1_000_000_000, u64::MAX / 2, u64::MAX] {
        assert_eq!(poll(&mut devices, timeout), 0b10, "{timeout}");
    }
}

#[test]
fn every_device_with_a_frame_is_reported() {
    let wires = [(); 4].map(|()| wire(SocketType::DGRAM));
    let mut devices = nets(&[wires[0].0, wires[1].0, wires[2].0, wires[3].0]);
    wires[1].1.send(FRAME).expect("room");
    wires[3].1.send(FRAME).expect("room");
    assert_eq!(poll(&mut devices, LONG), 0b1_0100);
    assert_eq!(read(&mut devices, 2), Reply::Frame(20));
    assert_eq!(poll(&mut devices, LONG), 0b1_0000);
    wires[0].1.send(FRAME).expect("room");
    assert_eq!(poll(&mut devices, LONG), 0b1_0010);
}

#[test]
fn a_frame_ends_the_sleep() {
    let wires = [wire(SocketType::DGRAM), wire(SocketType::DGRAM)];
    let mut devices = nets(&[wires[0].0, wires[1].0]);
    let far = wires[1].1.try_clone().expect("a socket");
    let start = Instant::now();
    let sender = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        far.send(FRAME).expect("room");
    });
    assert_eq!(poll(&mut devices, LONG), 0b100);
    assert!(start.elapsed() >= Duration::from_millis(20));
    sender.join().expect("no panic");
}

#[test]
fn frames_of_a_disconnected_peer_are_delivered_and_its_end_is_not_reported() {
    let wires = [wire(SocketType::SEQPACKET), wire(SocketType::DGRAM)];
    let [(cut, far), (other, other_far)] = wires;
    let mut devices = nets(&[cut, other]);
    far.send(FRAME).expect("room");
    drop(far);
    assert_eq!(poll(&mut devices, LONG), 0b10);
    assert_eq!(read(&mut devices, 1), Reply::Frame(20));
    // The end is read too; until then the device is reported.
    assert_eq!(poll(&mut devices, LONG), 0b10);
    assert_eq!(read(&mut devices, 1), Reply::Net(Status::Again));
    poll(&mut devices, 0);
    assert_eq!(sleep(&mut devices), (0, true));
    // Other devices are unaffected.
    other_far.send(FRAME).expect("room");
    assert_eq!(poll(&mut devices, LONG), 0b100);
    assert_eq!(read(&mut devices, 2), Reply::Frame(20));
    assert_eq!(sleep(&mut devices), (0, true));
}

/// `poll(2)` reports such a peer only as readable.
#[test]
fn a_peer_that_shuts_down_is_not_reported() {
    let (near, far) = wire(SocketType::SEQPACKET);
    let mut devices = nets(&[near]);
    far.shutdown(Shutdown::Write).expect("a connected socket");
    assert_eq!(poll(&mut devices, LONG), 0b10);
    assert_eq!(read(&mut devices, 1), Reply::Net(Status::Again));
    poll(&mut devices, 0);
    assert_eq!(sleep(&mut devices), (0, true));
}

#[test]
fn a_disconnect_found_by_a_write_is_not_reported() {
    let (near, far) = wire(SocketType::SEQPACKET);
    let mut devices = nets(&[near]);
    drop(far);
    let sent = devices
        .net_write(&memory(), net_request(1, SENT, 20))
        .expect("memory");
    assert_eq!(sent, Reply::Net(Status::Ok));
    poll(&mut devices, 0);
    assert_eq!(sleep(&mut devices), (0, true));
}

#[test]
fn a_transient_error_does_not_remove_the_device() {
    // A frame to a closed port: its sender gets an error, which it reads.
    let far = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let near = UdpSocket::bind("127.0.0.1:0").expect("a port");
    near.connect(far.local_addr().expect("its name"))
        .expect("a route");
    drop(far);
    rustix::io::fcntl_setfd(&near, FdFlags::empty()).expect("an open descriptor");
    let mut devices = nets(&[near.into_raw_fd()]);
    // Repeated: a peer that listens there later receives frames.
    for _ in 0..3 {
        let sent = devices
            .net_write(&memory(), net_request(1, SENT, 20))
            .expect("memory");
        assert_eq!(sent, Reply::Net(Status::Ok));
        assert_eq!(poll(&mut devices, LONG), 0b10);
        assert_eq!(read(&mut devices, 1), Reply::Net(Status::Again));
        assert_eq!(sleep(&mut devices), (0, true));
    }
}
