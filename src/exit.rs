//! The run loop: the guest runs until it wants something, gets it, and runs on. It ends with the guest's own HALT, a
//! signal, or a broken promise of the guest. Nothing on the way of a hypercall allocates, locks or looks up a name.

use std::fmt;

use kvm_ioctls::VmFd;

use crate::arch::{self, Exit, Stop, Vcpu};
use crate::clock;
use crate::console::Console;
use crate::devices::Devices;
use crate::error::Error;
use crate::hypercall::{self, Hypercall, Reply};
use crate::image::Era;
use crate::memory::{self, GuestAddress, GuestMemory};
use crate::signal;

/// One guest with all that belongs to it. Fields are dropped in this order: nothing is left that could run the guest
/// when its memory goes.
pub struct Machine {
    pub(crate) era: Era,
    pub(crate) vcpu: Vcpu,
    pub(crate) _vm: VmFd,
    pub(crate) memory: GuestMemory,
    pub(crate) devices: Devices,
    pub(crate) console: Console,
    /// Longest sleep of one POLL, in nanoseconds.
    pub(crate) poll_limit: u64,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest halted with this exit status.
    Halted(u8),
    /// This signal asked for the end.
    Signal(i32),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Halted(status) => write!(f, "the guest halted with status {status}"),
            Outcome::Signal(number) => write!(f, "signal {number} ended the run"),
        }
    }
}

/// Why a run was ended: a promise of the guest that it broke.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// It stopped in a way that no unikernel should.
    #[error("{0}")]
    Stop(Stop),
    /// It performed a hypercall that does not exist.
    #[error("the guest performed hypercall {number}, which does not exist; 1 to 8 do")]
    Number {
        /// Its number.
        number: u32,
    },
    /// It named memory that it does not have, or may not write.
    #[error("hypercall {name} with its argument structure at {argument:#x}: {error}")]
    Memory {
        /// Which hypercall.
        name: &'static str,
        /// Address of its argument structure.
        argument: u64,
        /// What is wrong with the memory.
        error: memory::Error,
    },
}

impl Machine {
    /// Runs the guest to its end.
    pub fn run(mut self) -> Result<Outcome, Error> {
        let flag = self.vcpu.interrupt_flag();
        // SAFETY: the flag is valid as long as the vCPU, which outlives the guard: both end with this function, locals
        // before parameters.
        let _guard = unsafe { signal::catch(flag) }.map_err(Error::Signals)?;
        let outcome = self.serve();
        if let Ok(outcome) = outcome {
            log::info!("{outcome}");
        }
        log::info!("console: {}", self.console.stats());
        self.devices.finish();
        outcome
    }

    fn serve(&mut self) -> Result<Outcome, Error> {
        loop {
            match self.vcpu.run()? {
                Exit::Hypercall { number, argument } => {
                    if let Some(outcome) = self.hypercall(number, GuestAddress(argument.into()))? {
                        return Ok(outcome);
                    }
                }
                Exit::Interrupted => {
                    if let Some(signal) = signal::received() {
                        return Ok(Outcome::Signal(signal));
                    }
                }
                Exit::Stop(stop) => return Err(self.report(Broken::Stop(stop))),
            }
        }
    }

    /// Serves one hypercall; says how the run ended if that was its last.
    #[inline]
    fn hypercall(&mut self, number: u32, argument: GuestAddress) -> Result<Option<Outcome>, Error> {
        let call = match Hypercall::decode(self.era, number, &self.memory, argument) {
            Ok(Hypercall::Halt { status }) => return Ok(Some(Outcome::Halted(status as u8))),
            Ok(call) => call,
            Err(error) => return Err(self.report_hypercall(number, argument, error)),
        };
        match self.answer(call, argument) {
            Ok(()) => Ok(None),
            Err(error) => Err(self.report_hypercall(number, argument, error.into())),
        }
    }

    #[inline]
    fn answer(&mut self, call: Hypercall, argument: GuestAddress) -> Result<(), memory::Error> {
        let Machine { memory, devices, console, .. } = self;
        let reply = match call {
            Hypercall::Walltime => Reply::Walltime(clock::walltime()),
            Hypercall::Poll { timeout } => Reply::Ready(devices.poll(timeout.min(self.poll_limit))),
            Hypercall::NetWrite(request) => devices.net_write(memory, request)?,
            Hypercall::NetRead(request) => devices.net_read(memory, request)?,
            Hypercall::BlockWrite(request) => devices.block_write(memory, request)?,
            Hypercall::BlockRead(request) => devices.block_read(memory, request)?,
            Hypercall::Puts(text) => return console.puts(memory, text.addr, text.len),
            // Ended the run before it came here.
            Hypercall::Halt { .. } => return Ok(()),
        };
        reply.write(self.era, memory, argument)
    }

    #[cold]
    fn report_hypercall(&mut self, number: u32, argument: GuestAddress, error: hypercall::Error) -> Error {
        self.report(match error {
            hypercall::Error::Number(number) => Broken::Number { number },
            hypercall::Error::Memory(error) => {
                Broken::Memory { name: hypercall::name(self.era, number), argument: argument.0, error }
            }
        })
    }

    #[cold]
    fn report(&mut self, broken: Broken) -> Error {
        self.vcpu.settle();
        Error::Guest { broken, registers: self.vcpu.registers() }
    }
}

impl From<arch::Error> for Error {
    fn from(error: arch::Error) -> Error {
        Error::Arch(error)
    }
}
