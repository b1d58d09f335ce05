use std::io::ErrorKind;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;
use crate::config::NetSource;
use crate::report::message::Message;

const MEMORY_SIZE: u64 = 0x10000;
const FRAME: [u8; 60] = {
    let mut frame = [0x55; 60];
    frame[0] = 2;
    frame[59] = 0xaa;
    frame
};

fn memory() -> GuestMemory {
    let memory = GuestMemory::new(MEMORY_SIZE).unwrap();
    memory.place(GuestAddress(0x1000), &FRAME).unwrap();
    memory
}

fn contents(memory: &GuestMemory, addr: u64, len: u64) -> Vec<u8> {
    let mut copy = vec![0; len as usize];
    assert_eq!(
        memory
            .bytes(GuestAddress(addr), len)
            .unwrap()
            .copy_to(&mut copy),
        copy.len()
    );
    copy
}

/// Returns two connected sockets, as a process inherits them.
fn sockets(kind: SocketType) -> (RawFd, UnixDatagram) {
    let (near, far) = socketpair(AddressFamily::UNIX, kind, SocketFlags::empty(), None).unwrap();
    (near.into_raw_fd(), far.into())
}

/// A device and its peer.
fn pair(kind: SocketType) -> (Nic, UnixDatagram) {
    let (fd, far) = sockets(kind);
    far.set_nonblocking(true).unwrap();
    (Nic::attach(&NetSource::Fd(fd.into()), None).unwrap(), far)
}

fn refused(fd: RawFd) -> String {
    Nic::attach(&NetSource::Fd(fd.into()), None)
        .map_err(Message::from)
        .unwrap_err()
        .to_string()
}

/// Makes a test's own descriptor look inherited.
fn passed(fd: impl Into<OwnedFd>) -> RawFd {
    let fd = fd.into();
    rustix::io::fcntl_setfd(&fd, FdFlags::empty()).unwrap();
    fd.into_raw_fd()
}

#[test]
fn frames_go_both_ways() {
    for kind in [SocketType::DGRAM, SocketType::SEQPACKET] {
        let (mut nic, far) = pair(kind);
        let memory = memory();
        assert_eq!(
            nic.write(&memory, GuestAddress(0x1000), 60).unwrap(),
            Status::Ok
        );
        let mut frame = [0; 100];
        assert_eq!(far.recv(&mut frame).unwrap(), 60);
        assert_eq!(frame[..60], FRAME);

        assert_eq!(far.send(&FRAME[..42]).unwrap(), 42);
        assert_eq!(
            nic.read(&memory, GuestAddress(0x2000), 1514).unwrap(),
            (Status::Ok, 42)
        );
        assert_eq!(contents(&memory, 0x2000, 42), FRAME[..42]);
        assert_eq!(contents(&memory, 0x202a, 2), [0, 0]);
        assert_eq!(
            nic.read(&memory, GuestAddress(0x2000), 1514).unwrap(),
            (Status::Again, 0)
        );
        let expected = Stats {
            sent_frames: 1,
            sent_bytes: 60,
            received_frames: 1,
            received_bytes: 42,
            ..Stats::default()
        };
        assert_eq!(nic.stats(), expected);
    }
}

#[test]
fn a_long_frame_is_cut_to_the_buffer() {
    let (mut nic, far) = pair(SocketType::DGRAM);
    let memory = memory();
    far.send(&FRAME).unwrap();
    assert_eq!(
        nic.read(&memory, GuestAddress(MEMORY_SIZE - 14), 14)
            .unwrap(),
        (Status::Ok, 14)
    );
    assert_eq!(contents(&memory, MEMORY_SIZE - 14, 14), FRAME[..14]);
    assert_eq!(
        nic.read(&memory, GuestAddress(0), 14).unwrap(),
        (Status::Again, 0)
    );
}

#[test]
fn frames_without_a_header_are_dropped() {
    let (mut nic, far) = pair(SocketType::DGRAM);
    let memory = memory();
    for len in [0, 1, 13] {
        assert_eq!(
            nic.write(&memory, GuestAddress(0x1000), len).unwrap(),
            Status::Ok
        );
    }
    assert_eq!(
        far.recv(&mut [0; 20]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    assert_eq!(
        nic.stats(),
        Stats {
            dropped_invalid: 3,
            ..Stats::default()
        }
    );
    assert_eq!(nic.stats().faults().sum(), 3);
}

#[test]
fn frames_that_the_host_cannot_hold_are_dropped() {
    let (mut nic, far) = pair(SocketType::DGRAM);
    let memory = GuestMemory::new(64 << 20).unwrap();
    for _ in 0..10_000 {
        assert_eq!(
            nic.write(&memory, GuestAddress(0), 1514).unwrap(),
            Status::Ok
        );
    }
    let stats = nic.stats();
    assert!(stats.sent_frames > 0 && stats.dropped_full > 0, "{stats:?}");
    assert_eq!(stats.sent_frames + stats.dropped_full, 10_000);
    assert_eq!(
        nic.write(&memory, GuestAddress(0), 64 << 20).unwrap(),
        Status::Ok
    );
    assert_eq!(nic.stats().dropped_invalid, 1);
    // With room again, the next frame is sent.
    far.recv(&mut [0; 2000]).unwrap();
    assert_eq!(
        nic.write(&memory, GuestAddress(0), 1514).unwrap(),
        Status::Ok
    );
    assert_eq!(nic.stats().sent_frames, stats.sent_frames + 1);
}

#[test]
fn a_disconnected_peer_is_not_polled() {
    for kind in [SocketType::DGRAM, SocketType::SEQPACKET] {
        let (mut nic, far) = pair(kind);
        let memory = memory();
        assert!(!nic.is_gone());
        drop(far);
        // A datagram socket is refused once, and has no peer from then on.
        let refusals = u64::from(kind == SocketType::DGRAM);
        for _ in 0..=refusals {
            assert_eq!(
                nic.write(&memory, GuestAddress(0x1000), 60).unwrap(),
                Status::Ok
            );
        }
        assert_eq!(
            nic.stats(),
            Stats {
                dropped_down: refusals,
                dropped_gone: 1,
                ..Stats::default()
            }
        );
        assert!(nic.is_gone());
        assert_eq!(
            nic.read(&memory, GuestAddress(0x1000), 60).unwrap(),
            (Status::Again, 0)
        );
    }
}

#[test]
fn a_packet_socket_that_is_closed_ends() {
    let (mut nic, far) = pair(SocketType::SEQPACKET);
    let memory = memory();
    far.send(&FRAME).unwrap();
    drop(far);
    // A read of no bytes means nothing, and the last frame is still queued.
    assert_eq!(
        nic.read(&memory, GuestAddress(0), 60).unwrap(),
        (Status::Ok, 60)
    );
    assert_eq!(
        nic.read(&memory, GuestAddress(0), 0).unwrap(),
        (Status::Again, 0)
    );
    assert!(!nic.is_gone());
    assert_eq!(
        nic.read(&memory, GuestAddress(0), 60).unwrap(),
        (Status::Again, 0)
    );
    assert!(nic.is_gone());
}

#[test]
fn a_bad_buffer_ends_the_guest() {
    let (mut nic, far) = pair(SocketType::DGRAM);
    let memory = memory();
    far.send(&FRAME).unwrap();
    for (addr, len) in [
        (MEMORY_SIZE - 59, 60),
        (MEMORY_SIZE, 60),
        (u64::MAX, 60),
        (0, u64::MAX),
        (1, u64::MAX),
    ] {
        let addr = GuestAddress(addr);
        assert!(matches!(
            nic.write(&memory, addr, len),
            Err(memory::RangeError::OutOfRange { .. })
        ));
        assert!(matches!(
            nic.read(&memory, addr, len),
            Err(memory::RangeError::OutOfRange { .. })
        ));
    }
    assert_eq!(nic.stats(), Stats::default());
    // A request that ends exactly at the end of memory is valid, and the frame was kept.
    assert_eq!(
        nic.read(&memory, GuestAddress(MEMORY_SIZE - 60), 60)
            .unwrap(),
        (Status::Ok, 60)
    );
}

#[test]
fn the_guest_gets_address_and_mtu() {
    let (fd, _far) = sockets(SocketType::DGRAM);
    let mac = [2, 0, 0, 0, 0, 1];
    let nic = Nic::attach(&NetSource::Fd(fd.into()), Some(mac)).unwrap();
    assert_eq!(
        (nic.mac(), nic.mtu(), nic.interface_name()),
        (mac, 1500, format!("@{fd}").as_str())
    );
    let (other, _far) = pair(SocketType::DGRAM);
    assert!(!nic.shares_with(&other) && nic.shares_with(&nic.try_clone().unwrap()));
}

#[test]
fn random_addresses_are_local_and_differ() {
    let macs: Vec<_> = (0..20).map(|_| attach::random_mac().unwrap()).collect();
    assert!(macs.iter().all(|mac| mac[0] & 3 == 2));
    assert!(macs.iter().any(|mac| *mac != macs[0]));
}

#[test]
fn invalid_descriptors_are_refused() {
    for fd in 0..3 {
        assert!(refused(fd).contains("is standard input, output or error; pass one from 3 on"));
    }
    assert!(refused(i32::MAX).contains("was not passed to tender"));
    assert!(refused(-1).contains("was not passed to tender"));

    let (stream, _far) = std::os::unix::net::UnixStream::pair().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    // `tender`'s own descriptors close on exec, and cannot be used.
    assert!(refused(file.as_raw_fd()).contains("was not passed to tender"));
    for fd in [passed(stream), passed(file)] {
        assert!(
            refused(fd).contains("carries no frames; pass that of a tap"),
            "{fd}"
        );
    }
}

#[test]
fn a_descriptor_serves_one_device() {
    let (fd, _far) = sockets(SocketType::DGRAM);
    let nic = Nic::attach(&NetSource::Fd(fd.into()), None).unwrap();
    assert!(refused(fd).contains("or was given twice"));
    drop(nic);
}

#[test]
fn a_missing_interface_is_not_created() {
    let refused = |name: &str| {
        Nic::attach(&NetSource::Interface(name.into()), None)
            .map_err(Message::from)
            .unwrap_err()
            .to_string()
    };
    let message = refused("tender-no-such");
    assert!(message.starts_with(&format!(
        "there is no interface 'tender-no-such'; '{}ip tuntap add tender-no-such mode tap user ",
        crate::host::ids::sudo()
    )));
    assert!(!std::path::Path::new("/sys/class/net/tender-no-such").exists());
    for name in ["", "lo\0", "sixteen-letters-", "tender%d", "../lo"] {
        assert!(
            refused(name).starts_with(&format!("there is no interface '{name}'")),
            "{name}"
        );
    }
}

#[test]
fn an_interface_of_another_kind_is_named() {
    // Every network namespace has this one.
    let message = Nic::attach(&NetSource::Interface("lo".into()), None)
        .map_err(Message::from)
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("interface 'lo' is not a tap; "),
        "{message}"
    );
}

#[test]
fn addresses_and_counters_are_formatted_for_reading() {
    assert_eq!(
        MacAddress([2, 0, 0xab, 0, 0, 1]).to_string(),
        "02:00:ab:00:00:01"
    );
    let stats = Stats {
        sent_frames: 3,
        sent_bytes: 180,
        dropped_down: 1,
        dropped_full: 1,
        received_frames: 2,
        received_bytes: 120,
        ..Stats::default()
    };
    let expected = "sent 3 frames (180 bytes), dropped 2 (1 queue full, 1 interface down), received 2 (120 bytes)";
    assert_eq!(stats.to_string(), expected);
}
