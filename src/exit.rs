//! The run loop: the guest runs until it wants something, gets it, and runs on. It ends with the guest's own HALT, a
//! signal, or a broken promise of the guest. Nothing on the way of a hypercall allocates, locks or looks up a name.

use kvm_ioctls::VmFd;

use crate::arch::{self, Exit, Stop, Vcpu};
use crate::clock;
use crate::console::Console;
use crate::devices::{Devices, Fault};
use crate::era::Era;
use crate::error::Error;
use crate::hypercall::{self, Current, Hypercall, Interface, Legacy, Reply};
use crate::manifest::Kind;
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

/// Why a run was ended: a promise of the guest that it broke.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// It stopped in a way that no unikernel should.
    #[error("{0}")]
    Stop(Stop),
    /// It performed a hypercall that does not exist.
    #[error("the guest performed hypercall {number}, which does not exist; 1 to {last} do")]
    Number {
        /// Its number.
        number: u32,
        /// The largest there is.
        last: u32,
    },
    /// It used a device that was not attached, which only a guest of an era without manifest can do.
    #[error("the guest uses a {kind} device, and none is attached; add {}", cure(*kind))]
    NoDevice {
        /// What it uses.
        kind: Kind,
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

fn cure(kind: Kind) -> &'static str {
    match kind {
        Kind::Net => "--net=IFACE",
        Kind::Block => "--disk=PATH",
    }
}

impl Machine {
    /// Runs the guest to its end.
    pub fn run(mut self) -> Result<Outcome, Error> {
        let flag = self.vcpu.interrupt_flag();
        // SAFETY: the flag is valid as long as the vCPU, which outlives the guard: both end with this function, locals
        // before parameters.
        let _guard = unsafe { signal::catch(flag) }.map_err(Error::Signals)?;
        let outcome = match self.era {
            Era::Legacy => self.serve::<Legacy>(),
            Era::Abi1 | Era::Abi2 => self.serve::<Current>(),
        };
        self.devices.finish();
        outcome
    }

    /// The loop, made once for each interface: no hypercall asks for its era.
    fn serve<I: Interface>(&mut self) -> Result<Outcome, Error> {
        loop {
            match self.vcpu.run()? {
                Exit::Hypercall { number, argument } => {
                    if let Some(outcome) = self.hypercall::<I>(number, GuestAddress(argument.into()))? {
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
    fn hypercall<I: Interface>(&mut self, number: u32, argument: GuestAddress) -> Result<Option<Outcome>, Error> {
        let call = match I::decode(number, &self.memory, argument) {
            Ok(Hypercall::Halt { status }) => return Ok(Some(Outcome::Halted(status as u8))),
            Ok(call) => call,
            Err(hypercall::Error::Number(number)) => {
                return Err(self.report(Broken::Number { number, last: I::LAST }));
            }
            Err(hypercall::Error::Memory(error)) => return Err(self.report_memory::<I>(number, argument, error)),
        };
        let answered = match self.answer(call) {
            Ok(None) => return Ok(None),
            Ok(Some(reply)) => I::reply(reply, &self.memory, argument),
            Err(Fault::Memory(error)) => Err(error),
            Err(Fault::NoDevice(kind)) => match I::no_device(kind) {
                Some(reply) => I::reply(reply, &self.memory, argument),
                None => return Err(self.report(Broken::NoDevice { kind })),
            },
        };
        match answered {
            Ok(()) => Ok(None),
            Err(error) => Err(self.report_memory::<I>(number, argument, error)),
        }
    }

    /// Does what the guest asks; PUTS alone has no reply.
    #[inline]
    fn answer(&mut self, call: Hypercall) -> Result<Option<Reply>, Fault> {
        let Machine { memory, devices, console, .. } = self;
        Ok(Some(match call {
            Hypercall::Walltime => Reply::Walltime(clock::walltime()),
            Hypercall::Poll { timeout } => Reply::Ready(devices.poll(timeout.min(self.poll_limit))),
            Hypercall::NetWrite(request) => devices.net_write(memory, request)?,
            Hypercall::NetRead(request) => devices.net_read(memory, request)?,
            Hypercall::BlockWrite(request) => devices.block_write(memory, request)?,
            Hypercall::BlockRead(request) => devices.block_read(memory, request)?,
            Hypercall::NetInfo => devices.net_info()?,
            Hypercall::BlockInfo => devices.block_info()?,
            Hypercall::Puts(text) => {
                console.puts(memory, text.addr, text.len)?;
                return Ok(None);
            }
            // Ended the run before it came here.
            Hypercall::Halt { .. } => return Ok(None),
        }))
    }

    #[cold]
    fn report_memory<I: Interface>(&mut self, number: u32, argument: GuestAddress, error: memory::Error) -> Error {
        self.report(Broken::Memory { name: I::name(number), argument: argument.0, error })
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
