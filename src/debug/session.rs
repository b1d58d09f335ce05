//! The conversation with gdb: what it is told when the guest stops, and what it wants before the guest goes on.
//!
//! While the guest runs, nothing of this does. What gdb sends then arrives as a signal (SIGIO), which interrupts the
//! guest as any other does.

use std::io;
use std::os::fd::RawFd;

use gdbstub::common::Signal;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, SingleThreadStopReason};
use gdbstub::target::ext::breakpoints::WatchKind;

use super::guest::Guest;
use super::wire::Wire;
use crate::arch::{Trap, Watch};

type Machine<'m> = GdbStubStateMachine<'static, Guest<'m>, Wire>;

/// Why the guest stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The processor stopped it for the debugger.
    Trap(Trap),
    /// It halted, and says that it aborted.
    Aborted,
    /// It broke a promise, or cannot be run.
    Broken,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The guest goes on.
    GoOn,
    /// A signal ends the run, or its limit of time.
    Signal,
    /// The debugger ends the run.
    Kill,
    /// There is no debugger any more; the guest goes on by itself.
    Alone,
}

/// One debugger, connected.
pub struct Session<'m> {
    /// What knows gdb's protocol; none once the debugger has gone.
    machine: Option<Machine<'m>>,
    descriptor: RawFd,
}

/// Something went wrong with the connection, or the debugger speaks something else.
type Lost = Box<dyn std::error::Error>;

impl<'m> Session<'m> {
    /// Begins with a guest that has not run yet.
    pub(super) fn new(wire: Wire, guest: &mut Guest<'m>) -> Session<'m> {
        let descriptor = wire.descriptor();
        let machine = GdbStub::new(wire).run_state_machine(guest);
        let machine = machine
            .map_err(|error| log::warn!("cannot start the gdb session: {error}"))
            .ok();
        Session {
            machine,
            descriptor,
        }
    }

    /// The debugger's descriptor, for the sandbox.
    pub fn descriptor(&self) -> RawFd {
        self.descriptor
    }

    /// Does what the debugger wants of a guest that has not begun, or was interrupted, until that is to go on.
    pub fn converse(&mut self, guest: &mut Guest<'m>) -> Next {
        self.with_machine(guest, converse)
    }

    /// Tells the debugger why the guest stopped, and does what it wants.
    pub fn stopped(&mut self, guest: &mut Guest<'m>, why: Stopped) -> Next {
        let reason = match why {
            Stopped::Trap(trap) => reason(trap, guest),
            Stopped::Aborted => SingleThreadStopReason::Signal(Signal::SIGABRT),
            Stopped::Broken => SingleThreadStopReason::Signal(Signal::SIGSEGV),
        };
        self.report(guest, reason)
    }

    fn report(&mut self, guest: &mut Guest<'m>, reason: SingleThreadStopReason<u64>) -> Next {
        self.with_machine(guest, |machine, guest| match machine {
            GdbStubStateMachine::Running(running) => {
                converse(running.report_stop(guest, reason)?, guest)
            }
            other => converse(other, guest),
        })
    }

    /// Tells the debugger that the guest is no more.
    pub fn ended(mut self, guest: &mut Guest<'m>, status: Result<u8, i32>) {
        let reason = match status {
            Ok(status) => SingleThreadStopReason::Exited(status),
            Err(signal) => SingleThreadStopReason::Terminated(Signal(signal as u8)),
        };
        if let Some(GdbStubStateMachine::Running(running)) = self.machine.take() {
            // One that does not listen need not know.
            let _ = running.report_stop(guest, reason);
        }
    }

    /// Does something with the machine, which is not there any more if that goes wrong.
    fn with_machine(
        &mut self,
        guest: &mut Guest<'m>,
        act: impl FnOnce(Machine<'m>, &mut Guest<'m>) -> Result<(Machine<'m>, Next), Lost>,
    ) -> Next {
        let Some(machine) = self.machine.take() else {
            return Next::Alone;
        };
        match act(machine, guest) {
            Ok((_, Next::Alone)) => {
                log::info!("gdb detached");
                Next::Alone
            }
            Ok((machine, next)) => {
                self.machine = Some(machine);
                next
            }
            Err(error) => {
                log::warn!("gdb disconnected: {error}; guest continues");
                Next::Alone
            }
        }
    }
}

/// Does what the debugger wants until the guest is to go on, and nothing more is to be read: of what arrives while it is
/// waited for, no signal tells.
fn converse<'m>(
    mut machine: Machine<'m>,
    guest: &mut Guest<'m>,
) -> Result<(Machine<'m>, Next), Lost> {
    let mut runs = false;
    loop {
        machine = match machine {
            GdbStubStateMachine::Idle(mut idle) => match idle.borrow_conn().read_byte() {
                Ok(Some(byte)) => {
                    runs = false;
                    idle.incoming_data(guest, byte)?
                }
                Ok(None) => return Err("connection closed".into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    return Ok((idle.into(), Next::Signal));
                }
                Err(error) => return Err(error.into()),
            },
            GdbStubStateMachine::Running(mut running) => {
                runs = true;
                if !running.borrow_conn().has_input()? {
                    return Ok((running.into(), Next::GoOn));
                }
                let Some(byte) = running.borrow_conn().read_byte()? else {
                    return Err("connection closed".into());
                };
                running.incoming_data(guest, byte)?
            }
            GdbStubStateMachine::CtrlCInterrupt(interrupt) => {
                // It may stand already.
                let reason = runs.then_some(SingleThreadStopReason::Signal(Signal::SIGINT));
                interrupt.interrupt_handled(guest, reason)?
            }
            GdbStubStateMachine::Disconnected(gone) => {
                let next = if gone.get_reason() == DisconnectReason::Kill {
                    Next::Kill
                } else {
                    Next::Alone
                };
                return Ok((gone.into(), next));
            }
        };
    }
}

/// A trap in gdb's terms.
fn reason(trap: Trap, guest: &mut Guest<'_>) -> SingleThreadStopReason<u64> {
    if let Some(point) = guest.points.watched(trap) {
        let kind = match point.kind {
            Watch::Read => WatchKind::Read,
            Watch::Access => WatchKind::ReadWrite,
            Watch::Write | Watch::Execute => WatchKind::Write,
        };
        let addr = if let Trap::Watched(address) = trap {
            address
        } else {
            point.address
        };
        return SingleThreadStopReason::Watch {
            tid: (),
            kind,
            addr,
        };
    }
    match trap {
        Trap::Step => SingleThreadStopReason::DoneStep,
        Trap::Instruction if guest.at_breakpoint() => {
            SingleThreadStopReason::Signal(Signal::SIGTRAP)
        }
        Trap::Instruction => SingleThreadStopReason::SwBreak(()),
        Trap::Breakpoint | Trap::Slot(_) | Trap::Watched(_) => SingleThreadStopReason::HwBreak(()),
    }
}
