use super::*;
use guest_abi::hypercall::{self as abi, COOKIE_SIZE, number};
use zerocopy::IntoBytes;

const SIZE: u64 = 0x20_0000;
const ARGUMENT: GuestAddress = GuestAddress(0x10_0000);

fn memory_with(argument: &(impl IntoBytes + zerocopy::Immutable)) -> GuestMemory {
    let memory = GuestMemory::new(SIZE).unwrap();
    memory.place(ARGUMENT, argument.as_bytes()).unwrap();
    memory
}

fn decode(number: u32, memory: &GuestMemory) -> Hypercall {
    Current::decode(number, memory, ARGUMENT).unwrap()
}

#[test]
fn puts_carries_its_buffer() {
    let memory = memory_with(&abi::Puts { data: 0x1234, len: 7 });
    assert_eq!(decode(number::PUTS, &memory), Hypercall::Puts(Buffer { addr: GuestAddress(0x1234), len: 7 }));
}

#[test]
fn block_and_net_carry_their_arguments() {
    let memory = memory_with(&abi::Block { handle: 3, offset: 512, data: 0x2000, len: 1024, ..Default::default() });
    let request = BlockRequest { handle: 3, offset: 512, buffer: Buffer { addr: GuestAddress(0x2000), len: 1024 } };
    assert_eq!(decode(number::BLOCK_READ, &memory), Hypercall::BlockRead(request));
    assert_eq!(decode(number::BLOCK_WRITE, &memory), Hypercall::BlockWrite(request));
    let memory = memory_with(&abi::Net { handle: 63, data: 0x3000, len: 60, ..Default::default() });
    let request = NetRequest { handle: 63, buffer: Buffer { addr: GuestAddress(0x3000), len: 60 } };
    assert_eq!(decode(number::NET_READ, &memory), Hypercall::NetRead(request));
    assert_eq!(decode(number::NET_WRITE, &memory), Hypercall::NetWrite(request));
}

#[test]
fn halt_wants_a_readable_cookie() {
    let last = SIZE - COOKIE_SIZE;
    let memory = memory_with(&abi::Halt { cookie: last, exit_status: 255, pad: 0 });
    assert_eq!(decode(number::HALT, &memory), Hypercall::Halt { status: 255 });
    let memory = memory_with(&abi::Halt { cookie: last + 1, exit_status: 255, pad: 0 });
    assert!(matches!(Current::decode(number::HALT, &memory, ARGUMENT), Err(Error::Memory(_))));
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
    let memory = GuestMemory::new(SIZE).unwrap();
    let size = size_of::<abi::Poll>() as u64;
    assert!(Current::decode(number::POLL, &memory, GuestAddress(SIZE - size)).is_ok());
    for address in [SIZE - size + 1, SIZE, u32::MAX.into()] {
        let decoded = Current::decode(number::POLL, &memory, GuestAddress(address));
        assert!(matches!(decoded, Err(Error::Memory(_))), "at {address:#x}");
    }
}

/// Every reply changes its OUT bytes and no others.
#[test]
fn replies_write_out_fields_only() {
    /// Offset, value and size of a field.
    type Field = (usize, u64, usize);
    let cases: [(Reply, &[Field]); 5] = [
        (Reply::Walltime(0x1122), &[(0, 0x1122, 8)]),
        (Reply::Ready(0b1010), &[(8, 0b1010, 8), (16, 2, 4)]),
        (Reply::Block(Status::Unspecified), &[(32, 3, 4)]),
        (Reply::Net(Status::Again), &[(24, 1, 4)]),
        (Reply::Frame(60), &[(16, 60, 8), (24, 0, 4)]),
    ];
    for (reply, fields) in cases {
        let memory = memory_with(&[0xaa_u8; 64]);
        Current::reply(reply, &memory, ARGUMENT).unwrap();
        let mut expected = [0xaa; 64];
        for (offset, value, size) in fields {
            expected[*offset..offset + size].copy_from_slice(&value.to_le_bytes()[..*size]);
        }
        assert_eq!(memory.read::<[u8; 64]>(ARGUMENT).unwrap(), expected, "{reply:?}");
    }
}

#[test]
fn a_reply_into_memory_the_guest_cannot_write_is_refused() {
    let mut memory = GuestMemory::new(SIZE).unwrap();
    memory.protect(&[memory::Mapping { range: 0..0x10_1000, access: memory::Access::Read }]);
    let reply = Current::reply(Reply::Walltime(1), &memory, ARGUMENT);
    assert!(matches!(reply, Err(memory::Error::ReadOnly { .. })));
}
