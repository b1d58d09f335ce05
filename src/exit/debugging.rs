//! The run loop beside a debugger: when that is asked, and what becomes of the run by what it answers.

use super::Running;
use crate::arch::Trap;
use crate::debug::{Next, Stopped};
use crate::host::signal::{self, Request};
use crate::outcome::{Error, Outcome};

/// With this status a guest says that it aborted. Section 8.
const ABORTED: u8 = 255;

impl Running<'_> {
    /// The guest has not run yet, or was interrupted and not for its end: its debugger may want something. Says how the
    /// run ended if it did.
    pub(super) fn look_after_debugger(&mut self) -> Result<Option<Outcome>, Error> {
        let Some(session) = &mut self.session else {
            return Ok(None);
        };
        let next = session.converse(&mut self.guest);
        self.after_debugger(next)
    }

    /// The processor stopped the guest for its debugger.
    #[cold]
    pub(super) fn trapped(&mut self, trap: Trap) -> Result<Option<Outcome>, Error> {
        // A trap without a debugger is one of a debugger that has just gone.
        let Some(session) = &mut self.session else {
            return Ok(None);
        };
        let next = session.stopped(&mut self.guest, Stopped::Trap(trap));
        self.after_debugger(next)
    }

    fn after_debugger(&mut self, next: Next) -> Result<Option<Outcome>, Error> {
        match next {
            Next::GoOn => self.guest.go_on()?,
            Next::Alone => {
                self.session = None;
                self.guest.let_go()?;
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

    /// The run is over, and the guest is still there: a debugger may look at one that came to a bad end.
    pub(super) fn show_end(&mut self, outcome: Result<Outcome, Error>) -> Result<Outcome, Error> {
        let Some(mut session) = self.session.take() else {
            return outcome;
        };
        let (why, status) = match &outcome {
            Ok(Outcome::Halted(ABORTED)) => (Some(Stopped::Aborted), Ok(ABORTED)),
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
        // A core file shows the guest's own instructions. The run is over whether this can be done or not.
        let _ = self.guest.let_go();
        outcome
    }
}
