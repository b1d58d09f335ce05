//! Who serves the ring when: the thread that runs the guest at each kick, or, while frames are sent one after the
//! other, a thread of its own that looks into the ring now and then and spares the guest its kicks.
//!
//! Only what is sent is worth that: a guest that receives waits for the answer, and nobody answers sooner than the
//! thread that it has just left. The second thread does not spin; it naps, and finds a few frames each time it wakes,
//! which pays on a single processor too: a nap's end costs the guest about as much as a kick, and stands for all of
//! them. Whether a takeover pays is learnt from how the last ones went.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::{self, Scope, Thread};
use std::time::{Duration, Instant};

use super::{ADDRESS, Drained, Error, GuestRing, Ring, Shared, may_sleep};
use crate::host::signal;
use crate::host::threads::report;
use crate::memory::{GuestAddress, GuestMemory};

/// How long the second thread naps between two looks, in nanoseconds. A flood of a million frames a second does not
/// fill a tenth of the ring in this time.
const NAP: Duration = Duration::from_micros(50);

/// How long the ring may be empty before the second thread asks for kicks again and sleeps: so many times the time
/// between two frames before it took over, but within bounds, in nanoseconds.
const PATIENT_GAPS: u64 = 4;
const LEAST_PATIENCE: u64 = 100_000;
const MOST_PATIENCE: u64 = 2_000_000;

/// Frames sent in a row, nothing received and the guest never out of work, after which the second thread takes over: at
/// first and at least, and at most.
const LEAST_STREAK: u32 = 16;
const MOST_STREAK: u32 = 128;

/// Frames for which a takeover has paid.
const WORTHWHILE: u32 = 64;

/// Has the kernel wake this thread when it asked to be, instead of up to 50 µs later.
fn nap_exactly() {
    // SAFETY: the call takes plain numbers, and concerns this thread only.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

/// What the two threads share beside the ring.
#[derive(Debug, Default)]
pub struct Parallel {
    /// The second thread is to take over.
    pub(super) awake: AtomicBool,
    /// The run is over.
    stop: AtomicBool,
    /// Frames in a row that bring about the next takeover.
    pub(super) streak: AtomicU32,
    /// How long the ring may be empty, in nanoseconds.
    patience: AtomicU64,
    /// How the guest broke the ring's rules, found by the second thread.
    broken: Mutex<Option<Error>>,
}

impl Parallel {
    /// Nothing is going on yet.
    pub fn new() -> Parallel {
        Parallel {
            streak: AtomicU32::new(LEAST_STREAK),
            ..Parallel::default()
        }
    }

    /// Starts the second thread, confined by `confine` when this returns; if the host has no thread, returns none, and
    /// the first thread serves the ring alone.
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
            signal::leave_to_the_guests_thread();
            nap_exactly();
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
                log::debug!("network ring: a second thread serves it, too");
                Ok(Some(handle.thread().clone()))
            }
            Err(error) => {
                log::warn!(
                    "no second thread for the network ring: {error}; one thread does it all"
                );
                Ok(None)
            }
        }
    }

    /// Ends the second thread.
    pub fn stop(&self, thread: &Thread) {
        self.stop.store(true, Ordering::SeqCst);
        thread.unpark();
    }

    /// What the second thread found broken, if it did.
    pub fn broken(&self) -> Option<Error> {
        self.broken.lock().ok()?.take()
    }

    /// The second thread: sleeps until it is to take over, until the run is over. `alarm` interrupts the guest, so
    /// that its thread comes to look at [`Parallel::broken`].
    pub fn serve(&self, ring: &Ring, shared: &impl Shared, memory: &GuestMemory, alarm: impl Fn()) {
        while !self.stop.load(Ordering::SeqCst) {
            if !self.awake.swap(false, Ordering::SeqCst) {
                thread::park();
                continue;
            }
            match self.watch(ring, shared, memory) {
                Ok(served) => self.learn(served),
                Err(error) => {
                    if let Ok(mut broken) = self.broken.lock() {
                        *broken = Some(error);
                    }
                    return alarm();
                }
            }
        }
    }

    /// Serves the ring until nothing has been sent for a while, the guest receives, or the run is to end; returns the
    /// number of requests.
    ///
    /// The end of the run is checked first: if a receive buffer overlaps the ring, received bytes move the ring's
    /// index, so a peer can add requests without end. The last drain, after the guest has stopped, serves the rest.
    fn watch(&self, ring: &Ring, shared: &impl Shared, memory: &GuestMemory) -> Result<u32, Error> {
        let patience = Duration::from_nanos(self.patience.load(Ordering::Relaxed));
        let mut served = 0_u32;
        let mut last = Instant::now();
        shared.want_kicks(false);
        while !self.is_over() {
            let drained = ring.consumer().drain(shared, memory)?;
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

    /// Whether the run has ended, or a signal asks for its end, in which case the guest's thread may wait for the ring.
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst) || signal::received().is_some()
    }

    /// Takes over sooner next time if it paid this time, and later if it did not.
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

/// The ring as the thread that runs the guest serves it.
pub struct Worker<'r, S> {
    ring: &'r Ring,
    shared: S,
    /// The second thread, if the host let us have one.
    second: Option<(&'r Parallel, Thread)>,
    /// All requests up to here are known to be done.
    done: u32,
    /// Requests in a row.
    pub(super) streak: u32,
    /// When the guest was first heard of since it last had nothing to do, and of how many requests since.
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

    /// A kick, or any moment at which requests must be done before something else. No lock where there are none.
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

    /// What the second thread found broken, if it did.
    pub fn broken(&self) -> Option<Error> {
        self.second
            .as_ref()
            .and_then(|(parallel, _)| parallel.broken())
    }

    /// The guest has nothing to do for the moment, so what it has sent goes out now. A row of frames may go on after
    /// it, but not for long: a ping now and then must not add up to a flood.
    pub fn calm(&mut self, memory: &GuestMemory) -> Result<(), Error> {
        self.drain(memory)?;
        self.start_over(self.streak / 2);
        Ok(())
    }
}
