//! The run loop with gdb attached: when gdb is served, and how its answers affect the run.

use guest_abi::hypercall::STATUS_ABORT;

use super::Running;
use crate::arch::Trap;
use crate::debug::{Next, Stopped};
use crate::host::signal::{self, Request};
use crate::outcome::{Error, Outcome};

impl Running<'_> {
    /// Serves gdb before the guest's first run, or after an interrupt that does not end the run.
    /// Returns the outcome if the run has ended.
    pub(super) fn serve_debugger(&mut self) -> Result<Option<Outcome>, Error> {
        let Some(session) = &mut self.session else {
            return Ok(None);
        };
        let next = session.serve(&mut self.guest);
        self.after_debugger(next)
    }

    /// Handles a stop of the vCPU for gdb.
    #[cold]
    pub(super) fn trapped(&mut self, trap: Trap) -> Result<Option<Outcome>, Error> {
        // A trap without a session belongs to a debugger that has just disconnected.
        let Some(session) = &mut self.session else {
            return Ok(None);
        };
        let next = session.stopped(&mut self.guest, Stopped::Trap(trap));
        self.after_debugger(next)
    }

    fn after_debugger(&mut self, next: Next) -> Result<Option<Outcome>, Error> {
        match next {
            Next::Resume => self.guest.apply_resume()?,
            Next::Detached => {
                self.session = None;
                self.guest.detach()?;
            }
            Next::Kill => {
                self.session = None;
                return Err(Error::Killed);
            }
            Next::Signal => match signal::received() {
                Some(Request::Signal(number)) => return Ok(Some(Outcome::Signal(number))),
                Some(Request::Timeout) => return Err(self.report_timeout()),
                None => {}
            },
        }
        Ok(None)
    }

    /// Reports the end of the run to gdb, which may inspect a guest that crashed.
    pub(super) fn report_end(&mut self, outcome: Result<Outcome, Error>) -> Result<Outcome, Error> {
        let Some(mut session) = self.session.take() else {
            return outcome;
        };
        let (why, status) = match &outcome {
            Ok(Outcome::Halted(STATUS_ABORT)) => (Some(Stopped::Aborted), Ok(STATUS_ABORT)),
            Ok(Outcome::Halted(status)) => (None, Ok(*status)),
            Ok(Outcome::Signal(number)) => (None, Err(*number)),
            Err(Error::Timeout { .. }) => (None, Err(libc::SIGALRM)),
            Err(error) => {
                log::warn!("{error}; guest is stopped until gdb lets it end");
                (Some(Stopped::Broken), Err(libc::SIGSEGV))
            }
        };
        if let Some(why) = why {
            self.guest.vcpu.settle();
            session.stopped(&mut self.guest, why);
        }
        session.ended(&mut self.guest, status);
        // Removes gdb's breakpoints, so that a core file has the guest's own instructions. The run
        // is over even if this fails.
        let _ = self.guest.detach();
        outcome
    }
}
