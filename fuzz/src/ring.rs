//! The shared network ring: a guest that changes it arbitrarily between any two reads of the
//! tender. Both the ring in guest memory and the code that takes its requests are tested. At the
//! end
//!
//! * guest memory is unchanged except for the tender's three indices, the replies given and the
//!   buffers of the receive requests, as the tender read them: once;
//! * no more was taken than there are slots, and each receive request got its one reply, in order;
//! * memory that the guest may not write is unchanged.
//!
//! An input is the initial indices, the access to some pages, and then steps. The guest's
//! concurrent changes are taken from the same bytes.

use std::cell::RefCell;
use std::os::unix::net::UnixDatagram;

use guest_abi::ring::{
    COM_TAIL, COMMITS_OFFSET, Commit, ENT_HEAD, ENT_TAIL, ENTRIES, ENTRIES_OFFSET, Entry,
    NEEDS_KICK, OP_READ, SIZE,
};
use tender::config::InheritedFd;
use tender::config::NetSource;
use tender::devices::ring::{ADDRESS, END, GuestRing, Ring, Shared, Worker};
use tender::memory::{Access, GuestAddress, GuestMemory, Mapping, PAGE_SIZE};
use tender::net::Nic;
use zerocopy::IntoBytes;

use super::devices;
use super::input::Input;
use super::memory::contents;

/// The ring's pages, and a few after them for buffers.
const MEMORY: u64 = END + 4 * PAGE_SIZE;

/// Most steps of one run.
const STEPS: usize = 24;

/// Runs a ring whose events are `bytes`.
pub fn check(bytes: &[u8]) {
    let before = devices::next_descriptor();
    let mut input = Input::new(bytes);
    let (nics, wires): (Vec<_>, Vec<_>) = (1..=2).map(interface).unzip();
    let mut memory = GuestMemory::new(MEMORY).expect("less than 256 KiB");
    let mappings = mappings(input.u8());
    memory.protect(mappings.to_vec());
    let ring = Ring::new(nics);
    let shared = GuestRing::new(&memory, GuestAddress(ADDRESS)).expect("it is within memory");
    let state = RefCell::new(State {
        input,
        model: vec![0; MEMORY as usize],
        taken: 0,
        given: 0,
        replies: 0,
        pending: None,
    });
    let hostile = Hostile {
        shared,
        memory: &memory,
        mappings: &mappings,
        state: &state,
    };
    let mut worker = Worker::new(ring, hostile, None);
    for _ in 0..STEPS {
        if state.borrow().input.is_empty() || !step(&mut worker, hostile, &wires) {
            break;
        }
    }
    hostile.check();
    drop((worker, wires));
    assert_eq!(
        devices::next_descriptor(),
        before,
        "a descriptor has leaked"
    );
}

/// An interface with its handle, and its peer.
fn interface(handle: usize) -> ((usize, Nic), UnixDatagram) {
    let (option, far) = devices::wire(libc::SOCK_DGRAM);
    let source = option
        .source
        .unwrap_or(NetSource::Fd(InheritedFd::Number(-1)));
    (
        (
            handle,
            Nic::attach(&source, Some([2; 6])).expect("a socket"),
        ),
        far,
    )
}

/// All writable except the tables, and two pages whose access is given.
fn mappings(bits: u8) -> Vec<Mapping> {
    let access = |bits: u8| {
        [
            Access::ReadWrite,
            Access::ReadExecute,
            Access::Read,
            Access::None,
        ][usize::from(bits & 3)]
    };
    vec![
        Mapping {
            range: 0..0x1_0000,
            access: Access::None,
        },
        Mapping {
            range: 0x1_0000..ADDRESS,
            access: Access::Read,
        },
        Mapping {
            range: ADDRESS..END + PAGE_SIZE,
            access: Access::ReadWrite,
        },
        Mapping {
            range: END + PAGE_SIZE..END + 2 * PAGE_SIZE,
            access: access(bits),
        },
        Mapping {
            range: END + 2 * PAGE_SIZE..END + 3 * PAGE_SIZE,
            access: Access::ReadWrite,
        },
        Mapping {
            range: END + 3 * PAGE_SIZE..MEMORY,
            access: access(bits >> 2),
        },
    ]
}

/// Performs one event; returns false when the guest has violated the ring's protocol and its run is
/// over.
fn step(
    worker: &mut Worker<Hostile<'_, '_>>,
    hostile: Hostile<'_, '_>,
    wires: &[UnixDatagram],
) -> bool {
    let (kind, count) = {
        let input = &mut hostile.state.borrow_mut().input;
        (input.u8(), input.u8())
    };
    let memory = hostile.memory;
    let ended = match kind & 7 {
        0 | 1 => {
            let (taken, _) = hostile.counts();
            let served = worker.kicked(memory);
            let (taken_now, replies) = hostile.counts();
            assert!(taken_now.wrapping_sub(taken) <= ENTRIES);
            let given_now = hostile.state.borrow().given;
            if served.is_ok() {
                assert_eq!(given_now, replies);
            }
            served
        }
        2 => worker.drain(memory),
        3 => worker.quiesce(memory),
        4 => worker.interrupted(memory),
        5 => {
            let frame = [kind; 1024];
            let _ = wires[usize::from(count & 1)].send(&frame[..usize::from(count) * 4]);
            Ok(())
        }
        6 => {
            let _ = wires[usize::from(count & 1)].recv(&mut [0; 64]);
            Ok(())
        }
        _ => {
            (0..=count & 15).for_each(|_| hostile.submit());
            Ok(())
        }
    };
    hostile.settle();
    ended.is_ok()
}

/// The ring as the tender sees it, with a guest that acts before each read.
#[derive(Clone, Copy)]
struct Hostile<'m, 'i> {
    shared: GuestRing<'m>,
    memory: &'m GuestMemory,
    mappings: &'m [Mapping],
    state: &'m RefCell<State<'i>>,
}

struct State<'i> {
    input: Input<'i>,
    /// Expected guest memory: written by the guest, or allowed for the tender.
    model: Vec<u8>,
    /// The tender's indices, as published, and how many requests were to receive.
    taken: u32,
    given: u32,
    replies: u32,
    /// The request that the tender serves.
    pending: Option<Entry>,
}

impl Hostile<'_, '_> {
    /// Returns the requests taken and the replies owed so far.
    fn counts(&self) -> (u32, u32) {
        let state = self.state.borrow();
        (state.taken, state.replies)
    }

    /// Writes as the guest.
    fn put(&self, offset: usize, data: &[u8]) {
        let address = ADDRESS as usize + offset;
        self.memory
            .place(GuestAddress(address as u64), data)
            .expect("it is within memory");
        self.state.borrow_mut().model[address..address + data.len()].copy_from_slice(data);
    }

    /// Copies from memory what the tender has just written, or may write from now on.
    fn allow(&self, address: u64, len: u64) {
        let mut bytes = vec![0; len as usize];
        self.memory
            .bytes(GuestAddress(address), len)
            .expect("it is within memory")
            .copy_to(&mut bytes);
        self.state.borrow_mut().model[address as usize..][..bytes.len()].copy_from_slice(&bytes);
    }

    /// Ends a request: if it was to receive, into memory that the guest may write, its buffer may
    /// have changed.
    fn settle(&self) {
        let Some(entry) = self.state.borrow_mut().pending.take() else {
            return;
        };
        let end = entry.data.saturating_add(entry.len.into());
        let refused = |mapping: &Mapping| {
            !mapping.access.is_writable()
                && entry.data.max(mapping.range.start) < end.min(mapping.range.end)
        };
        if entry.operation == OP_READ && end <= MEMORY && !self.mappings.iter().any(refused) {
            self.allow(entry.data, entry.len.into());
        }
    }

    /// Checks that memory is as expected.
    fn check(&self) {
        let state = self.state.borrow();
        let real = contents(self.memory);
        if real != state.model {
            let at = (0..real.len()).find(|&at| real[at] != state.model[at]);
            panic!("memory has changed, first at {at:x?}");
        }
    }

    /// Lets the guest act between two reads of the tender; usually it does nothing.
    fn interfere(&self) {
        let (what, place, value) = {
            let input = &mut self.state.borrow_mut().input;
            match input.u8() {
                0..0x80 => return,
                what => (what, input.u16(), input.u32()),
            }
        };
        let taken = self.counts().0;
        match what & 7 {
            0 => self.put(
                ENT_TAIL,
                &taken.wrapping_add(value % (2 * ENTRIES)).to_le_bytes(),
            ),
            1 => self.put(ENT_TAIL, &value.to_le_bytes()),
            2 => self.put(ENT_HEAD, &value.to_le_bytes()),
            3 => self.put(COM_TAIL, &value.to_le_bytes()),
            4 => self.put(NEEDS_KICK, &value.to_le_bytes()),
            5 => self.put(usize::from(place) % (SIZE - 4), &value.to_le_bytes()),
            _ => self.submit(),
        }
    }

    /// Writes a request into the slot after the guest's last submitted one, and usually submits it.
    fn submit(&self) {
        let tail = self
            .memory
            .read::<u32>(GuestAddress(ADDRESS + ENT_TAIL as u64))
            .expect("the ring");
        let (entry, submits) = {
            let mut state = self.state.borrow_mut();
            let input = &mut state.input;
            let form = input.u8();
            let data = match form & 7 {
                0..5 => END + u64::from(input.u16()) % (4 * PAGE_SIZE),
                5 => u64::from(input.u32()),
                6 => MEMORY - u64::from(input.u8()),
                _ => input.u64(),
            };
            let len = if form & 0x80 == 0 {
                u32::from(input.u16()) & 0x7ff
            } else {
                input.u32()
            };
            let operation = u32::from(form >> 3 & 3);
            let handle = u32::from(input.u8()) & 3;
            (
                Entry {
                    operation,
                    handle,
                    data,
                    len,
                    id: tail,
                    reserved: 0,
                },
                form & 0x60 != 0x60,
            )
        };
        let slot = (tail % ENTRIES) as usize;
        self.put(ENTRIES_OFFSET + slot * size_of::<Entry>(), entry.as_bytes());
        if submits {
            self.put(ENT_TAIL, &tail.wrapping_add(1).to_le_bytes());
        }
    }
}

impl Shared for Hostile<'_, '_> {
    fn submitted(&self) -> u32 {
        self.interfere();
        self.shared.submitted()
    }

    fn entry(&self, index: u32) -> Entry {
        assert_eq!(
            index,
            self.state.borrow().taken,
            "requests are taken in order"
        );
        self.settle();
        self.interfere();
        let entry = self.shared.entry(index);
        // From here on, the guest's changes must have no effect, and only the requested bytes may
        // be written.
        {
            let mut state = self.state.borrow_mut();
            state.pending = Some(entry);
            state.replies += u32::from(entry.operation == OP_READ);
        }
        self.interfere();
        entry
    }

    fn publish_taken(&self, taken: u32) {
        self.settle();
        self.shared.publish_taken(taken);
        self.state.borrow_mut().taken = taken;
        self.allow(ADDRESS + ENT_HEAD as u64, 4);
        self.interfere();
    }

    fn write_commit(&self, index: u32, commit: Commit) {
        assert_eq!(
            index,
            self.state.borrow().given,
            "replies are given in order"
        );
        self.settle();
        self.interfere();
        self.shared.write_commit(index, commit);
        let slot = u64::from(index % ENTRIES);
        self.allow(
            ADDRESS + COMMITS_OFFSET as u64 + slot * size_of::<Commit>() as u64,
            size_of::<Commit>() as u64,
        );
    }

    fn publish_given(&self, given: u32) {
        self.interfere();
        self.shared.publish_given(given);
        self.state.borrow_mut().given = given;
        self.allow(ADDRESS + COM_TAIL as u64, 4);
    }

    fn want_kicks(&self, wanted: bool) {
        self.interfere();
        self.shared.want_kicks(wanted);
        self.allow(ADDRESS + NEEDS_KICK as u64, 4);
    }
}
