//! Hypercalls as bytes in guest memory, one file per interface.

use guest_abi::hypercall as abi;
use zerocopy::IntoBytes;

use super::*;

mod current;
mod legacy;

const SIZE: u64 = 0x20_0000;
const ARGUMENT: GuestAddress = GuestAddress(0x10_0000);

fn memory_with(argument: &(impl IntoBytes + zerocopy::Immutable)) -> GuestMemory {
    let memory = GuestMemory::new(SIZE).unwrap();
    memory.place(ARGUMENT, argument.as_bytes()).unwrap();
    memory
}

fn decode<I: Interface>(number: u32, memory: &GuestMemory) -> Hypercall {
    I::decode(number, memory, ARGUMENT).unwrap()
}

/// Offset, value and size of a field.
type Field = (usize, u64, usize);

/// Checks that `reply` changes these bytes and no others.
#[track_caller]
fn check_reply<I: Interface>(reply: Reply, fields: &[Field]) {
    let memory = memory_with(&[0xaa_u8; 64]);
    I::reply(reply, &memory, ARGUMENT).unwrap();
    let mut expected = [0xaa; 64];
    for (offset, value, size) in fields {
        expected[*offset..offset + size].copy_from_slice(&value.to_le_bytes()[..*size]);
    }
    assert_eq!(
        memory.read::<[u8; 64]>(ARGUMENT).unwrap(),
        expected,
        "{reply:?}"
    );
}

/// Checks that `size` bytes of arguments of hypercall `number` must lie in memory.
#[track_caller]
fn check_end_of_memory<I: Interface>(number: u32, size: u64) {
    let memory = GuestMemory::new(SIZE).unwrap();
    assert!(I::decode(number, &memory, GuestAddress(SIZE - size)).is_ok());
    for address in [SIZE - size + 1, SIZE, u32::MAX.into()] {
        let decoded = I::decode(number, &memory, GuestAddress(address));
        assert!(matches!(decoded, Err(Error::Memory(_))), "at {address:#x}");
    }
}

/// The same in every interface.
#[test]
fn puts_carries_its_buffer() {
    let memory = memory_with(&abi::Puts {
        data: 0x1234,
        len: 7,
    });
    let expected = Hypercall::Puts(Buffer {
        addr: GuestAddress(0x1234),
        len: 7,
    });
    assert_eq!(decode::<Current>(abi::number::PUTS, &memory), expected);
    assert_eq!(
        decode::<Legacy>(guest_abi::legacy::number::PUTS, &memory),
        expected
    );
}
