//! Which ranges are memory, which of them may be written, and how data moves in and out.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use proptest::prelude::*;

use super::transfer::PIECE;
use super::*;
use crate::report::message::Message;

mod exhaustive;
mod host;
mod transfers;

const SIZE: u64 = 0x20_0000;

fn memory() -> GuestMemory {
    GuestMemory::new(SIZE).expect("2 MiB")
}

/// Memory with one unmapped page, one readable, one executable, 4 writable, and the rest readable.
fn protected() -> GuestMemory {
    let mut memory = memory();
    let mapping = |(start, end, access)| Mapping {
        range: start..end,
        access,
    };
    memory.protect(MAP.map(mapping).to_vec());
    memory
}

const MAP: [(u64, u64, Access); 6] = [
    (0, 0x1000, Access::None),
    (0x1000, 0x2000, Access::Read),
    (0x2000, 0x3000, Access::ReadExecute),
    (0x3000, 0x7000, Access::ReadWrite),
    (0x7000, 0x8000, Access::Read),
    (0x8000, SIZE, Access::ReadWrite),
];

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(content).expect("room for it");
    file
}

fn contents(memory: &GuestMemory, addr: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xaa; len];
    assert_eq!(
        memory
            .bytes(GuestAddress(addr), len as u64)
            .expect("memory")
            .copy_to(&mut bytes),
        len
    );
    bytes
}

/// Returns how a range is checked, for reading and for writing.
fn verdicts(memory: &GuestMemory, addr: u64, len: u64) -> (bool, &'static str) {
    let readable = match memory.bytes(GuestAddress(addr), len) {
        Ok(bytes) => {
            assert_eq!(bytes.len() as u64, len);
            true
        }
        Err(RangeError::OutOfRange {
            addr: a,
            len: l,
            size: SIZE,
        }) if (a, l) == (addr, len) => false,
        Err(other) => panic!("{other:?}"),
    };
    let writable = match memory.buffer(GuestAddress(addr), len) {
        Ok(buffer) => {
            assert_eq!(buffer.0.len() as u64, len);
            "writable"
        }
        Err(RangeError::ReadOnly { addr: a, len: l }) if (a, l) == (addr, len) => "read-only",
        Err(RangeError::OutOfRange {
            addr: a,
            len: l,
            size: SIZE,
        }) if (a, l) == (addr, len) => "no memory",
        Err(other) => panic!("{other:?}"),
    };
    (readable, writable)
}

#[test]
fn memory_starts_as_zeroes_of_the_size_asked_for() {
    let memory = memory();
    assert_eq!(memory.size(), SIZE);
    assert!(contents(&memory, 0, SIZE as usize) == vec![0; SIZE as usize]);
}

#[test]
fn the_hypervisor_maps_what_the_tender_writes() {
    // Sizes that the host does not align automatically.
    for size in [SIZE, 0x3000, 0x1000, 0x20_3000] {
        let memory = GuestMemory::new(size).expect("some memory");
        let host = memory.host_address();
        assert_eq!(host % SIZE, 0, "the guest's huge pages can be the host's");
        memory.place(GuestAddress(0), b"first").expect("memory");
        memory
            .place(GuestAddress(size - 4), b"last")
            .expect("memory");
        // SAFETY: both ranges lie in the mapping, which lives to the end of this block, and nothing
        // writes to it.
        let (first, last) = unsafe {
            (
                (host as *const [u8; 5]).read_volatile(),
                ((host + size - 4) as *const [u8; 4]).read_volatile(),
            )
        };
        assert_eq!((&first, &last), (b"first", b"last"));
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri ends where its memory does")]
fn memory_that_the_host_cannot_give_is_an_error() {
    for size in [1 << 62, u64::MAX] {
        let error = GuestMemory::new(size).expect_err("no such memory");
        assert!(
            matches!(error, Error::Reserve { size: found, .. } if found == size),
            "{size:#x}: {error:?}"
        );
    }
    let message = GuestMemory::new(1 << 62)
        .map_err(Message::from)
        .expect_err("no such memory")
        .to_string();
    assert_eq!(
        message,
        "cannot reserve 4398046511104 MiB of guest memory: Cannot allocate memory (os error 12); \
         lower --mem or raise the limit (ulimit -v)"
    );
}

#[test]
fn a_range_may_end_exactly_where_memory_does() {
    let memory = memory();
    for len in [0, 1, 8, 0x1000, SIZE] {
        assert_eq!(
            verdicts(&memory, SIZE - len, len),
            (true, "writable"),
            "{len:#x}"
        );
        assert_eq!(
            verdicts(&memory, SIZE - len, len + 1),
            (false, "no memory"),
            "{len:#x}"
        );
        assert_eq!(
            verdicts(&memory, SIZE - len + 1, len),
            (false, "no memory"),
            "{len:#x}"
        );
    }
    assert!(memory.write(GuestAddress(SIZE - 8), 7u64).is_ok());
    assert_eq!(
        memory.read::<u64>(GuestAddress(SIZE - 8)).expect("memory"),
        7
    );
    assert!(memory.write(GuestAddress(SIZE - 7), 7u64).is_err());
    assert!(memory.read::<u64>(GuestAddress(SIZE - 7)).is_err());
}

#[test]
fn ranges_that_overflow_are_not_memory() {
    let memory = memory();
    for (addr, len) in [
        (1, u64::MAX),
        (u64::MAX, 1),
        (u64::MAX, u64::MAX),
        (u64::MAX - 7, 8),
        (1 << 63, 1 << 63),
    ] {
        assert_eq!(
            verdicts(&memory, addr, len),
            (false, "no memory"),
            "{addr:#x}, {len:#x}"
        );
    }
}

#[test]
fn an_error_names_the_range() {
    let memory = protected();
    let message = |result: Result<GuestBuffer<'_>, RangeError>| {
        result
            .map_err(Message::from)
            .expect_err("no buffer")
            .to_string()
    };
    assert_eq!(
        message(memory.buffer(GuestAddress(0x1ffff9), 8)),
        "8 bytes at 0x1ffff9 must be within the 0x200000 bytes of guest memory"
    );
    assert_eq!(
        message(memory.buffer(GuestAddress(0x2ff9), 8)),
        "8 bytes at 0x2ff9 must be memory that the guest may write"
    );
}

#[test]
fn protected_memory_is_not_written_for_the_guest() {
    let memory = protected();
    for addr in [0, 0xff8, 0x1000, 0x1ffc, 0x2000, 0x2ff8, 0x7000, 0x7ff8] {
        assert_eq!(verdicts(&memory, addr, 8), (true, "read-only"), "{addr:#x}");
        assert!(
            matches!(
                memory.write(GuestAddress(addr), 1u64),
                Err(RangeError::ReadOnly { len: 8, .. })
            ),
            "{addr:#x}"
        );
        assert_eq!(
            memory.read::<u64>(GuestAddress(addr)).expect("memory"),
            0,
            "{addr:#x}"
        );
    }
}

#[test]
fn memory_next_to_protected_memory_can_be_written() {
    let memory = protected();
    for addr in [0x3000, 0x6ff8, 0x8000, SIZE - 8] {
        assert_eq!(verdicts(&memory, addr, 8), (true, "writable"), "{addr:#x}");
    }
    // One byte too far on either side.
    for addr in [0x2fff, 0x6ff9, 0x7fff] {
        assert_eq!(verdicts(&memory, addr, 8), (true, "read-only"), "{addr:#x}");
    }
    assert_eq!(verdicts(&memory, 0x3000, 0x4000), (true, "writable"));
    assert_eq!(verdicts(&memory, 0x3000, 0x6000), (true, "read-only"));
}

#[test]
fn nothing_can_be_written_anywhere() {
    let memory = protected();
    for addr in [0, 1, 0x1000, 0x1fff, 0x2800, 0x3000, 0x7800, SIZE] {
        assert_eq!(verdicts(&memory, addr, 0), (true, "writable"), "{addr:#x}");
    }
    assert_eq!(verdicts(&memory, SIZE + 1, 0), (false, "no memory"));
}

#[test]
fn protected_neighbours_are_one_range() {
    assert_eq!(protected().read_only, [0..0x3000, 0x7000..0x8000]);
}

#[test]
fn protection_is_replaced_as_a_whole() {
    let mut memory = protected();
    memory.protect(vec![Mapping {
        range: 0x5000..0x6000,
        access: Access::Read,
    }]);
    assert_eq!(memory.read_only, vec![0x5000..0x6000]);
    memory.protect(vec![]);
    assert!(memory.write(GuestAddress(0), 1u64).is_ok());
}

#[test]
fn the_tender_places_its_own_data_anywhere_in_memory() {
    let memory = protected();
    memory.place(GuestAddress(0x1ffe), b"abcd").expect("memory");
    assert_eq!(contents(&memory, 0x1ffd, 6), b"\0abcd\0");
    memory.place(GuestAddress(SIZE - 1), b"z").expect("memory");
    assert!(matches!(
        memory.place(GuestAddress(SIZE - 1), b"zz"),
        Err(RangeError::OutOfRange { len: 2, .. })
    ));
    assert!(matches!(
        memory.place(GuestAddress(u64::MAX), b"z"),
        Err(RangeError::OutOfRange { .. })
    ));
}

#[test]
fn a_segment_is_loaded_where_it_belongs_and_nowhere_else() {
    let memory = protected();
    let source = file(b"0123456789");
    memory
        .load(GuestAddress(0x2001), 5, source.as_fd(), 3)
        .expect("memory")
        .expect("the file");
    assert_eq!(contents(&memory, 0x2000, 7), b"\x0034567\0");
}

#[test]
fn a_segment_that_is_not_all_in_the_file_is_an_error() {
    let memory = memory();
    let source = file(b"0123456789");
    for offset in [6, 10, 1000] {
        let error = memory
            .load(GuestAddress(0), 5, source.as_fd(), offset)
            .expect("memory")
            .expect_err("an end");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{offset}");
    }
    assert!(
        memory
            .load(GuestAddress(0), 0, source.as_fd(), 1000)
            .expect("memory")
            .is_ok()
    );
}

#[test]
fn a_segment_that_is_not_all_in_memory_is_an_error() {
    let source = file(b"0123456789");
    let loaded = memory()
        .load(GuestAddress(SIZE - 4), 5, source.as_fd(), 0)
        .map(drop);
    assert!(matches!(loaded, Err(RangeError::OutOfRange { len: 5, .. })));
}

/// Addresses and lengths near the limits, and any others.
fn near() -> impl Strategy<Value = u64> {
    let limits = [
        0,
        0x1000,
        0x3000,
        0x7000,
        0x8000,
        SIZE,
        1 << 32,
        1 << 63,
        u64::MAX,
    ];
    let close = (proptest::sample::select(limits.to_vec()), -9i64..10)
        .prop_map(|(limit, by)| limit.wrapping_add_signed(by));
    prop_oneof![4 => close, 2 => 0..SIZE, 1 => any::<u64>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 4000 }))]

    /// The same checks in 128-bit arithmetic, which cannot overflow here.
    #[test]
    fn ranges_are_checked_as_in_unbounded_arithmetic(addr in near(), len in near()) {
        let (start, end) = (u128::from(addr), u128::from(addr) + u128::from(len));
        let inside = end <= u128::from(SIZE);
        let touches = |from: u64, to: u64| start < end && start < u128::from(to) && u128::from(from) < end;
        let locked = MAP.iter().any(|&(from, to, access)| access != Access::ReadWrite && touches(from, to));
        let writable = match (inside, locked) {
            (false, _) => "no memory",
            (true, true) => "read-only",
            (true, false) => "writable",
        };
        prop_assert_eq!(verdicts(&protected(), addr, len), (inside, writable));
    }

    #[test]
    fn a_value_written_is_read_back_and_its_neighbours_stay(addr in near(), value: [u8; 5]) {
        let memory = protected();
        let end = u128::from(addr) + 5;
        let touches = |&(from, to, access): &(u64, u64, Access)| {
            access != Access::ReadWrite && addr < to && u128::from(from) < end
        };
        let expected = end <= u128::from(SIZE) && !MAP.iter().any(touches);
        prop_assert_eq!(memory.write(GuestAddress(addr), value).is_ok(), expected);
        if expected {
            prop_assert_eq!(memory.read::<[u8; 5]>(GuestAddress(addr)).expect("memory"), value);
            prop_assert_eq!(memory.read::<u8>(GuestAddress(addr - 1)).expect("memory"), 0);
            prop_assert!(end == u128::from(SIZE) || memory.read::<u8>(GuestAddress(addr + 5)).expect("memory") == 0);
        }
    }
}
