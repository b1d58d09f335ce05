//! The range checks, for every case: they compare numbers and add two. So a memory of a few bytes,
//! each writable or not, has every position of a range relative to the ends of memory, to protected
//! bytes and to the largest address. All are tried.

use super::*;

/// Size of the largest memory here in bytes.
const MOST: u64 = if cfg!(miri) { 2 } else { 6 };

/// Returns the numbers up to a little above that, and as many below 2^64.
fn numbers() -> impl Iterator<Item = u64> + Clone {
    (0..=MOST + 2).chain(u64::MAX - MOST - 2..=u64::MAX)
}

fn mappings(size: u64, writable: u64) -> Vec<Mapping> {
    let access = |at: u64| {
        if writable >> at & 1 == 1 {
            Access::ReadWrite
        } else {
            Access::Read
        }
    };
    (0..size)
        .map(|at| Mapping {
            range: at..at + 1,
            access: access(at),
        })
        .collect()
}

#[test]
fn every_range_in_every_small_memory_is_checked_correctly() {
    for size in 0..=MOST {
        let mut memory = GuestMemory::new(size).expect("a few bytes");
        for writable in 0..1 << size {
            memory.protect(mappings(size, writable));
            for (addr, len) in numbers().flat_map(|addr| numbers().map(move |len| (addr, len))) {
                let inside = u128::from(addr) + u128::from(len) <= u128::from(size);
                let writable = inside && (addr..addr + len).all(|at| writable >> at & 1 == 1);
                let address = GuestAddress(addr);
                let judged = (
                    memory.bytes(address, len).is_ok(),
                    memory.buffer(address, len).is_ok(),
                );
                assert_eq!(
                    judged,
                    (inside, writable),
                    "{len} bytes at {addr} of {size}"
                );
            }
        }
    }
}
