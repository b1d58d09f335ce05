//! When requests are served. By default the guest kicks for each, and is answered immediately. A
//! kick costs about as much as a hypercall. The guest also copies each frame, so a round trip takes
//! slightly longer (docs/decisions/13-ring.md).
//!
//! While the guest sends frames back to back, it need not kick: a timer interrupts it, and its
//! frames are sent together. This pays for sending only: a guest that receives waits for the reply.
//! The benefit of recent floods decides how many frames in a row start the next one.

use super::{Drained, Error, Ring, Shared};
use crate::host::signal::Alarm;
use crate::memory::GuestMemory;

/// How long a guest that does not kick runs until its frames are sent, in nanoseconds. A flood of
/// four million frames per second fills less than a quarter of the ring in this time.
const NAP: u64 = 50_000;

/// Consecutive frames sent, with nothing received and the guest always busy, after which kicks are
/// disabled: minimum (also the initial number), and maximum.
const LEAST_STREAK: u32 = 16;
const MOST_STREAK: u32 = 128;

/// Number of frames in one nap for which an interruption has paid: it costs as much as two kicks.
const WORTHWHILE: u32 = 4;

/// Serves a ring on the guest's thread.
#[derive(Debug)]
pub struct Worker<S> {
    ring: Ring,
    shared: S,
    /// Interrupts the guest, if the host could make a timer.
    alarm: Option<Alarm>,
    /// The guest does not kick; the alarm is set.
    in_flood: bool,
    /// Consecutive frames sent, and the number of them after which kicks are disabled.
    streak: u32,
    limit: u32,
}

impl<S: Shared> Worker<S> {
    /// Serves `ring`; kicks are wanted from the start, and always without `alarm`.
    pub fn new(ring: Ring, shared: S, alarm: Option<Alarm>) -> Worker<S> {
        shared.want_kicks(true);
        Worker {
            ring,
            shared,
            alarm,
            in_flood: false,
            streak: 0,
            limit: LEAST_STREAK,
        }
    }

    /// Returns the ID of the alarm's timer, if there is one.
    pub fn alarm(&self) -> Option<i32> {
        self.alarm.as_ref().map(Alarm::id)
    }

    /// Returns the ring, for statistics.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Serves a kick.
    #[inline]
    pub fn kicked(&mut self, memory: &GuestMemory) -> Result<(), Error> {
        self.drain_some(memory).map(drop)
    }

    /// Serves an event before which requests must be done.
    #[inline]
    pub fn drain(&mut self, memory: &GuestMemory) -> Result<(), Error> {
        if self.shared.submitted() == self.ring.taken {
            Ok(())
        } else {
            self.drain_some(memory).map(drop)
        }
    }

    fn drain_some(&mut self, memory: &GuestMemory) -> Result<Drained, Error> {
        let drained = self.ring.drain(&self.shared, memory)?;
        if drained.replies > 0 {
            self.streak = 0;
            self.end_flood();
        } else {
            self.streak = self.streak.saturating_add(drained.requests);
            if self.streak >= self.limit && !self.in_flood {
                self.begin_nap();
            }
        }
        Ok(drained)
    }

    /// Lets the guest run without kicks until the alarm, or with kicks if there is none.
    fn begin_nap(&mut self) {
        self.in_flood = self.alarm.as_ref().is_some_and(|alarm| alarm.set(NAP));
        self.shared.want_kicks(!self.in_flood);
    }

    fn end_flood(&mut self) {
        if self.in_flood {
            self.in_flood = false;
            self.shared.want_kicks(true);
        }
    }

    /// Serves the guest after an interruption, which may be the alarm.
    pub fn interrupted(&mut self, memory: &GuestMemory) -> Result<(), Error> {
        if !self.in_flood {
            return Ok(());
        }
        let drained = self.drain_some(memory)?;
        if drained.requests >= WORTHWHILE {
            self.limit = LEAST_STREAK;
            if self.in_flood {
                self.begin_nap();
            }
        } else {
            self.limit = (2 * self.limit).min(MOST_STREAK);
            self.streak = 0;
            self.end_flood();
        }
        Ok(())
    }

    /// Sends pending frames, because the guest is idle now. A streak may continue afterwards, but
    /// not for long: occasional pings must not add up to a flood.
    pub fn quiesce(&mut self, memory: &GuestMemory) -> Result<(), Error> {
        self.drain(memory)?;
        self.streak /= 2;
        self.end_flood();
        Ok(())
    }
}
