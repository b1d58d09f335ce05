//! The ring with a guest played by the test, its interfaces on socket pairs.

mod handshake;
mod threads;

use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use guest_abi::hypercall::Status;
use guest_abi::ring::{
    COM_TAIL, COMMITS_OFFSET, ENT_HEAD, ENT_TAIL, ENTRIES_OFFSET, NEEDS_KICK, SIZE,
};
use zerocopy::IntoBytes;

use super::*;
use crate::config::NetSource;
use crate::memory::{Access, Mapping};

const FRAME: u64 = 0x10_0000;
const BUFFER: u64 = 0x11_0000;
const TEXT: u64 = 0x12_0000;

/// A guest, its ring, and the peer of its only interface, which has handle 1.
struct Guest {
    memory: GuestMemory,
    ring: Ring,
    wire: UnixDatagram,
    submitted: u32,
}

impl Guest {
    /// A ring that has been used `history` times before.
    fn after(history: u32) -> Guest {
        let (near, wire) = UnixDatagram::pair().unwrap();
        wire.set_nonblocking(true).unwrap();
        // Inherited descriptors stay open across exec.
        rustix::io::fcntl_setfd(&near, rustix::io::FdFlags::empty()).unwrap();
        let nic = Nic::attach(&NetSource::Fd(near.into_raw_fd().into()), None).unwrap();
        let mut memory = GuestMemory::new(0x20_0000).unwrap();
        memory.protect(&[Mapping {
            range: TEXT..TEXT + 0x1000,
            access: Access::ReadExecute,
        }]);
        let ring = Ring::new([(1, nic)]);
        ring.consumer().taken = history;
        ring.consumer().given = history;
        let guest = Guest {
            memory,
            ring,
            wire,
            submitted: history,
        };
        guest.put(ENT_TAIL, history);
        guest
    }

    fn new() -> Guest {
        Guest::after(0)
    }

    fn put(&self, offset: usize, value: u32) {
        self.memory
            .place(GuestAddress(ADDRESS + offset as u64), value.as_bytes())
            .unwrap();
    }

    fn get(&self, offset: usize) -> u32 {
        self.memory
            .read(GuestAddress(ADDRESS + offset as u64))
            .unwrap()
    }

    fn shared(&self) -> GuestRing<'_> {
        GuestRing::new(&self.memory, GuestAddress(ADDRESS)).unwrap()
    }

    fn submit(&mut self, operation: u32, handle: u32, data: u64, len: u32) {
        let slot = u64::from(self.submitted % ENTRIES);
        let entry = Entry {
            operation,
            handle,
            data,
            len,
            id: self.submitted,
            reserved: 0,
        };
        let place = ADDRESS + ENTRIES_OFFSET as u64 + slot * size_of::<Entry>() as u64;
        self.memory
            .place(GuestAddress(place), entry.as_bytes())
            .unwrap();
        self.submitted = self.submitted.wrapping_add(1);
        self.put(ENT_TAIL, self.submitted);
    }

    fn drain(&self) -> Result<u32, Error> {
        self.ring
            .consumer()
            .drain(&self.shared(), &self.memory)
            .map(|drained| drained.requests)
    }

    fn commit(&self, index: u32) -> Commit {
        let place = COMMITS_OFFSET as u64 + u64::from(index % ENTRIES) * size_of::<Commit>() as u64;
        self.memory.read(GuestAddress(ADDRESS + place)).unwrap()
    }

    fn received(&self) -> Option<Vec<u8>> {
        let mut frame = [0; 2048];
        self.wire
            .recv(&mut frame)
            .ok()
            .map(|len| frame[..len].to_vec())
    }
}

/// Returns a frame of a 14-byte header and a number.
fn frame(number: u32) -> Vec<u8> {
    [&[0xff; 14], number.as_bytes()].concat()
}

#[test]
fn frames_are_sent_in_the_order_of_their_requests() {
    let mut guest = Guest::new();
    for number in 0..5 {
        guest
            .memory
            .place(GuestAddress(FRAME + 64 * u64::from(number)), &frame(number))
            .unwrap();
        guest.submit(OP_WRITE, 1, FRAME + 64 * u64::from(number), 18);
    }
    assert_eq!(guest.drain().unwrap(), 5);
    for number in 0..5 {
        assert_eq!(guest.received(), Some(frame(number)));
    }
    assert_eq!(
        (guest.get(ENT_HEAD), guest.get(COM_TAIL)),
        (5, 0),
        "writes are taken and get no reply"
    );
    assert_eq!(guest.drain().unwrap(), 0);
}

#[test]
fn every_read_gets_one_reply_in_order() {
    let mut guest = Guest::new();
    guest.wire.send(&frame(7)).unwrap();
    guest.submit(OP_READ, 1, BUFFER, 64);
    guest.submit(OP_READ, 1, BUFFER + 64, 64);
    guest.submit(OP_READ, 9, BUFFER + 128, 64);
    assert_eq!(guest.drain().unwrap(), 3);
    assert_eq!(guest.get(COM_TAIL), 3);
    assert_eq!(
        guest.commit(0),
        Commit {
            id: 0,
            ret: Status::Ok as u32,
            len: 18,
            reserved: 0
        }
    );
    assert_eq!(
        guest.commit(1),
        Commit {
            id: 1,
            ret: Status::Again as u32,
            len: 0,
            reserved: 0
        }
    );
    assert_eq!(
        guest.commit(2),
        Commit {
            id: 2,
            ret: Status::Invalid as u32,
            len: 0,
            reserved: 0
        }
    );
    assert_eq!(
        guest.memory.read::<[u8; 18]>(GuestAddress(BUFFER)).unwrap()[..],
        frame(7)
    );
}

#[test]
fn a_frame_longer_than_the_buffer_is_cut() {
    let mut guest = Guest::new();
    guest.wire.send(&frame(7)).unwrap();
    guest.submit(OP_READ, 1, BUFFER, 15);
    guest.drain().unwrap();
    assert_eq!(guest.commit(0).len, 15);
}

#[test]
fn indices_wrap_around() {
    let mut guest = Guest::after(u32::MAX - 2);
    for number in 0..6 {
        guest
            .memory
            .place(GuestAddress(FRAME), &frame(number))
            .unwrap();
        guest.submit(OP_WRITE, 1, FRAME, 18);
        guest.submit(OP_READ, 1, BUFFER, 64);
        assert_eq!(guest.drain().unwrap(), 2);
        assert_eq!(guest.received(), Some(frame(number)));
    }
    assert_eq!((guest.get(ENT_HEAD), guest.get(COM_TAIL)), (9, 3));
}

#[test]
fn a_full_ring_is_drained_in_one_call() {
    let mut guest = Guest::new();
    for _ in 0..ENTRIES {
        guest.submit(OP_READ, 1, BUFFER, 64);
    }
    assert_eq!(guest.drain().unwrap(), ENTRIES);
    assert_eq!(guest.get(COM_TAIL), ENTRIES);
}

#[test]
fn more_requests_than_slots_are_refused() {
    for ahead in [ENTRIES + 1, 2000, 1 << 31, u32::MAX] {
        let guest = Guest::new();
        guest.put(ENT_TAIL, ahead);
        assert!(matches!(guest.drain(), Err(Error::Distance { distance }) if distance == ahead));
        assert_eq!(guest.get(ENT_HEAD), 0, "nothing was done");
    }
}

#[test]
fn guest_writes_to_the_hosts_indices_have_no_effect() {
    let mut guest = Guest::new();
    guest.submit(OP_READ, 1, BUFFER, 64);
    guest.drain().unwrap();
    for offset in [ENT_HEAD, COM_TAIL, NEEDS_KICK] {
        guest.put(offset, 0xdead_beef);
    }
    guest.submit(OP_READ, 1, BUFFER, 64);
    assert_eq!(guest.drain().unwrap(), 1);
    assert_eq!((guest.get(ENT_HEAD), guest.get(COM_TAIL)), (2, 2));
}

#[test]
fn buffers_outside_of_memory_are_violations() {
    let cases = [
        (OP_WRITE, 0x20_0000 - 10, 18),
        (OP_WRITE, u64::MAX - 4, 18),
        (OP_WRITE, FRAME, u32::MAX),
        (OP_READ, 0x20_0000, 64),
        (OP_READ, TEXT, 64),
    ];
    for (operation, data, len) in cases {
        let mut guest = Guest::new();
        guest.submit(operation, 1, data, len);
        assert!(
            matches!(guest.drain(), Err(Error::Memory { index: 0, .. })),
            "{operation} {data:#x} {len:#x}"
        );
    }
}

#[test]
fn unknown_operations_and_writes_to_nowhere_are_skipped() {
    let mut guest = Guest::new();
    guest.submit(77, 1, FRAME, 18);
    guest.submit(OP_WRITE, 63, FRAME, 18);
    guest.submit(OP_WRITE, u32::MAX, FRAME, 18);
    guest.memory.place(GuestAddress(FRAME), &frame(1)).unwrap();
    guest.submit(OP_WRITE, 1, FRAME, 18);
    assert_eq!(guest.drain().unwrap(), 4);
    assert_eq!(guest.received(), Some(frame(1)));
    assert_eq!(guest.received(), None);
}

/// The second thread takes over after a series of requests, serves without kicks, wants kicks again
/// when idle, and ends when requested.
#[test]
fn the_second_thread_takes_over_and_goes_idle() {
    let mut guest = Guest::new();
    let parallel = Parallel::new();
    std::thread::scope(|scope| {
        let (ring, memory, parallel) = (&guest.ring, &guest.memory, &parallel);
        let handle = scope.spawn(move || {
            let shared = GuestRing::new(memory, GuestAddress(ADDRESS)).unwrap();
            parallel.serve(ring, &shared, memory, || panic!("nothing is broken"));
        });
        let shared = GuestRing::new(memory, GuestAddress(ADDRESS)).unwrap();
        let mut worker = Worker::new(ring, shared, Some((parallel, handle.thread().clone())));
        let needs_kick = || {
            memory
                .read::<u32>(GuestAddress(ADDRESS + NEEDS_KICK as u64))
                .unwrap()
        };
        assert_eq!(needs_kick(), 1);
        worker.streak = 1_000_000;
        worker.drain_some(memory).unwrap();
        // It polls briefly, then wants kicks again: whether the test sees the state in between is a
        // matter of luck.
        let deadline = Instant::now() + Duration::from_secs(20);
        while parallel.streak.load(Ordering::Relaxed) == 16 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(
            parallel.streak.load(Ordering::Relaxed),
            32,
            "a takeover for nothing makes the next one later"
        );
        assert_eq!(needs_kick(), 1);
        parallel.stop(handle.thread());
    });
    guest.submit(OP_READ, 1, BUFFER, 64);
    assert_eq!(
        guest.drain().unwrap(),
        1,
        "what is left is for the end of the run"
    );
}

#[test]
fn the_second_thread_reports_violations() {
    let guest = Guest::new();
    guest.put(ENT_TAIL, 5000);
    let parallel = Parallel::new();
    parallel.awake.store(true, Ordering::SeqCst);
    let alarmed = std::sync::atomic::AtomicBool::new(false);
    parallel.serve(&guest.ring, &guest.shared(), &guest.memory, || {
        alarmed.store(true, Ordering::SeqCst)
    });
    assert!(alarmed.load(Ordering::SeqCst));
    assert!(matches!(
        parallel.violation(),
        Some(Error::Distance { distance: 5000 })
    ));
}

/// A ring whose index a peer moves until `deadline`: each read of the index adds one receive
/// request.
struct Fed {
    submitted: AtomicU32,
    deadline: Instant,
}

impl Shared for Fed {
    fn submitted(&self) -> u32 {
        self.submitted
            .fetch_add((Instant::now() < self.deadline).into(), Ordering::Relaxed)
            + 1
    }
    fn entry(&self, id: u32) -> Entry {
        Entry {
            operation: OP_READ,
            handle: 9,
            data: BUFFER,
            len: 64,
            id,
            reserved: 0,
        }
    }
    fn publish_taken(&self, _: u32) {}
    fn write_commit(&self, _: u32, _: Commit) {}
    fn publish_given(&self, _: u32) {}
    fn want_kicks(&self, _: bool) {}
    fn barrier(&self) {}
}

#[test]
fn the_second_thread_ends_while_requests_go_on() {
    let guest = Guest::new();
    let parallel = Parallel::new();
    parallel.awake.store(true, Ordering::SeqCst);
    let fed = Fed {
        submitted: AtomicU32::new(0),
        deadline: Instant::now() + Duration::from_secs(60),
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            parallel.serve(&guest.ring, &fed, &guest.memory, || {
                panic!("nothing is broken")
            })
        });
        while fed.submitted.load(Ordering::Relaxed) < 100 {
            std::thread::yield_now();
        }
        parallel.stop(thread.thread());
    });
    assert!(Instant::now() < fed.deadline, "the second thread went on");
}
