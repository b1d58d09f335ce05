//! Solo5 0.3 and 0.4.

use guest_abi::legacy::{self as old, number};

use super::*;

#[test]
fn arguments_of_calls_without_arguments_are_ignored() {
    // Not even the address of the reply, which is checked when it is written.
    let memory = GuestMemory::new(SIZE).unwrap();
    let calls = [
        (number::WALLTIME, Hypercall::Walltime),
        (number::BLKINFO, Hypercall::BlockInfo),
        (number::NETINFO, Hypercall::NetInfo),
    ];
    for (number, call) in calls {
        assert_eq!(
            Legacy::decode(number, &memory, GuestAddress(SIZE)).unwrap(),
            call
        );
    }
}

#[test]
fn poll_has_16_bytes() {
    let memory = memory_with(&old::Poll {
        timeout_nsecs: 1 << 40,
        ..Default::default()
    });
    assert_eq!(
        decode::<Legacy>(number::POLL, &memory),
        Hypercall::Poll { timeout: 1 << 40 }
    );
    check_end_of_memory::<Legacy>(number::POLL, 16);
}

#[test]
fn the_disk_counts_in_sectors() {
    let memory = memory_with(&old::Blk {
        sector: 3,
        data: 0x2000,
        len: 1024,
        ..Default::default()
    });
    let buffer = Buffer {
        addr: GuestAddress(0x2000),
        len: 1024,
    };
    let request = BlockRequest {
        handle: 2,
        offset: 3 * 512,
        buffer,
    };
    assert_eq!(
        decode::<Legacy>(number::BLKREAD, &memory),
        Hypercall::BlockRead(request)
    );
    assert_eq!(
        decode::<Legacy>(number::BLKWRITE, &memory),
        Hypercall::BlockWrite(request)
    );
    check_end_of_memory::<Legacy>(number::BLKREAD, 32);
}

#[test]
fn a_sector_whose_offset_overflows_is_past_every_disk() {
    for sector in [u64::MAX, u64::MAX / 512 + 1, 1 << 63] {
        let memory = memory_with(&old::Blk {
            sector,
            data: 0x2000,
            len: 512,
            ..Default::default()
        });
        let Hypercall::BlockRead(request) = decode::<Legacy>(number::BLKREAD, &memory) else {
            panic!()
        };
        assert_eq!(request.offset, u64::MAX, "{sector:#x}");
    }
}

#[test]
fn the_interface_is_the_only_one() {
    let memory = memory_with(&old::Net {
        data: 0x3000,
        len: 60,
        ..Default::default()
    });
    let request = NetRequest {
        handle: 1,
        buffer: Buffer {
            addr: GuestAddress(0x3000),
            len: 60,
        },
    };
    assert_eq!(
        decode::<Legacy>(number::NETREAD, &memory),
        Hypercall::NetRead(request)
    );
    assert_eq!(
        decode::<Legacy>(number::NETWRITE, &memory),
        Hypercall::NetWrite(request)
    );
    check_end_of_memory::<Legacy>(number::NETREAD, 24);
}

#[test]
fn halt_is_the_last() {
    let memory = memory_with(&abi::Halt {
        cookie: 0,
        exit_status: 7,
        pad: 0,
    });
    assert_eq!(
        decode::<Legacy>(number::HALT, &memory),
        Hypercall::Halt {
            status: 7,
            cookie: GuestAddress(0)
        }
    );
    for number in [0, 11, 31, u32::MAX] {
        assert!(
            matches!(Legacy::decode(number, &memory, ARGUMENT), Err(Error::Number(n)) if n == number)
        );
    }
    assert_eq!(Legacy::LAST, 10);
}

#[test]
fn replies_write_out_fields_only() {
    let failed = u64::from(u32::MAX);
    check_reply::<Legacy>(Reply::Walltime(0x1122), &[(0, 0x1122, 8)]);
    check_reply::<Legacy>(Reply::Ready(0), &[(8, 0, 4)]);
    check_reply::<Legacy>(Reply::Ready(0b10), &[(8, 1, 4)]);
    check_reply::<Legacy>(
        Reply::BlockInfo { capacity: 1535 },
        &[(0, 512, 8), (8, 2, 8), (16, 1, 4)],
    );
    check_reply::<Legacy>(Reply::Block(Status::Ok), &[(24, 0, 4)]);
    check_reply::<Legacy>(
        Reply::NetInfo {
            mac: [1, 2, 3, 4, 5, 6],
        },
        &[(0, 0x0605_0403_0201, 6)],
    );
    check_reply::<Legacy>(Reply::Net(Status::Ok), &[(16, 0, 4)]);
    check_reply::<Legacy>(Reply::Frame(60), &[(8, 60, 8), (16, 0, 4)]);
    for status in [Status::Again, Status::Invalid, Status::Unspecified] {
        check_reply::<Legacy>(Reply::Block(status), &[(24, failed, 4)]);
        check_reply::<Legacy>(Reply::Net(status), &[(16, failed, 4)]);
    }
}

/// The structures lie on the guest's stack: the bytes past them are the guest's.
#[test]
fn an_answer_at_the_end_of_memory_fits() {
    let memory = GuestMemory::new(SIZE).unwrap();
    Legacy::reply(
        Reply::NetInfo { mac: [1; 6] },
        &memory,
        GuestAddress(SIZE - 6),
    )
    .unwrap();
    Legacy::reply(Reply::Ready(1), &memory, GuestAddress(SIZE - 16)).unwrap();
    Legacy::reply(
        Reply::BlockInfo { capacity: 512 },
        &memory,
        GuestAddress(SIZE - 24),
    )
    .unwrap();
    let beyond = Legacy::reply(
        Reply::NetInfo { mac: [1; 6] },
        &memory,
        GuestAddress(SIZE - 5),
    );
    assert!(matches!(beyond, Err(memory::RangeError::OutOfRange { .. })));
}

#[test]
fn an_unknown_device_ends_the_run() {
    assert_eq!(Legacy::no_device(Kind::Net), None);
    assert_eq!(Legacy::no_device(Kind::Block), None);
}

#[test]
fn every_number_has_a_name() {
    for number in 1..=Legacy::LAST {
        assert_ne!(Legacy::name(number), "unknown", "{number}");
    }
    assert_eq!(
        (Legacy::name(0), Legacy::name(Legacy::LAST + 1)),
        ("unknown", "unknown")
    );
}
