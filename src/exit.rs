//! The run loop: runs the guest until it makes a hypercall, serves it, and resumes. It ends with
//! the guest's HALT, a signal, or a contract violation. No hypercall allocates, takes a lock or
//! looks up a name.

#![expect(unsafe_code, reason = "signal handlers use the vCPU")]

use std::mem;
use std::num::NonZeroU32;
use std::sync::Arc;

use guest_abi::hypercall::STATUS_ABORT;
use kvm_ioctls::VmFd;
use log::Level;

use crate::arch::{self, Call, Exit, Processor, Stop, Trap, Vcpu};
use crate::config::Engine;
use crate::debug::{self, Guest, Session, core};
use crate::devices::clock;
use crate::devices::ring::{self, GuestRing, Ring, Worker};
use crate::devices::{self, Fault};
use crate::guest::era::Era;
use crate::guest::hypercall::{self, Current, Hypercall, Interface, Legacy, Reply};
use crate::host::signal::{self, Alarm};
use crate::host::start;
use crate::memory::{self, GuestAddress, GuestMemory};
use crate::metrics::{self, Phase, Registry, on_demand};
use crate::outcome::{Error, Outcome};
use crate::report::log_lines::GuestRuns;
use crate::sandbox::{Confined, Sandbox};

mod debugging;
mod interruption;
mod services;
mod violation;

pub(crate) use services::Services;
pub(crate) use violation::Violation;

/// Longest sleep in POLL while gdb is attached, in nanoseconds.
const POLL_LIMIT_WITH_GDB: u64 = 100_000_000;

/// A guest with all its parts, ready to run.
pub(crate) struct Machine {
    pub(crate) era: Era,
    pub(crate) vcpu: Vcpu,
    /// KVM's virtual machine; none if the guest is a process.
    pub(crate) vm: Option<VmFd>,
    pub(crate) memory: Arc<GuestMemory>,
    pub(crate) services: Services,
    /// The shared network ring, if it is offered.
    pub(crate) ring: Option<Ring>,
    pub(crate) sandbox: Sandbox,
    /// Listens for gdb, if requested.
    pub(crate) debugger: Option<debug::Listener>,
    /// Directory for a core file, if requested.
    pub(crate) cores: Option<core::Directory>,
    /// The counters.
    pub(crate) registry: Arc<Registry>,
    /// Outputs for statistics and metrics.
    pub(crate) outlets: metrics::Opened,
}

/// The state of the run loop.
struct Running<'m> {
    guest: Guest<'m>,
    services: Services,
    /// The gdb session, if there is one.
    session: Option<Session<'m>>,
    /// Serves the ring, if it is offered.
    worker: Option<Worker<GuestRing<'m>>>,
    confined: &'m Confined,
    registry: &'m Registry,
    /// Output that waits for a reader while gdb inspects the guest.
    unwritten: Option<(GuestAddress, u64)>,
    /// Cookie that the guest passed with HALT, or 0.
    cookie: GuestAddress,
    /// Whether KVM runs the guest, and its time is not measured: the usual case.
    is_plain: bool,
}

impl Machine {
    /// Runs the guest to its end. Its parts stay until the process exits.
    pub(crate) fn run(self) -> Result<Outcome, Error> {
        let Machine {
            vm,
            memory,
            mut services,
            ring,
            cores,
            registry,
            outlets,
            ..
        } = self;
        let is_kvm = self.vcpu.engine() == Engine::Kvm;
        let mut guest = Guest::new(self.vcpu, &memory);
        let session = match self.debugger {
            None => None,
            Some(listener) => {
                // A packet that arrives just before the sleep does not interrupt it.
                services.poll_limit = services.poll_limit.min(POLL_LIMIT_WITH_GDB);
                Some(listener.accept(vm.as_ref(), &mut guest, services.time_limit())?)
            }
        };
        let worker = ring.map(|ring| worker(ring, &memory)).transpose()?;
        let parameters = services.parameters(
            &guest.vcpu,
            worker.as_ref(),
            session.as_ref(),
            cores.as_ref(),
        );
        let parameters = outlets.parameters(&registry, parameters)?;
        start::release_memory();
        let mut confined = self.sandbox.enter(parameters)?;
        confined.allow_child(guest.vcpu.start(&memory)?);
        let confined = &confined;
        cores.as_ref().map_or(Ok(()), core::Directory::check)?;
        let mut running = Running {
            guest,
            services,
            session,
            worker,
            confined,
            registry: &registry,
            unwritten: None,
            cookie: GuestAddress(0),
            is_plain: is_kvm && registry.times.is_none(),
        };
        // SAFETY: the flag is valid as long as the vCPU, which is dropped after the guard: below,
        // or on an early return as the older of two locals.
        let guard = unsafe { signal::install_handlers(running.guest.vcpu.interrupt_flag()) }?;
        // Before the thread is confined, which cannot create a timer afterwards.
        let timeout = running.services.timeout;
        timeout.map(signal::limit).transpose()?;
        let on_demand = on_demand::install(&registry);
        // Clients of --metrics may send a signal as soon as they see the run, so the handlers are
        // installed first.
        let outlets = outlets.start(&registry, confined)?;
        let guest_runs = GuestRuns::start();
        let outcome = running.serve_era(self.era);
        let outcome = running.send_queued(outcome);
        drop(guest_runs);
        running.finish(&outcome);
        drop(on_demand);
        outlets.finish(&outcome);
        if let Some(cores) = cores {
            cores.write_core(&outcome, &mut running.guest.vcpu, &memory, running.cookie);
        }
        drop(guard);
        running.guest.vcpu.end();
        // The process ends: the kernel frees machine and memory for less than closing them takes.
        mem::forget(running);
        mem::forget((vm, memory));
        outcome
    }
}

/// Prepares the service of `ring` before the process is confined.
fn worker(ring: Ring, memory: &GuestMemory) -> Result<Worker<GuestRing<'_>>, Error> {
    let shared = GuestRing::new(memory, GuestAddress(ring::ADDRESS))?;
    let warn = |error| {
        log::warn!("cannot create the ring's timer: {error}; each frame of a flood takes a kick");
    };
    Ok(Worker::new(ring, shared, Alarm::new().map_err(warn).ok()))
}

impl Running<'_> {
    /// Sends the frames that the guest queued in the ring before its end, up to the first invalid
    /// request, after every kind of end.
    fn send_queued(&mut self, outcome: Result<Outcome, Error>) -> Result<Outcome, Error> {
        let memory = self.guest.memory;
        let drained = self.worker.as_mut().map(|worker| worker.drain(memory));
        match (outcome, drained) {
            (Ok(Outcome::Halted(_)), Some(Err(error))) => Err(self.report(Violation::Ring(error))),
            (outcome, _) => outcome,
        }
    }

    /// Reports the end, and finishes output and devices.
    fn finish(&mut self, outcome: &Result<Outcome, Error>) {
        let Services {
            devices,
            console,
            notifier,
            ..
        } = &mut self.services;
        match outcome {
            Ok(outcome) => {
                let level = match outcome {
                    Outcome::Halted(STATUS_ABORT) => Level::Warn,
                    _ => Level::Info,
                };
                log::log!(level, "{outcome}");
                notifier.stopping(outcome);
            }
            Err(error) => notifier.stopping(error),
        }
        if let Some((_, left)) = self.unwritten {
            console.drop_unwritten(left);
        }
        console.finish();
        devices.finish(self.worker.as_ref().map(Worker::ring));
    }

    fn serve_era(&mut self, era: Era) -> Result<Outcome, Error> {
        self.confined.confine_guests_thread()?;
        self.registry.phases.end(Phase::Sandbox);
        self.services.notifier.ready();
        let outcome = match (self.serve_debugger()?, era) {
            (Some(outcome), _) => Ok(outcome),
            (None, Era::Legacy) => self.serve::<Legacy>(),
            (None, Era::Abi1 | Era::Abi2) => self.serve::<Current>(),
        };
        self.report_end(outcome)
    }

    /// Runs the guest until its next exit.
    #[inline(always)]
    fn run_guest(&mut self) -> Option<Call> {
        if self.is_plain {
            self.guest.vcpu.run_kvm()
        } else {
            self.run_any()
        }
    }

    /// As [`Running::run_guest`], for any engine; measures the time if statistics are requested.
    fn run_any(&mut self) -> Option<Call> {
        match &self.registry.times {
            None => self.guest.vcpu.run(),
            Some(times) => times.in_guest(|| self.guest.vcpu.run()),
        }
    }

    /// Runs the loop. It is compiled once per interface, so that no hypercall checks its era.
    fn serve<I: Interface>(&mut self) -> Result<Outcome, Error> {
        loop {
            let outcome = match self.run_guest() {
                Some(Call { number, argument }) => {
                    self.registry.exits.hypercall(number);
                    self.hypercall::<I>(number, GuestAddress(argument.into()))?
                }
                None if self.guest.vcpu.kicked() => self.kick().map(|()| None)?,
                None => self.other_exit()?,
            };
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
        }
    }

    /// Handles an exit without a hypercall or a kick. Returns the outcome if the run has ended.
    #[cold]
    fn other_exit(&mut self) -> Result<Option<Outcome>, Error> {
        match self.guest.vcpu.exit().map_err(|error| self.failed(error))? {
            Exit::Interrupted => self.interrupted(),
            Exit::Refused => self.wait_until_runnable().and_then(|()| self.interrupted()),
            Exit::Trap(trap) => self.trapped(trap),
            Exit::Stop(Stop::Internal { .. }) if self.guest.is_at_debugger_breakpoint() => {
                self.trapped(Trap::Instruction)
            }
            Exit::Stop(stop) => {
                if let Stop::Read { address, .. }
                | Stop::Write { address, .. }
                | Stop::MemoryFault { address } = stop
                {
                    // If the guest has memory there, a page of the unikernel's file is unreadable:
                    // this access ends the process with a message.
                    let _ = self.guest.memory.read::<u8>(GuestAddress(address));
                }
                Err(self.report(Violation::Stop(stop)))
            }
        }
    }

    /// Serves one hypercall. Returns the outcome if the run has ended.
    #[inline(always)]
    fn hypercall<I: Interface>(
        &mut self,
        number: u32,
        argument: GuestAddress,
    ) -> Result<Option<Outcome>, Error> {
        self.services.notifier.guest_is_alive();
        let call = match I::decode(number, self.guest.memory, argument) {
            Ok(Hypercall::Halt { status, cookie }) => {
                self.cookie = cookie;
                return Ok(Some(Outcome::Halted(status as u8)));
            }
            Ok(call) => call,
            Err(hypercall::Error::Number(number)) => {
                return Err(self.report(Violation::Number {
                    number,
                    last: I::LAST,
                }));
            }
            Err(hypercall::Error::Memory(error)) => {
                return Err(self.report_memory::<I>(number, argument, error));
            }
        };
        let answered = match self.answer(call) {
            Ok(None) => return Ok(None),
            Ok(Some(reply)) => I::reply(reply, self.guest.memory, argument),
            Err(Fault::Memory(error)) => Err(error),
            Err(Fault::Ring(error)) => return Err(self.report(Violation::Ring(error))),
            Err(Fault::Wait(error)) => return Err(devices::Error::Wait { error }.into()),
            Err(Fault::NoDevice(kind)) => match I::no_device(kind) {
                Some(reply) => I::reply(reply, self.guest.memory, argument),
                None => return Err(self.report(Violation::NoDevice { kind })),
            },
        };
        match answered {
            Ok(()) => Ok(None),
            Err(error) => Err(self.report_memory::<I>(number, argument, error)),
        }
    }

    /// Writes the output that gdb interrupted, before the guest resumes.
    fn write_on(&mut self) -> Result<(), Error> {
        if let Some((addr, len)) = self.unwritten.take() {
            let left = self.services.console.puts(self.guest.memory, addr, len)?;
            self.unwritten = (left > 0).then(|| (GuestAddress(addr.0 + len - left), left));
        }
        Ok(())
    }

    /// Handles a kick: the guest has queued frames in the ring.
    fn kick(&mut self) -> Result<(), Error> {
        self.registry.exits.kicks.add(1);
        self.services.notifier.guest_is_alive();
        let Some(worker) = &mut self.worker else {
            return Err(self.report(Violation::Stop(Stop::Kick)));
        };
        let served = worker.kicked(self.guest.memory);
        served.map_err(|error| self.report(Violation::Ring(error)))
    }

    /// Performs a hypercall; PUTS alone has no reply.
    #[inline(always)]
    fn answer(&mut self, call: Hypercall) -> Result<Option<Reply>, Fault> {
        let Running {
            guest: Guest { memory, .. },
            services,
            worker,
            registry,
            ..
        } = self;
        let devices = &mut services.devices;
        Ok(Some(match call {
            Hypercall::Walltime => Reply::Walltime(clock::walltime()),
            Hypercall::Poll { timeout: 0 } => Reply::Ready(devices.poll(0)?),
            Hypercall::Poll { timeout } => {
                if let Some(worker) = worker {
                    worker.quiesce(memory)?;
                }
                let _asleep = registry.asleep();
                Reply::Ready(devices.poll(timeout.min(services.poll_limit))?)
            }
            Hypercall::NetWrite(request) => {
                if let Some(worker) = worker {
                    // Frames queued earlier must be sent first.
                    worker.drain(memory)?;
                }
                devices.net_write(memory, request)?
            }
            Hypercall::NetRead(request) => devices.net_read(memory, request)?,
            Hypercall::BlockWrite(request) => devices.block_write(memory, request)?,
            Hypercall::BlockRead(request) => devices.block_read(memory, request)?,
            Hypercall::NetInfo => devices.net_info()?,
            Hypercall::BlockInfo => devices.block_info()?,
            Hypercall::Puts(text) => {
                let left = services.console.puts(memory, text.addr, text.len)?;
                if left > 0 {
                    self.unwritten = Some((GuestAddress(text.addr.0 + text.len - left), left));
                }
                return Ok(None);
            }
            // `hypercall` handles HALT.
            Hypercall::Halt { .. } => return Ok(None),
        }))
    }

    #[cold]
    fn report_memory<I: Interface>(
        &mut self,
        number: u32,
        argument: GuestAddress,
        error: memory::RangeError,
    ) -> Error {
        self.report(Violation::Memory {
            name: I::name(number),
            argument: argument.0,
            error,
        })
    }

    #[cold]
    fn report_timeout(&mut self) -> Error {
        self.guest.vcpu.settle();
        let registers = format!(
            "{}, {}",
            self.guest.vcpu.registers(),
            self.guest.vcpu.fault_registers()
        );
        Error::Timeout {
            seconds: self.services.timeout.map_or(0, NonZeroU32::get),
            registers,
        }
    }

    #[cold]
    fn failed(&mut self, error: arch::Error) -> Error {
        self.guest.vcpu.settle();
        Error::Host {
            cause: Box::new(error.into()),
            registers: self.guest.vcpu.registers(),
        }
    }

    #[cold]
    fn report(&mut self, violation: Violation) -> Error {
        self.guest.vcpu.settle();
        Error::Violation {
            cause: Box::new(violation.into()),
            registers: self.guest.vcpu.registers(),
        }
    }
}
