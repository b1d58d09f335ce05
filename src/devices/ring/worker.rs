//! The thread that serves the ring: the guest's thread at each kick or, while the guest sends
//! frames back to back, a second thread that polls the ring and saves the guest its kicks.
//!
//! This pays for sending only: a guest that receives waits for the reply, and its own thread has
//! already left the guest, so it replies soonest. The second thread does not spin. It sleeps, and
//! finds a few frames at each wake-up, which pays on a single processor too: a wake-up costs the
//! guest about as much as one kick and replaces all of them. The benefit of recent takeovers
//! decides when the next one happens.

use std::num::NonZeroU64;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::{self, Scope, Thread};
use std::time::{Duration, Instant};

use rustix::thread::set_current_timer_slack;

use super::{ADDRESS, Drained, Error, GuestRing, Ring, Shared, may_sleep};
use crate::host::threads::report;
use crate::host::{lease, signal};
use crate::memory::{GuestAddress, GuestMemory};

/// Sleep of the second thread between two polls. A flood of a million frames per second fills less
/// than a tenth of the ring in this time.
const NAP: Duration = Duration::from_micros(50);

/// How long the ring may be empty before the second thread asks for kicks again and sleeps: this
/// multiple of the mean gap between two frames before the takeover, within bounds in nanoseconds.
const PATIENT_GAPS: u64 = 4;
const LEAST_PATIENCE: u64 = 100_000;
const MOST_PATIENCE: u64 = 2_000_000;

/// Consecutive frames sent, with nothing received and the guest always busy, after which the second
/// thread takes over: the initial and least number, and the largest.
const LEAST_STREAK: u32 = 16;
const MOST_STREAK: u32 = 128;

/// Number of frames for which a takeover has paid.
const WORTHWHILE: u32 = 64;

/// Makes the kernel wake this thread on time instead of up to 50 µs later.
fn disable_timer_slack() {
    let _ = set_current_timer_slack(Some(NonZeroU64::MIN));
}

/// State shared by the two threads in addition to the ring.
#[derive(Debug, Default)]
pub struct Parallel {
    /// The second thread should take over.
    pub(super) awake: AtomicBool,
    /// The run is over.
    stop: AtomicBool,
    /// Consecutive frames that cause the next takeover.
    pub(super) streak: AtomicU32,
    /// How long the ring may be empty, in nanoseconds.
    patience: AtomicU64,
    /// Contract violation found by the second thread.
    violation: Mutex<Option<Error>>,
}

impl Parallel {
    /// Returns the state at the start: idle.
    pub fn new() -> Parallel {
        Parallel {
            streak: AtomicU32::new(LEAST_STREAK),
            ..Parallel::default()
        }
    }

    /// Starts the second thread; `confine` has confined it when this returns. If the host cannot
    /// start a thread, returns none, and the first thread serves the ring alone.
    ///
    /// # Errors
    /// Those of `confine`.
    pub fn start<'scope, 'env, E: Send + 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        ring: &'env Ring,
        memory: &'env GuestMemory,
        confine: impl FnOnce() -> Result<(), E> + Send + 'env,
    ) -> Result<Option<Thread>, E> {
        let (reporter, confinement) = report();
        let serve = move || {
            signal::block_all_signals();
            disable_timer_slack();
            let result = confine();
            let is_confined = result.is_ok();
            reporter.send(result);
            if let (true, Ok(shared)) = (is_confined, GuestRing::new(memory, GuestAddress(ADDRESS)))
            {
                self.serve(ring, &shared, memory, signal::alarm);
            }
        };
        match thread::Builder::new()
            .name("ring".to_owned())
            .spawn_scoped(scope, serve)
        {
            Ok(handle) => {
                confinement.wait()?;
                log::debug!("network ring: started a second thread");
                Ok(Some(handle.thread().clone()))
            }
            Err(error) => {
                log::warn!("cannot start the ring thread: {error}; continuing single-threaded");
                Ok(None)
            }
        }
    }

    /// Ends the second thread.
    pub fn stop(&self, thread: &Thread) {
        self.stop.store(true, Ordering::SeqCst);
        thread.unpark();
    }

    /// Returns the violation that the second thread found, if any.
    pub fn violation(&self) -> Option<Error> {
        self.violation.lock().ok()?.take()
    }

    /// Runs the second thread: sleeps until a takeover, until the run is over. `alarm` interrupts
    /// the guest, so that its thread checks [`Parallel::violation`].
    pub fn serve(&self, ring: &Ring, shared: &impl Shared, memory: &GuestMemory, alarm: impl Fn()) {
        while !self.stop.load(Ordering::SeqCst) {
            if !self.awake.swap(false, Ordering::SeqCst) {
                thread::park();
                continue;
            }
            match self.watch(ring, shared, memory) {
                Ok(served) => self.learn(served),
                Err(error) => {
                    if let Ok(mut violation) = self.violation.lock() {
                        *violation = Some(error);
                    }
                    return alarm();
                }
            }
        }
    }

    /// Serves the ring until nothing has been sent for a while, the guest receives, or the run is
    /// to end; returns the number of requests.
    ///
    /// The end of the run is checked first: if a receive buffer overlaps the ring, received bytes
    /// move the ring's index, so a peer can add requests without end. The last drain, after the
    /// guest has stopped, serves the rest.
    fn watch(&self, ring: &Ring, shared: &impl Shared, memory: &GuestMemory) -> Result<u32, Error> {
        let patience = Duration::from_nanos(self.patience.load(Ordering::Relaxed));
        let mut served = 0_u32;
        let mut last = Instant::now();
        shared.want_kicks(false);
        while !self.is_over() {
            let mut consumer = ring.consumer();
            let writing = lease::writing();
            let drained = consumer.drain(shared, memory)?;
            drop((writing, consumer));
            served = served.saturating_add(drained.requests);
            if drained.requests > 0 {
                last = Instant::now();
            }
            if drained.replies > 0 || last.elapsed() > patience {
                if may_sleep(shared, ring.consumer().taken) {
                    break;
                }
                shared.want_kicks(false);
            } else {
                thread::sleep(NAP);
            }
        }
        Ok(served)
    }

    /// Returns whether the run has ended, or a signal asks for its end, in which case the guest's
    /// thread may wait for the ring.
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst) || signal::received().is_some()
    }

    /// Takes over sooner next time if this takeover paid, and later if not.
    fn learn(&self, served: u32) {
        let streak = self.streak.load(Ordering::Relaxed);
        let next = if served >= WORTHWHILE {
            streak / 2
        } else {
            streak * 2
        };
        self.streak
            .store(next.clamp(LEAST_STREAK, MOST_STREAK), Ordering::Relaxed);
    }
}

/// The ring as served by the guest's thread.
pub struct Worker<'r, S> {
    ring: &'r Ring,
    shared: S,
    /// The second thread, if the host could start one.
    second: Option<(&'r Parallel, Thread)>,
    /// All requests up to here are done.
    done: u32,
    /// Consecutive requests.
    pub(super) streak: u32,
    /// Time of the guest's first request since it was last idle, and the number of requests since.
    since: Option<Instant>,
    counted: u32,
}

impl<'r, S: Shared> Worker<'r, S> {
    /// Serves `ring`; kicks are wanted from the start.
    pub fn new(ring: &'r Ring, shared: S, second: Option<(&'r Parallel, Thread)>) -> Worker<'r, S> {
        shared.want_kicks(true);
        Worker {
            ring,
            shared,
            second,
            done: 0,
            streak: 0,
            since: None,
            counted: 0,
        }
    }

    /// Serves a kick, or any event before which requests must be done. Takes no lock if there are
    /// none.
    #[inline]
    pub fn drain(&mut self, memory: &GuestMemory) -> Result<(), Error> {
        if self.shared.submitted() == self.done {
            Ok(())
        } else {
            self.drain_some(memory)
        }
    }

    pub(super) fn drain_some(&mut self, memory: &GuestMemory) -> Result<(), Error> {
        let mut consumer = self.ring.consumer();
        let Drained { requests, replies } = consumer.drain(&self.shared, memory)?;
        self.done = consumer.taken;
        drop(consumer);
        if replies > 0 {
            self.start_over(0);
            return Ok(());
        }
        self.streak = self.streak.saturating_add(requests);
        self.counted = self.counted.saturating_add(requests);
        let since = *self.since.get_or_insert_with(Instant::now);
        if let Some((parallel, thread)) = &self.second {
            if self.streak >= parallel.streak.load(Ordering::Relaxed) {
                let gap = since.elapsed().as_nanos() as u64 / u64::from(self.counted.max(1));
                let patience = gap
                    .saturating_mul(PATIENT_GAPS)
                    .clamp(LEAST_PATIENCE, MOST_PATIENCE);
                parallel.patience.store(patience, Ordering::Relaxed);
                parallel.awake.store(true, Ordering::SeqCst);
                thread.unpark();
                self.start_over(0);
            }
        }
        Ok(())
    }

    fn start_over(&mut self, streak: u32) {
        (self.streak, self.since, self.counted) = (streak, None, 0);
    }

    /// Returns the violation that the second thread found, if any.
    pub fn violation(&self) -> Option<Error> {
        self.second
            .as_ref()
            .and_then(|(parallel, _)| parallel.violation())
    }

    /// Sends pending frames, because the guest is idle now. A streak may continue afterwards, but
    /// not for long: occasional pings must not add up to a flood.
    pub fn quiesce(&mut self, memory: &GuestMemory) -> Result<(), Error> {
        self.drain(memory)?;
        self.start_over(self.streak / 2);
        Ok(())
    }
}
