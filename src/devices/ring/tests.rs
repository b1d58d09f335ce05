//! The ring with a guest played by the test, its interfaces on socket pairs.

use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixDatagram;

use guest_abi::hypercall::Status;
use guest_abi::ring::{COM_TAIL, COMMITS_OFFSET, ENT_HEAD, ENT_TAIL, ENTRIES_OFFSET, NEEDS_KICK};
use zerocopy::IntoBytes;

use super::*;
use crate::config::NetSource;
use crate::host::signal::Alarm;
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
        memory.protect(vec![Mapping {
            range: TEXT..TEXT + 0x1000,
            access: Access::ReadExecute,
        }]);
        let mut ring = Ring::new([(1, nic)]);
        (ring.taken, ring.given) = (history, history);
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

    fn drain(&mut self) -> Result<u32, Error> {
        let shared = GuestRing::new(&self.memory, GuestAddress(ADDRESS)).unwrap();
        let drained = self.ring.drain(&shared, &self.memory)?;
        Ok(drained.requests)
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
        let mut guest = Guest::new();
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

/// The guest of a [`Worker`], which has its ring.
struct Served<'m> {
    worker: Worker<GuestRing<'m>>,
    guest: &'m Guest,
    submitted: u32,
}

extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Runs `test` with a guest that may flood. Its alarm does nothing; the test plays it.
fn with_worker(test: impl FnOnce(Served<'_>)) {
    vmm_sys_util::signal::register_signal_handler(libc::SIGALRM, ignore).unwrap();
    let mut guest = Guest::new();
    let ring = std::mem::replace(&mut guest.ring, Ring::new([]));
    let shared = GuestRing::new(&guest.memory, GuestAddress(ADDRESS)).unwrap();
    test(Served {
        worker: Worker::new(ring, shared, Some(Alarm::new().unwrap())),
        guest: &guest,
        submitted: 0,
    });
}

impl Served<'_> {
    /// Submits requests without a kick.
    fn submit(&mut self, operation: u32, count: u32) {
        for _ in 0..count {
            let entry = Entry {
                operation,
                handle: 1,
                data: BUFFER,
                len: 64,
                id: self.submitted,
                reserved: 0,
            };
            let slot = ENTRIES_OFFSET + (self.submitted % ENTRIES) as usize * size_of::<Entry>();
            let place = GuestAddress(ADDRESS + slot as u64);
            self.guest.memory.place(place, entry.as_bytes()).unwrap();
            self.submitted += 1;
            self.guest.put(ENT_TAIL, self.submitted);
        }
    }

    /// Sends frames with a kick for each.
    fn kick(&mut self, frames: u32) {
        for _ in 0..frames {
            self.submit(OP_WRITE, 1);
            self.worker.drain(&self.guest.memory).unwrap();
        }
    }

    fn interrupt(&mut self) {
        self.worker.interrupted(&self.guest.memory).unwrap();
    }

    /// Returns how many frames have arrived.
    fn arrived(&self) -> usize {
        std::iter::from_fn(|| self.guest.received()).count()
    }

    fn wants_kicks(&self) -> bool {
        self.guest.get(NEEDS_KICK) != 0
    }
}

#[test]
fn a_flood_is_sent_without_kicks_for_as_long_as_it_lasts() {
    with_worker(|mut served| {
        served.kick(15);
        assert!(served.wants_kicks());
        served.kick(1);
        assert!(!served.wants_kicks());
        assert_eq!(served.arrived(), 16);
        for _ in 0..3 {
            served.submit(OP_WRITE, 40);
            assert_eq!(served.arrived(), 0);
            served.interrupt();
            assert_eq!((served.arrived(), served.wants_kicks()), (40, false));
        }
        served.interrupt();
        assert!(
            served.wants_kicks(),
            "a guest that sends nothing kicks again"
        );
    });
}

/// Each flood that ends in its first nap doubles the length of the next streak; another does not.
#[test]
fn a_flood_that_did_not_pay_makes_the_next_one_later() {
    with_worker(|mut served| {
        for limit in [16, 32, 64, 128, 128] {
            served.kick(limit - 1);
            assert!(served.wants_kicks(), "{limit}");
            served.kick(1);
            assert!(!served.wants_kicks(), "{limit}");
            served.submit(OP_WRITE, 3);
            served.interrupt();
            assert!(served.wants_kicks(), "{limit}");
            served.arrived();
        }
        served.kick(128);
        served.submit(OP_WRITE, 4);
        served.interrupt();
        assert!(!served.wants_kicks());
        served.interrupt();
        served.kick(32);
        assert!(!served.wants_kicks());
    });
}

#[test]
fn a_guest_that_receives_or_sleeps_kicks_again() {
    let ends: [fn(&mut Served<'_>); 2] = [
        |served| {
            served.submit(OP_READ, 1);
            served.interrupt();
        },
        |served| served.worker.quiesce(&served.guest.memory).unwrap(),
    ];
    for end in ends {
        with_worker(|mut served| {
            served.kick(16);
            served.submit(OP_WRITE, 100);
            end(&mut served);
            assert!(served.wants_kicks());
            assert_eq!(served.arrived(), 116);
            served.interrupt();
            assert!(served.wants_kicks(), "a late alarm changes nothing");
        });
    }
}

#[test]
fn requests_and_replies_never_become_a_flood() {
    with_worker(|mut served| {
        for _ in 0..100 {
            served.kick(15);
            served.submit(OP_READ, 1);
            served.worker.drain(&served.guest.memory).unwrap();
            assert!(served.wants_kicks());
            served.arrived();
        }
    });
}

#[test]
fn an_interruption_reports_violations() {
    with_worker(|mut served| {
        served.kick(16);
        served.guest.put(ENT_TAIL, 5000);
        assert!(matches!(
            served.worker.interrupted(&served.guest.memory),
            Err(Error::Distance { distance: 4984 })
        ));
    });
}
