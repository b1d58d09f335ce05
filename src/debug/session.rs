//! The gdb session: reports stops to gdb and handles its packets until the guest resumes.
//!
//! No code here runs while the guest does. Data from gdb then raises SIGIO, which interrupts the
//! guest like any other signal.

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
pub(crate) enum Stopped {
    /// The vCPU stopped for gdb.
    Trap(Trap),
    /// It halted with the status for an abort.
    Aborted,
    /// It violated its contract, or cannot be run.
    Broken,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The guest resumes.
    Resume,
    /// A signal or the timeout ends the run.
    Signal,
    /// gdb kills the guest.
    Kill,
    /// gdb has disconnected; the guest continues without it.
    Detached,
}

/// A connection to gdb.
pub(crate) struct Session<'m> {
    /// State machine of gdb's protocol; none after gdb has disconnected.
    machine: Option<Machine<'m>>,
    descriptor: RawFd,
}

/// The connection failed, or the client violated gdb's protocol.
type Lost = Box<dyn std::error::Error>;

impl<'m> Session<'m> {
    /// Starts a session for a guest that has not run yet.
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

    /// Returns gdb's descriptor, for the sandbox.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.descriptor
    }

    /// Handles gdb's packets until it resumes a guest that has not started or was interrupted.
    pub(crate) fn serve(&mut self, guest: &mut Guest<'m>) -> Next {
        self.with_machine(guest, serve_packets)
    }

    /// Reports to gdb why the guest stopped, and handles its packets.
    pub(crate) fn stopped(&mut self, guest: &mut Guest<'m>, why: Stopped) -> Next {
        let reason = match why {
            Stopped::Trap(trap) => reason(trap, guest),
            Stopped::Aborted => SingleThreadStopReason::Signal(Signal::SIGABRT),
            Stopped::Broken => SingleThreadStopReason::Signal(Signal::SIGSEGV),
        };
        self.with_machine(guest, |machine, guest| match machine {
            GdbStubStateMachine::Running(running) => {
                serve_packets(running.report_stop(guest, reason)?, guest)
            }
            other => serve_packets(other, guest),
        })
    }

    /// Reports the end of the guest to gdb.
    pub(crate) fn ended(mut self, guest: &mut Guest<'m>, status: Result<u8, i32>) {
        let reason = match status {
            Ok(status) => SingleThreadStopReason::Exited(status),
            Err(signal) => SingleThreadStopReason::Terminated(Signal(signal as u8)),
        };
        if let Some(GdbStubStateMachine::Running(running)) = self.machine.take() {
            // A debugger that has disconnected needs no report.
            let _ = running.report_stop(guest, reason);
        }
    }

    /// Calls `act` with the state machine, and drops the machine if `act` fails.
    fn with_machine(
        &mut self,
        guest: &mut Guest<'m>,
        act: impl FnOnce(Machine<'m>, &mut Guest<'m>) -> Result<(Machine<'m>, Next), Lost>,
    ) -> Next {
        let Some(machine) = self.machine.take() else {
            return Next::Detached;
        };
        match act(machine, guest) {
            Ok((_, Next::Detached)) => {
                log::info!("gdb detached");
                Next::Detached
            }
            Ok((machine, next)) => {
                self.machine = Some(machine);
                next
            }
            Err(error) => {
                log::warn!("gdb disconnected: {error}; guest continues");
                Next::Detached
            }
        }
    }
}

/// Handles packets until gdb resumes the guest and the socket is drained; data that is read here
/// raises no SIGIO.
fn serve_packets<'m>(
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
                    return Ok((running.into(), Next::Resume));
                }
                let Some(byte) = running.borrow_conn().read_byte()? else {
                    return Err("connection closed".into());
                };
                running.incoming_data(guest, byte)?
            }
            GdbStubStateMachine::CtrlCInterrupt(interrupt) => {
                // The guest may be stopped already.
                let reason = runs.then_some(SingleThreadStopReason::Signal(Signal::SIGINT));
                interrupt.interrupt_handled(guest, reason)?
            }
            GdbStubStateMachine::Disconnected(gone) => {
                let next = if gone.get_reason() == DisconnectReason::Kill {
                    Next::Kill
                } else {
                    Next::Detached
                };
                return Ok((gone.into(), next));
            }
        };
    }
}

/// Converts a trap to gdb's stop reason.
fn reason(trap: Trap, guest: &mut Guest<'_>) -> SingleThreadStopReason<u64> {
    if let Some(point) = guest.points.watched(trap) {
        let kind = match point.kind {
            Watch::Read => WatchKind::Read,
            Watch::Access => WatchKind::ReadWrite,
            Watch::Write | Watch::Execute => WatchKind::Write,
        };
        let addr = match trap {
            Trap::Watched(address) => address,
            _ => point.address,
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
