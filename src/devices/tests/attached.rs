//! Attached devices: their properties in the manifest, and their handles.

use std::fs::{self, File};
use std::os::fd::{IntoRawFd, RawFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use guest_abi::manifest::MAX_ENTRIES;
use rustix::fs::{FlockOperation, flock};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tempfile::TempDir;

use super::*;
use crate::config::{BlockOption, NetOption, NetSource};
use crate::guest::era::Era;
use crate::guest::hypercall::Buffer;
use crate::memory::{Access, GuestAddress, Mapping};
use crate::report::message::Message;

/// A frame of valid length.
pub const FRAME: &[u8; 20] = b"to   from ty payload";

/// Address of the frame in guest memory.
pub const SENT: u64 = 0x1000;
/// Address of the guest's receive buffer.
pub const RECEIVED: u64 = 0x2000;
/// A page that the guest may not write.
pub const TEXT: u64 = 0x8000;

pub fn memory() -> GuestMemory {
    let mut memory = GuestMemory::new(0x20_0000).expect("2 MiB");
    memory.protect(vec![Mapping {
        range: TEXT..TEXT + 0x1000,
        access: Access::ReadExecute,
    }]);
    memory.place(GuestAddress(SENT), FRAME).expect("memory");
    memory
}

/// Two connected sockets: the descriptor number of one, as a process inherits it, and the other,
/// non-blocking.
pub fn wire(kind: SocketType) -> (RawFd, UnixDatagram) {
    let pair = socketpair(AddressFamily::UNIX, kind, SocketFlags::empty(), None);
    let (near, far) = pair.expect("two sockets");
    let far = UnixDatagram::from(far);
    far.set_nonblocking(true).expect("a socket");
    (near.into_raw_fd(), far)
}

/// Returns devices on these descriptors, the first with handle 1.
pub fn nets(descriptors: &[RawFd]) -> Devices {
    let names: Vec<String> = (1..=descriptors.len())
        .map(|number| format!("net{number}"))
        .collect();
    let manifest = manifest(&names.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    let option = |(name, &fd): (&String, &RawFd)| NetOption {
        name: Some(name.clone()),
        source: Some(NetSource::Fd(fd.into())),
        ..NetOption::default()
    };
    let options: Vec<NetOption> = names.iter().zip(descriptors).map(option).collect();
    let plan = Plan::new(&manifest, &options, &[]).expect("a plan");
    Devices::attach(plan, &mut Files::default(), Era::Abi2.rules()).expect("sockets")
}

/// A POLL that must succeed.
pub fn poll(devices: &mut Devices, timeout: u64) -> u64 {
    devices.poll(timeout).expect("a way to wait")
}

pub fn net_request(handle: u64, addr: u64, len: u64) -> NetRequest {
    NetRequest {
        handle,
        buffer: Buffer {
            addr: GuestAddress(addr),
            len,
        },
    }
}

fn block_request(handle: u64, offset: u64, addr: u64, len: u64) -> BlockRequest {
    BlockRequest {
        handle,
        offset,
        buffer: Buffer {
            addr: GuestAddress(addr),
            len,
        },
    }
}

fn contents(memory: &GuestMemory, addr: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory
        .bytes(GuestAddress(addr), len as u64)
        .expect("memory")
        .copy_to(&mut bytes);
    bytes
}

/// An image of 2 KiB in a new directory.
fn image() -> (TempDir, PathBuf) {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("disk.img");
    fs::write(&path, [b'.'; 2048]).expect("room for it");
    (directory, path)
}

/// A network device with handle 1, its peer, and a disk with handle 2, with the manifest after the
/// attachment.
fn one_of_each(path: &Path) -> (Devices, UnixDatagram, Manifest) {
    let (near, far) = wire(SocketType::DGRAM);
    let manifest = manifest(&["service"], &["data"]);
    let option = NetOption {
        mac: Some([2, 3, 4, 5, 6, 7]),
        ..net(None, NetSource::Fd(near.into()))
    };
    let disk = BlockOption {
        sector_size: Some(1024),
        ..block(None, path)
    };
    let plan = Plan::new(&manifest, &[option], &[disk]).expect("a plan");
    let devices = Devices::attach(plan, &mut Files::default(), Era::Abi2.rules()).expect("devices");
    (devices, far, manifest)
}

fn refused(manifest: Manifest, nets: &[NetOption], blocks: &[BlockOption]) -> Error {
    let plan = Plan::new(&manifest, nets, blocks).expect("a plan");
    Devices::attach(plan, &mut Files::default(), Era::Abi2.rules()).expect_err("no devices")
}

#[test]
fn the_manifest_has_the_attached_properties() {
    let (_directory, path) = image();
    let (devices, _far, manifest) = one_of_each(&path);
    let bytes = manifest.to_bytes(devices.properties());
    let (service, data) = (&bytes[8 + 104..][..104], &bytes[8 + 208..][..104]);
    // Address and MTU; capacity and sector size; both attached, without any host data.
    assert_eq!(
        service[72..88],
        [2, 3, 4, 5, 6, 7, 0xdc, 0x05, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(
        data[72..88],
        [0, 8, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0]
    );
    for entry in [service, data] {
        assert_eq!(
            entry[88..],
            [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
        );
    }
}

#[test]
fn a_default_address_is_random_and_local() {
    let manifest = manifest(&["service"], &[]);
    let (near, _far) = wire(SocketType::DGRAM);
    let plan = Plan::new(&manifest, &[net(None, NetSource::Fd(near.into()))], &[]).expect("a plan");
    let devices =
        Devices::attach(plan, &mut Files::default(), Era::Abi2.rules()).expect("a socket");
    let mac = &manifest.to_bytes(devices.properties())[8 + 104 + 72..][..6];
    assert_eq!(mac[0] & 3, 2, "{mac:x?}");
}

#[test]
fn attachment_errors_name_the_device() {
    let (directory, path) = image();
    let missing = directory.path().join("missing.img");
    let error = refused(manifest(&[], &["data"]), &[], &[block(None, &missing)]);
    assert!(
        matches!(&error, Error::Block { name, .. } if name == "data"),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .starts_with("device 'data': there is no file '"),
        "{error}"
    );

    let error = refused(
        manifest(&["service"], &[]),
        &[net(None, tap("no-such-tap"))],
        &[],
    );
    assert!(
        matches!(&error, Error::Net { name, .. } if name == "service"),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .starts_with("device 'service': there is no interface 'no-such-tap'"),
        "{error}"
    );

    let odd = BlockOption {
        sector_size: Some(4096),
        ..block(None, &path)
    };
    let error = refused(manifest(&[], &["data"]), &[], &[odd]);
    assert!(
        error
            .to_string()
            .contains("has 2048 bytes, not a multiple of its sectors of 4096"),
        "{error}"
    );
}

#[test]
fn one_socket_does_not_serve_two_devices() {
    let (near, _far) = wire(SocketType::DGRAM);
    // SAFETY: the call duplicates an open descriptor.
    let copy = unsafe { libc::dup(near) };
    let options = [
        net("lan", NetSource::Fd(near.into())),
        net("wan", NetSource::Fd(copy.into())),
    ];
    let error = refused(manifest(&["lan", "wan"], &[]), &options, &[]);
    assert!(
        matches!(&error, Error::Shared { name } if name == "wan"),
        "{error:?}"
    );
}

#[test]
fn one_image_does_not_serve_two_devices() {
    let (directory, path) = image();
    let (link, hard) = (
        directory.path().join("link.img"),
        directory.path().join("hard.img"),
    );
    symlink(&path, &link).expect("a link");
    std::fs::hard_link(&path, &hard).expect("a hard link");
    for other in [&hard, &link] {
        let error = refused(
            manifest(&[], &["a", "b"]),
            &[],
            &[block("a", &path), block("b", other)],
        );
        assert!(
            matches!(&error, Error::Block { name, .. } if name == "b"),
            "{error:?}"
        );
        assert!(
            Message::of(&error)
                .to_string()
                .contains("give each its own image"),
            "{error}"
        );
    }
}

#[test]
fn frames_go_to_and_come_from_the_device_of_the_handle() {
    let wires = [wire(SocketType::DGRAM), wire(SocketType::DGRAM)];
    let mut devices = nets(&[wires[0].0, wires[1].0]);
    let memory = memory();
    let mut frame = [0; 64];
    for (handle, this, other) in [(1, 0, 1), (2, 1, 0)] {
        let reply = devices
            .net_write(&memory, net_request(handle, SENT, 20))
            .expect("memory");
        assert_eq!(reply, Reply::Net(Status::Ok));
        assert_eq!(wires[this].1.recv(&mut frame).expect("a frame"), 20);
        assert_eq!(&frame[..20], FRAME);
        assert!(wires[other].1.recv(&mut frame).is_err());

        wires[this]
            .1
            .send(b"an answer of the network")
            .expect("room");
        let silent = net_request(3 - handle, RECEIVED, 100);
        assert_eq!(
            devices.net_read(&memory, silent).expect("memory"),
            Reply::Net(Status::Again)
        );
        let asked = net_request(handle, RECEIVED, 100);
        assert_eq!(
            devices.net_read(&memory, asked).expect("memory"),
            Reply::Frame(24)
        );
        assert_eq!(
            contents(&memory, RECEIVED, 25),
            b"an answer of the network\0"
        );
        memory
            .place(GuestAddress(RECEIVED), &[0; 24])
            .expect("memory");
    }
}

#[test]
fn blocks_go_to_and_come_from_their_offset() {
    let (_directory, path) = image();
    let (mut devices, _far, _manifest) = one_of_each(&path);
    let memory = memory();
    assert_eq!(
        devices
            .block_write(&memory, block_request(2, 1024, SENT, 20))
            .expect("memory"),
        Reply::Block(Status::Ok)
    );
    devices.finish(None);
    let file = fs::read(&path).expect("the image");
    assert_eq!(
        (file.len(), &file[1023..1045]),
        (2048, b".to   from ty payload.".as_slice())
    );
    assert_eq!(
        devices
            .block_read(&memory, block_request(2, 1022, RECEIVED, 4))
            .expect("memory"),
        Reply::Block(Status::Ok)
    );
    assert_eq!(contents(&memory, RECEIVED, 5), b"..to\0");
    for (offset, len) in [
        (2048, 1),
        (2048, 0),
        (2047, 2),
        (u64::MAX, 1),
        (1, u64::MAX),
    ] {
        let request = block_request(2, offset, RECEIVED, len);
        assert_eq!(
            devices.block_read(&memory, request).expect("no access"),
            Reply::Block(Status::Invalid),
            "{offset}"
        );
        assert_eq!(
            devices.block_write(&memory, request).expect("no access"),
            Reply::Block(Status::Invalid),
            "{offset}"
        );
    }
}

#[test]
fn handles_that_are_unknown_or_of_another_kind_are_refused() {
    let (_directory, path) = image();
    let (mut devices, far, _manifest) = one_of_each(&path);
    far.send(FRAME).expect("room");
    let memory = memory();
    let is_missing =
        |result, kind| matches!(result, Err(Fault::NoDevice(missing)) if missing == kind);
    for handle in [0, 2, 3, 63, 64, 1 << 32 | 1, u64::MAX] {
        let request = net_request(handle, RECEIVED, 20);
        assert!(
            is_missing(devices.net_write(&memory, request), Kind::Net),
            "{handle}"
        );
        assert!(
            is_missing(devices.net_read(&memory, request), Kind::Net),
            "{handle}"
        );
    }
    for handle in [0, 1, 3, 63, 64, 1 << 32 | 2, u64::MAX] {
        let request = block_request(handle, 0, RECEIVED, 512);
        assert!(
            is_missing(devices.block_write(&memory, request), Kind::Block),
            "{handle}"
        );
        assert!(
            is_missing(devices.block_read(&memory, request), Kind::Block),
            "{handle}"
        );
    }
    // None of these calls sent, received or wrote anything.
    assert!(far.recv(&mut [0; 64]).is_err());
    assert_eq!(contents(&memory, RECEIVED, 20), [0; 20]);
    assert_eq!(fs::read(&path).expect("the image"), [b'.'; 2048]);
    assert_eq!(poll(&mut devices, 0), 1 << 1);
}

#[test]
fn buffers_outside_of_memory_end_the_run() {
    let (_directory, path) = image();
    let (mut devices, far, _manifest) = one_of_each(&path);
    far.send(FRAME).expect("room");
    let memory = memory();
    for (addr, len) in [(0x1f_fff0, 20), (u64::MAX, 20), (SENT, u64::MAX)] {
        assert!(matches!(
            devices.net_write(&memory, net_request(1, addr, len)),
            Err(Fault::Memory(memory::RangeError::OutOfRange { .. }))
        ));
        assert!(matches!(
            devices.net_read(&memory, net_request(1, addr, len)),
            Err(Fault::Memory(memory::RangeError::OutOfRange { .. }))
        ));
    }
    assert!(matches!(
        devices.net_read(&memory, net_request(1, TEXT, 20)),
        Err(Fault::Memory(memory::RangeError::ReadOnly { .. }))
    ));
    assert_eq!(
        devices
            .net_write(&memory, net_request(1, TEXT, 20))
            .expect("memory"),
        Reply::Net(Status::Ok)
    );
    let outside = block_request(2, 0, 0x1f_fff0, 512);
    assert!(matches!(
        devices.block_write(&memory, outside),
        Err(Fault::Memory(memory::RangeError::OutOfRange { .. }))
    ));
    assert!(matches!(
        devices.block_read(&memory, outside),
        Err(Fault::Memory(memory::RangeError::OutOfRange { .. }))
    ));
    let text = block_request(2, 0, TEXT, 512);
    assert!(matches!(
        devices.block_read(&memory, text),
        Err(Fault::Memory(memory::RangeError::ReadOnly { .. }))
    ));
    // The frame that could not be delivered is still queued.
    assert_eq!(
        devices
            .net_read(&memory, net_request(1, RECEIVED, 20))
            .expect("memory"),
        Reply::Frame(20)
    );
}

#[test]
fn the_largest_manifest_can_be_attached() {
    let wires: Vec<_> = (1..MAX_ENTRIES).map(|_| wire(SocketType::DGRAM)).collect();
    let mut devices = nets(&wires.iter().map(|(near, _)| *near).collect::<Vec<_>>());
    let memory = memory();
    let last = net_request(63, SENT, 20);
    assert_eq!(
        devices.net_write(&memory, last).expect("memory"),
        Reply::Net(Status::Ok)
    );
    assert_eq!(wires[62].1.recv(&mut [0; 64]).expect("a frame"), 20);
    for (_, far) in &wires {
        far.send(FRAME).expect("room");
    }
    assert_eq!(poll(&mut devices, 0), !1);
}

#[test]
fn an_image_is_free_again_when_its_devices_are_gone() {
    let (_directory, path) = image();
    drop(one_of_each(&path));
    let file = File::open(&path).expect("the image");
    flock(&file, FlockOperation::NonBlockingLockExclusive).expect("no lock");
}
