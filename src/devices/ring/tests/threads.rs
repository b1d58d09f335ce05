//! A correct guest and `tender` work on one ring concurrently, the guest in a separate thread.
//! Under Miri this finds every unordered access of both to the same bytes, and stores that become
//! visible late.

use std::sync::atomic::fence;
use std::thread;

use vm_memory::Bytes;

use super::*;

/// Requests made: several times around the ring; fewer under Miri, where each takes a second.
const REQUESTS: u32 = if cfg!(miri) { 12 } else { 5 * ENTRIES };

/// A longer wait means that a request was lost.
const PATIENCE: Duration = Duration::from_secs(600);

/// The guest's side of section 11.3: submits requests to receive from an unknown handle, and waits
/// for the reply to each.
fn guest(memory: &GuestMemory, kick: impl Fn()) {
    let ring = memory.volatile(GuestAddress(ADDRESS), SIZE as u64).unwrap();
    for number in 0..REQUESTS {
        let entry = Entry {
            operation: OP_READ,
            handle: 9,
            data: BUFFER,
            len: 64,
            id: !number,
            reserved: 0,
        };
        let slot = (number % ENTRIES) as usize;
        ring.write_slice(entry.as_bytes(), ENTRIES_OFFSET + slot * size_of::<Entry>())
            .unwrap();
        ring.store(number + 1, ENT_TAIL, Ordering::Release).unwrap();
        fence(Ordering::SeqCst);
        if ring.load::<u32>(NEEDS_KICK, Ordering::Relaxed).unwrap() != 0 {
            kick();
        }
        while ring.load::<u32>(COM_TAIL, Ordering::Acquire).unwrap() == number {
            thread::yield_now();
        }
        let mut commit = Commit::default();
        ring.read_slice(
            commit.as_mut_bytes(),
            COMMITS_OFFSET + slot * size_of::<Commit>(),
        )
        .unwrap();
        assert_eq!(
            commit,
            Commit {
                id: !number,
                ret: Status::Invalid as u32,
                len: 0,
                reserved: 0
            }
        );
    }
}

#[test]
fn every_request_of_a_concurrent_guest_is_answered() {
    let memory = GuestMemory::new(0x20_0000).unwrap();
    let ring = Ring::new([]);
    let shared = GuestRing::new(&memory, GuestAddress(ADDRESS)).unwrap();
    let tender = thread::current();
    thread::scope(|scope| {
        scope.spawn(|| guest(&memory, || tender.unpark()));
        let mut consumer = ring.consumer();
        while consumer.given < REQUESTS {
            consumer.drain(&shared, &memory).unwrap();
            // Asks for kicks only now and then, so that both ways of notification are taken.
            if consumer.given < REQUESTS
                && consumer.given % 2 == 0
                && may_sleep(&shared, consumer.taken)
            {
                let asleep = std::time::Instant::now();
                while shared.submitted() == consumer.taken && asleep.elapsed() < PATIENCE {
                    thread::park_timeout(PATIENCE);
                }
                assert!(
                    shared.submitted() != consumer.taken,
                    "a request was left lying"
                );
            }
            shared.want_kicks(false);
            thread::yield_now();
        }
    });
    assert_eq!(ring.consumer().taken, REQUESTS);
}
