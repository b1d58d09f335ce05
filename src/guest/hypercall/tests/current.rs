//! Solo5 0.6 and later.

use guest_abi::hypercall::{COOKIE_SIZE, number};

use super::*;

#[test]
fn block_and_net_carry_their_arguments() {
    let memory = memory_with(&abi::Block {
        handle: 3,
        offset: 512,
        data: 0x2000,
        len: 1024,
        ..Default::default()
    });
    let request = BlockRequest {
        handle: 3,
        offset: 512,
        buffer: Buffer {
            addr: GuestAddress(0x2000),
            len: 1024,
        },
    };
    assert_eq!(
        decode::<Current>(number::BLOCK_READ, &memory),
        Hypercall::BlockRead(request)
    );
    assert_eq!(
        decode::<Current>(number::BLOCK_WRITE, &memory),
        Hypercall::BlockWrite(request)
    );
    let memory = memory_with(&abi::Net {
        handle: 63,
        data: 0x3000,
        len: 60,
        ..Default::default()
    });
    let request = NetRequest {
        handle: 63,
        buffer: Buffer {
            addr: GuestAddress(0x3000),
            len: 60,
        },
    };
    assert_eq!(
        decode::<Current>(number::NET_READ, &memory),
        Hypercall::NetRead(request)
    );
    assert_eq!(
        decode::<Current>(number::NET_WRITE, &memory),
        Hypercall::NetWrite(request)
    );
}

#[test]
fn halt_wants_a_readable_cookie() {
    let last = SIZE - COOKIE_SIZE;
    let memory = memory_with(&abi::Halt {
        cookie: last,
        exit_status: 255,
        pad: 0,
    });
    assert_eq!(
        decode::<Current>(number::HALT, &memory),
        Hypercall::Halt {
            status: 255,
            cookie: GuestAddress(last)
        }
    );
    let memory = memory_with(&abi::Halt {
        cookie: last + 1,
        exit_status: 255,
        pad: 0,
    });
    assert!(matches!(
        Current::decode(number::HALT, &memory, ARGUMENT),
        Err(Error::Memory(_))
    ));
}

#[test]
fn unknown_numbers_are_refused() {
    let memory = GuestMemory::new(SIZE).unwrap();
    for number in [0, 9, 31, u32::MAX] {
        let decoded = Current::decode(number, &memory, ARGUMENT);
        assert!(matches!(decoded, Err(Error::Number(n)) if n == number));
    }
}

#[test]
fn a_structure_may_end_at_the_end_of_memory_but_not_after() {
    let sizes = [
        (number::PUTS, 16),
        (number::POLL, 24),
        (number::BLOCK_READ, 40),
        (number::NET_WRITE, 32),
    ];
    for (number, size) in sizes {
        check_end_of_memory::<Current>(number, size);
    }
}

#[test]
fn replies_write_out_fields_only() {
    check_reply::<Current>(Reply::Walltime(0x1122), &[(0, 0x1122, 8)]);
    check_reply::<Current>(Reply::Ready(0b1010), &[(8, 0b1010, 8), (16, 2, 4)]);
    check_reply::<Current>(Reply::Block(Status::Unspecified), &[(32, 3, 4)]);
    check_reply::<Current>(Reply::Net(Status::Again), &[(24, 1, 4)]);
    check_reply::<Current>(Reply::Frame(60), &[(16, 60, 8), (24, 0, 4)]);
    // Replies to calls that this interface does not have.
    check_reply::<Current>(Reply::NetInfo { mac: [1; 6] }, &[]);
    check_reply::<Current>(Reply::BlockInfo { capacity: 512 }, &[]);
}

#[test]
fn an_unknown_device_is_an_invalid_argument() {
    assert_eq!(
        Current::no_device(Kind::Net),
        Some(Reply::Net(Status::Invalid))
    );
    assert_eq!(
        Current::no_device(Kind::Block),
        Some(Reply::Block(Status::Invalid))
    );
}

#[test]
fn every_number_has_a_name() {
    for number in 1..=Current::LAST {
        assert_ne!(Current::name(number), "unknown", "{number}");
    }
    assert_eq!(
        (Current::name(0), Current::name(Current::LAST + 1)),
        ("unknown", "unknown")
    );
}

#[test]
fn a_reply_into_memory_the_guest_cannot_write_is_refused() {
    let mut memory = GuestMemory::new(SIZE).unwrap();
    memory.protect(vec![memory::Mapping {
        range: 0..0x10_1000,
        access: memory::Access::Read,
    }]);
    let reply = Current::reply(Reply::Walltime(1), &memory, ARGUMENT);
    assert!(matches!(reply, Err(memory::RangeError::ReadOnly { .. })));
}
