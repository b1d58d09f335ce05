//! Devices of guests without a manifest: at most one interface and one disk, used without handles.

use std::fs;
use std::path::Path;

use rustix::net::SocketType;

use super::attached::{FRAME, RECEIVED, SENT, memory, wire};
use super::*;
use crate::config::{BlockOption, NetOption, NetSource};
use crate::guest::era::Era;
use crate::guest::hypercall::{Hypercall, Interface, Legacy};
use crate::memory::GuestAddress;
use crate::report::message::Message;
use guest_abi::legacy::{Blk, Net, number};
use zerocopy::IntoBytes;

const ARGUMENT: GuestAddress = GuestAddress(0x4000);

fn attach(nets: &[NetOption], blocks: &[BlockOption]) -> Result<Devices, Error> {
    let manifest = Manifest::unnamed(!nets.is_empty(), !blocks.is_empty());
    let plan = Plan::new(&manifest, nets, blocks)?;
    Devices::attach(plan, &mut Files::default(), Era::Legacy.rules())
}

fn disk(size: usize) -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk.img");
    fs::write(&path, vec![b'.'; size]).expect("room for it");
    (directory, path)
}

#[test]
fn missing_devices_return_an_error() {
    let mut devices = attach(&[], &[]).expect("no devices");
    assert!(matches!(
        devices.net_info(),
        Err(Fault::NoDevice(Kind::Net))
    ));
    assert!(matches!(
        devices.block_info(),
        Err(Fault::NoDevice(Kind::Block))
    ));
    assert!(matches!(devices.poll(0), Ok(0)));
}

#[test]
fn the_interface_returns_its_address_and_moves_frames() {
    let (near, far) = wire(SocketType::DGRAM);
    let option = NetOption {
        mac: Some([2, 3, 4, 5, 6, 7]),
        ..net(None, NetSource::Fd(near.into()))
    };
    let mut devices = attach(&[option], &[]).expect("a socket");
    assert_eq!(
        devices.net_info().expect("it is there"),
        Reply::NetInfo {
            mac: [2, 3, 4, 5, 6, 7]
        }
    );
    assert!(matches!(
        devices.block_info(),
        Err(Fault::NoDevice(Kind::Block))
    ));

    let memory = memory();
    let call = |number, data, len| {
        memory
            .place(
                ARGUMENT,
                Net {
                    data,
                    len,
                    ..Default::default()
                }
                .as_bytes(),
            )
            .expect("memory");
        Legacy::decode(number, &memory, ARGUMENT).expect("a hypercall")
    };
    let Hypercall::NetWrite(request) = call(number::NETWRITE, SENT, 20) else {
        panic!()
    };
    assert_eq!(
        devices.net_write(&memory, request).expect("memory"),
        Reply::Net(Status::Ok)
    );
    let mut frame = [0; 64];
    assert_eq!(far.recv(&mut frame).expect("a frame"), 20);
    far.send(FRAME).expect("room");
    assert!(matches!(devices.poll(0), Ok(1..)));
    let Hypercall::NetRead(request) = call(number::NETREAD, RECEIVED, 100) else {
        panic!()
    };
    assert_eq!(
        devices.net_read(&memory, request).expect("memory"),
        Reply::Frame(20)
    );
}

#[test]
fn the_disk_has_whole_sectors_only() {
    let (_directory, path) = disk(1300);
    let mut devices = attach(&[], &[block(None, &path)]).expect("an image");
    assert_eq!(
        devices.block_info().expect("it is there"),
        Reply::BlockInfo { capacity: 1024 }
    );
    assert!(matches!(
        devices.net_info(),
        Err(Fault::NoDevice(Kind::Net))
    ));
    let memory = memory();
    let mut read = |sector, len| {
        let argument = Blk {
            sector,
            data: RECEIVED,
            len,
            ..Default::default()
        };
        memory.place(ARGUMENT, argument.as_bytes()).expect("memory");
        let call = Legacy::decode(number::BLKREAD, &memory, ARGUMENT).expect("a hypercall");
        let Hypercall::BlockRead(request) = call else {
            panic!()
        };
        devices.block_read(&memory, request).expect("memory")
    };
    assert_eq!(read(1, 512), Reply::Block(Status::Ok));
    assert_eq!(read(0, 1024), Reply::Block(Status::Ok));
    for (sector, len) in [(2, 512), (1, 1024), (u64::MAX, 512), (1 << 55, 512)] {
        assert_eq!(
            read(sector, len),
            Reply::Block(Status::Invalid),
            "{len} bytes at sector {sector}"
        );
    }
}

#[test]
fn each_era_opens_disks_by_its_own_rule() {
    let (_directory, path) = disk(1300);
    let open = |era: Era| {
        let manifest = manifest(&[], &["data"]);
        let plan = Plan::new(&manifest, &[], &[block(None, &path)]).expect("a plan");
        Devices::attach(plan, &mut Files::default(), era.rules())
            .map(|devices| manifest.to_bytes(devices.properties())[8 + 104 + 72..][..2].to_vec())
    };
    assert_eq!(open(Era::Abi1).expect("any size"), 1300u16.to_le_bytes());
    assert!(
        open(Era::Abi2)
            .map_err(Message::from)
            .expect_err("an odd size")
            .to_string()
            .contains("not a multiple of its sectors")
    );
}

#[test]
fn options_that_attach_nothing_are_reported_with_a_hint() {
    let mac = NetOption {
        mac: Some([2; 6]),
        ..NetOption::default()
    };
    let error = attach(&[mac], &[])
        .map_err(Message::from)
        .expect_err("no interface")
        .to_string();
    assert!(error.ends_with("add --net=IFACE"), "{error}");
    let sector_size = BlockOption {
        sector_size: Some(512),
        ..BlockOption::default()
    };
    let error = attach(&[], &[sector_size])
        .map_err(Message::from)
        .expect_err("no disk")
        .to_string();
    assert!(error.ends_with("add --block=PATH"), "{error}");
    let error = attach(&[], &[block(None, Path::new("/nonexistent/disk.img"))])
        .map_err(Message::from)
        .expect_err("no file")
        .to_string();
    assert!(
        error.contains("there is no file '/nonexistent/disk.img'"),
        "{error}"
    );
}
