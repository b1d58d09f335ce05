//! Whether a request can be lost: submitted, not kicked for, and not seen by a host that goes to
//! sleep. Every interleaving of the two sides is tried, on a machine that may delay each side's
//! stores until its next barrier.
//!
//! The host's side is not written here: it is recorded from [`may_sleep`].

use std::cell::RefCell;
use std::collections::HashSet;

use super::super::{Shared, may_sleep};
use guest_abi::ring::{Commit, Entry};

/// A step of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// Stores to the variable of this side: the guest its tail, the host its wish for kicks.
    Store,
    Barrier,
    /// Loads the other side's variable; the decision depends on it.
    Load,
}

/// Records the host's steps.
#[derive(Default)]
struct Recorder(RefCell<Vec<Step>>);

impl Shared for Recorder {
    fn submitted(&self) -> u32 {
        self.0.borrow_mut().push(Step::Load);
        0
    }
    fn want_kicks(&self, wanted: bool) {
        assert!(wanted);
        self.0.borrow_mut().push(Step::Store);
    }
    fn barrier(&self) {
        self.0.borrow_mut().push(Step::Barrier);
    }
    fn entry(&self, _: u32) -> Entry {
        unreachable!("the handshake looks at indices only")
    }
    fn publish_taken(&self, _: u32) {
        unreachable!("the handshake takes nothing")
    }
    fn write_commit(&self, _: u32, _: Commit) {
        unreachable!("the handshake replies to nothing")
    }
    fn publish_given(&self, _: u32) {
        unreachable!("the handshake replies to nothing")
    }
}

/// Section 11.3: store the tail, full barrier, read whether a kick is wanted.
const GUEST: [Step; 3] = [Step::Store, Step::Barrier, Step::Load];

fn host() -> Vec<Step> {
    let recorder = Recorder::default();
    may_sleep(&recorder, 0);
    recorder.0.into_inner()
}

/// The state of one side: its next step, whether its store is made, whether the store is visible to
/// the other, and whether it saw the other's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Side {
    next: usize,
    stored: bool,
    visible: bool,
    saw_other: bool,
}

/// Explores every order; returns whether one exists in which neither side sees the other.
fn can_be_lost(guest: &[Step], host: &[Step]) -> bool {
    let programs = [guest, host];
    let mut known = HashSet::new();
    let mut open = vec![[Side::default(); 2]];
    while let Some(state) = open.pop() {
        if !known.insert(state) {
            continue;
        }
        if (0..2).all(|side| state[side].next == programs[side].len())
            && !state[0].saw_other
            && !state[1].saw_other
        {
            return true;
        }
        for (side, program) in programs.into_iter().enumerate() {
            open.extend(successors(&state, side, program));
        }
    }
    false
}

fn successors(state: &[Side; 2], side: usize, program: &[Step]) -> Vec<[Side; 2]> {
    let mut all = Vec::new();
    let change = |f: &dyn Fn(&mut Side)| {
        let mut next = *state;
        f(&mut next[side]);
        next
    };
    let me = state[side];
    if me.stored && !me.visible {
        all.push(change(&|side| side.visible = true));
    }
    match program.get(me.next) {
        Some(Step::Store) => all.push(change(&|side| {
            (side.stored, side.next) = (true, side.next + 1)
        })),
        // A barrier waits until the store before it is visible.
        Some(Step::Barrier) if me.stored && !me.visible => {}
        Some(Step::Barrier) => all.push(change(&|side| side.next += 1)),
        Some(Step::Load) => {
            let seen = state[1 - side].visible;
            all.push(change(&|side| {
                (side.saw_other, side.next) = (seen, side.next + 1)
            }));
        }
        None => {}
    }
    all
}

#[test]
fn no_request_is_lost_in_any_interleaving() {
    assert_eq!(host(), [Step::Store, Step::Barrier, Step::Load]);
    assert!(!can_be_lost(&GUEST, &host()));
}

/// The exploration does find errors: without either barrier, or with the steps swapped, requests
/// are lost.
#[test]
fn without_a_barrier_or_in_another_order_requests_are_lost() {
    let without = |steps: &[Step]| -> Vec<Step> {
        steps
            .iter()
            .copied()
            .filter(|step| *step != Step::Barrier)
            .collect()
    };
    assert!(can_be_lost(&without(&GUEST), &host()));
    assert!(can_be_lost(&GUEST, &without(&host())));
    assert!(can_be_lost(
        &GUEST,
        &[Step::Load, Step::Barrier, Step::Store]
    ));
}
