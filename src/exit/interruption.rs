//! Exits that the guest did not request: a signal arrived, or KVM cannot run the guest now.

use std::io;
use std::thread;
use std::time::Duration;

use super::{Running, Violation};
use crate::arch;
use crate::host::signal::{self, Request};
use crate::outcome::{Error, Outcome};

/// Attempts, and the pause between them, to run a guest for which KVM can create no task.
const REFUSALS: u32 = 200;
const REFUSAL_PAUSE: Duration = Duration::from_millis(5);

impl Running<'_> {
    /// Handles a signal, the ring's alarm, or data from gdb.
    pub(super) fn interrupted(&mut self) -> Result<Option<Outcome>, Error> {
        self.registry.exits.interruptions.add(1);
        signal::clear_interrupt();
        match signal::received() {
            Some(Request::Signal(number)) => Ok(Some(Outcome::Signal(number))),
            Some(Request::Timeout) => Err(self.report_timeout()),
            None => {
                if let Some(worker) = &mut self.worker {
                    let served = worker.interrupted(self.guest.memory);
                    served.map_err(|error| self.report(Violation::Ring(error)))?;
                }
                let ended = self.serve_debugger()?;
                if ended.is_none() {
                    self.write_on()?;
                }
                Ok(ended)
            }
        }
    }

    /// Waits until KVM can create a task for its own thread, because another process may end.
    ///
    /// # Errors
    /// KVM cannot create one within about a second.
    pub(super) fn wait_until_runnable(&mut self) -> Result<(), Error> {
        for _ in 0..REFUSALS {
            thread::park_timeout(REFUSAL_PAUSE);
            if signal::received().is_some() || self.guest.vcpu.settle() {
                return Ok(());
            }
        }
        let source = io::Error::from_raw_os_error(libc::EAGAIN);
        Err(self.failed(arch::Error::Run { source }))
    }
}
