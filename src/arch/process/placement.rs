//! Which processors tender and child run on: one for both, as they never run at the same time, and
//! the switch between them takes ten times as long across processors. Left alone, the kernel would
//! put the child on an idle processor. After each period of the guest's processor time, both may use
//! any processor until the guest stops again. So the kernel can move a guest that makes no hypercall.

#![expect(unsafe_code, reason = "sets of processors")]

use libc::{cpu_set_t, pid_t};

use crate::host::{ids, signal};

/// Processor time of the guest after which the kernel chooses again, in nanoseconds.
const PERIOD: u64 = 100_000_000;

/// The processors of this thread and the child.
#[derive(Debug)]
pub(super) struct Placement {
    /// Those that both may use; `None` if they cannot be found out or chosen.
    all: Option<cpu_set_t>,
    /// This thread, and the child once it exists.
    thread: pid_t,
    child: Option<pid_t>,
    /// The processor on which the child was created, until its first stop.
    first: Option<cpu_set_t>,
    /// Whether both are on one.
    is_shared: bool,
}

impl Placement {
    /// Keeps this thread on its processor, and so the child that it creates.
    pub(super) fn new() -> Placement {
        // SAFETY: the set is plain numbers, which the call writes.
        let all = unsafe {
            let mut all: cpu_set_t = std::mem::zeroed();
            (libc::sched_getaffinity(0, size_of_val(&all), &raw mut all) == 0).then_some(all)
        };
        let mut placement = Placement {
            all,
            thread: ids::thread(),
            child: None,
            first: this_processor(),
            is_shared: false,
        };
        if !placement.place(placement.first.as_ref()) {
            // A filter may reject the call: it is not made again.
            placement.all = None;
        }
        placement
    }

    /// Leaves `child` where it was created. This thread may be about to create another one, which
    /// must not stay there.
    pub(super) fn begin(&mut self, child: pid_t) {
        self.place(self.all.as_ref());
        self.child = Some(child);
        // Without the timer, both stay on one processor.
        let _ = signal::interrupt_each(child, PERIOD);
    }

    /// Keeps both on one processor, if they are not: that of this thread, which the kernel chose
    /// when the child stopped.
    #[inline]
    pub(super) fn share(&mut self) {
        if !self.is_shared {
            self.is_shared = true;
            let one = self.first.take().or_else(this_processor);
            self.place(one.as_ref());
        }
    }

    /// Lets the kernel choose for both.
    pub(super) fn release(&mut self) {
        if self.is_shared {
            self.is_shared = false;
            self.place(self.all.as_ref());
        }
    }

    /// Restricts both to these processors. Returns whether the kernel accepted it.
    fn place(&self, processors: Option<&cpu_set_t>) -> bool {
        let Some(processors) = processors.filter(|_| self.all.is_some()) else {
            return false;
        };
        let size = size_of::<cpu_set_t>();
        let tasks = [Some(self.thread), self.child];
        let mut results = tasks.into_iter().flatten().map(|task| {
            // SAFETY: the call reads the set.
            unsafe { libc::sched_setaffinity(task, size, processors) }
        });
        results.all(|result| result == 0)
    }
}

fn this_processor() -> Option<cpu_set_t> {
    // SAFETY: the call takes nothing, and the set is plain numbers.
    let (this, mut one): (_, cpu_set_t) = unsafe { (libc::sched_getcpu(), std::mem::zeroed()) };
    let this = usize::try_from(this).ok()?;
    // SAFETY: the set has a place for this number.
    (this < libc::CPU_SETSIZE as usize).then(|| unsafe { libc::CPU_SET(this, &mut one) })?;
    Some(one)
}
