//! A vCPU of either architecture and engine: running it, its exits, and the state at its start.

#![expect(unsafe_code, reason = "KVM_RUN")]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;

use kvm_bindings::kvm_run;
use kvm_ioctls::{Cap, Kvm, VmFd};

use super::debug::Trap;
use super::engine::Engine;
use super::process::{self, Process};
use super::processor::Processor;
use crate::config;
use crate::memory::GuestMemory;
use crate::report::counters::Count;

/// Runs the guest. `_IO(KVMIO, 0x80)`.
pub const KVM_RUN: u64 = 0xae80;

/// State at the guest's first instruction.
#[derive(Clone, Copy, Debug)]
pub struct Boot {
    /// Address of the first instruction.
    pub entry: u64,
    /// Address after the last byte of memory: the stack grows down from here.
    pub stack_top: u64,
    /// Address of the boot info block.
    pub boot_info: u64,
}

/// A hypercall as decoded from the exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Not checked: the number may not exist.
    pub number: u32,
    /// Guest-physical address of the argument structure; not checked.
    pub argument: u32,
}

/// Why the guest exited, other than for a hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A signal arrived, or the run was asked to stop; the guest can go on.
    Interrupted,
    /// KVM_RUN failed with EAGAIN: KVM lacks a resource that may be available later.
    Refused,
    /// The vCPU stopped for a debugger.
    Trap(Trap),
    /// The guest cannot go on.
    Stop(Stop),
}

/// An act of the guest, or a failure of its vCPU, that ends the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Stop {
    #[error("guest kicked the network ring, which was not offered")]
    Kick,
    #[error("guest wrote {} to {address:#x}: neither memory nor a hypercall", bytes(*width))]
    Write { address: u64, width: usize },
    #[error("guest read {} from {address:#x}: no memory there", bytes(*width))]
    Read { address: u64, width: usize },
    #[error("guest made a {width}-byte hypercall at {address:#x}: hypercalls are 4 bytes wide")]
    Width { address: u64, width: usize },
    #[error(
        "guest accessed {address:#x} with an instruction that KVM cannot emulate (ldp/stp or write-back form)"
    )]
    NoSyndrome { address: u64 },
    #[error("guest accessed an unknown address with an instruction that KVM cannot emulate")]
    Undecoded,
    #[error("guest read from I/O port {port:#x}: there are no input ports")]
    PortRead { port: u16 },
    #[error("guest wrote {} to I/O port {port:#x}: not a hypercall", bytes(*width))]
    PortWrite { port: u16, width: usize },
    #[error("guest executed HLT and cannot be woken")]
    Halted,
    #[error("guest faulted while handling a fault (triple fault)")]
    TripleFault,
    #[error("KVM internal error: suberror {suberror}{}", hint(*suberror))]
    Internal { suberror: u32 },
    #[error("VM entry failed: hardware reason {reason:#x}")]
    Entry { reason: u64 },
    #[error("guest accessed memory that the host could not provide at {address:#x}")]
    MemoryFault { address: u64 },
    #[error("guest requested a system event of type {kind}: hvt has none")]
    SystemEvent { kind: u32 },
    #[error("unknown KVM exit {reason}")]
    Unknown { reason: u32 },
    #[error("guest left 64-bit mode, the only one of --engine=process")]
    Mode,
}

/// Formats the width of an access.
fn bytes(width: usize) -> Count {
    Count(width as u64, "byte")
}

/// Only KVM_INTERNAL_ERROR_EMULATION has a hint: it is by far the most common, and rarely the
/// guest's fault.
fn hint(suberror: u32) -> &'static str {
    match suberror {
        1 => " (KVM cannot emulate an instruction)",
        _ => "",
    }
}

/// Why KVM could not create or run the virtual machine.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("{ioctl} failed: {source}{}", cause(Some(source.errno())))]
    Kvm {
        ioctl: &'static str,
        source: kvm_ioctls::Error,
    },
    #[error("KVM_RUN failed: {source}{}", cause(source.raw_os_error()))]
    Run { source: io::Error },
    #[error("KVM lacks {0}")]
    #[diagnostic(help("upgrade to Linux 4.14 or later"))]
    Capability(&'static str),
    #[error("KVM gives guests {bits}-bit physical addresses, but hvt needs 33 bits")]
    #[diagnostic(help("run without KVM (--engine=process), or use another processor"))]
    AddressSize { bits: u32 },
    #[error(
        "the host's cycle counter, which guests use as their clock, has no known stable frequency"
    )]
    #[diagnostic(help("{fix}"))]
    CounterFrequency { fix: &'static str },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Process(#[from] process::Error),
}

/// Explains the kernel's errno where the cause is known.
fn cause(errno: Option<i32>) -> &'static str {
    match errno.unwrap_or_default() {
        libc::EMFILE | libc::ENFILE => " (raise the limit of open files, ulimit -n)",
        libc::EFAULT => {
            " (a page of guest memory is unavailable: the unikernel's file cannot be read, or host memory is exhausted or defective)"
        }
        libc::ENOMEM => " (the kernel is out of memory)",
        libc::EBUSY => {
            " (another hypervisor, such as VirtualBox or VMware, uses the processor; stop its machines)"
        }
        libc::EACCES | libc::EPERM => " (a security module or a system call filter forbids it)",
        libc::EAGAIN => {
            " (no task left for KVM's own thread: raise TasksMax= of the unit, the pids limit or ulimit -u)"
        }
        libc::EHWPOISON => " (host memory is defective)",
        _ => "",
    }
}

impl Error {
    /// Names the ioctl that failed, for `map_err`.
    pub fn kvm(ioctl: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
        move |source| Error::Kvm { ioctl, source }
    }
}

/// The guest's vCPU.
#[derive(Debug)]
pub struct Vcpu {
    pub(super) engine: Engine,
    /// The descriptor of KVM's vCPU, or −1: a copy for [`Vcpu::run`].
    number: RawFd,
    /// Where the engine describes an exit; valid as long as `engine`.
    exit: NonNull<kvm_run>,
    /// Error of the last entry, if it failed.
    failed: Option<io::Error>,
}

impl Vcpu {
    /// Adds the only vCPU to `vm`.
    pub fn new(kvm: &Kvm, vm: &VmFd) -> Result<Vcpu, Error> {
        let mut fd = vm.create_vcpu(0).map_err(Error::kvm("KVM_CREATE_VCPU"))?;
        Self::initialize(&fd, kvm, vm)?;
        Ok(Vcpu {
            number: fd.as_raw_fd(),
            exit: NonNull::from(fd.get_kvm_run()),
            engine: Engine::Kvm(fd),
            failed: None,
        })
    }

    /// Returns a vCPU that is a process, which [`Vcpu::start`] creates.
    pub fn process() -> Vcpu {
        let mut process = Box::new(Process::new());
        Vcpu {
            number: -1,
            exit: process.exit(),
            engine: Engine::Process(process),
            failed: None,
        }
    }

    /// Returns what runs the guest.
    pub fn engine(&self) -> config::Engine {
        match self.engine {
            Engine::Kvm(_) => config::Engine::Kvm,
            Engine::Process(_) => config::Engine::Process,
        }
    }

    /// Returns the descriptor of KVM's vCPU.
    pub fn descriptor(&self) -> Option<RawFd> {
        matches!(self.engine, Engine::Kvm(_)).then_some(self.number)
    }

    /// Creates the process that runs the guest in `memory`, if there is one, and returns its ID. The
    /// calling thread alone can run the guest.
    ///
    /// # Errors
    /// The host forbids it.
    pub fn start(&mut self, memory: &Arc<GuestMemory>) -> Result<Option<i32>, Error> {
        match &mut self.engine {
            Engine::Kvm(_) => Ok(None),
            Engine::Process(process) => Ok(Some(process.start(memory)?)),
        }
    }

    /// Ends the process that runs the guest, if there is one.
    pub fn end(&mut self) {
        if let Engine::Process(process) = &mut self.engine {
            process.end();
        }
    }

    /// Runs the guest in KVM until its next exit. Returns the hypercall if it is one, the usual
    /// case; otherwise [`Vcpu::exit`] returns the reason.
    #[inline(always)]
    pub fn run_kvm(&mut self) -> Option<Call> {
        if let Err(error) = self.enter_kvm() {
            self.failed = Some(error);
            return None;
        }
        Self::decode(self.exit_details())
    }

    /// As [`Vcpu::run_kvm`], for any engine.
    #[inline(never)]
    pub fn run(&mut self) -> Option<Call> {
        let Engine::Process(process) = &mut self.engine else {
            return self.run_kvm();
        };
        if let Err(error) = process.enter() {
            self.failed = Some(error);
            return None;
        }
        Self::decode(self.exit_details())
    }

    /// Returns whether the guest kicked the shared network ring when [`Vcpu::run`] returned no
    /// hypercall.
    #[inline(always)]
    pub fn kicked(&mut self) -> bool {
        self.failed.is_none() && Self::is_kick(self.exit_details())
    }

    /// Returns why the guest stopped for anything else.
    ///
    /// # Errors
    /// The engine failed.
    #[cold]
    pub fn exit(&mut self) -> Result<Exit, Error> {
        let Some(source) = self.failed.take() else {
            return Ok(Self::other_exit(self.exit_details()));
        };
        match (interruption(&source), &self.engine) {
            (Some(exit), _) => Ok(exit),
            (None, Engine::Kvm(_)) => Err(Error::Run { source }),
            (None, Engine::Process(process)) => Err(process.failure(source).into()),
        }
    }

    /// Completes the last exit: KVM does so at the next entry only (section 15). This enters KVM
    /// without running the guest. Returns false if KVM refuses even that for now.
    pub fn settle(&mut self) -> bool {
        let Engine::Kvm(fd) = &mut self.engine else {
            return true;
        };
        fd.set_kvm_immediate_exit(1);
        // EINTR is expected; reading the registers reports any other failure.
        let entered = self.enter_kvm();
        self.clear_immediate_exit();
        !entered.is_err_and(|error| interruption(&error) == Some(Exit::Refused))
    }

    /// Returns the byte that keeps the guest from running once it is 1: for signal handlers. Valid
    /// as long as `self`.
    pub fn interrupt_flag(&mut self) -> *mut u8 {
        // SAFETY: `exit` is valid, and this makes no reference.
        unsafe { &raw mut (*self.exit.as_ptr()).immediate_exit }
    }

    fn clear_immediate_exit(&mut self) {
        // SAFETY: the byte is valid; the kernel and signal handlers access it too.
        unsafe { self.interrupt_flag().write_volatile(0) };
    }

    #[inline(always)]
    fn exit_details(&self) -> &kvm_run {
        // SAFETY: the engine keeps the structure, and writes it only while it runs the guest.
        unsafe { self.exit.as_ref() }
    }

    /// Enters the guest until its next exit. Replaces kvm-ioctls here only: that crate converts
    /// every exit into an enum value, which costs too much per hypercall.
    #[inline(always)]
    fn enter_kvm(&self) -> io::Result<()> {
        // SAFETY: the descriptor is our vCPU's, the machine keeps guest memory mapped while it
        // exists, and the ioctl takes no argument. −1 is no descriptor.
        match unsafe { libc::ioctl(self.number, KVM_RUN as _, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Repeats `call` while signals interrupt it, as SIGSTOP and SIGCONT interrupt KVM_CREATE_VM. A
/// signal that should end the process still does: no handlers are installed yet.
pub fn uninterrupted<T>(
    mut call: impl FnMut() -> Result<T, kvm_ioctls::Error>,
) -> Result<T, kvm_ioctls::Error> {
    loop {
        match call() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result,
        }
    }
}

/// Converts an error of KVM_RUN after which the vCPU still works into an exit.
fn interruption(error: &io::Error) -> Option<Exit> {
    match error.raw_os_error()? {
        libc::EINTR => Some(Exit::Interrupted),
        libc::EAGAIN => Some(Exit::Refused),
        errno => Vcpu::failure(errno),
    }
}

/// Fails if the host's KVM lacks one of `capabilities`.
pub(super) fn require(vm: &VmFd, capabilities: &[(Cap, &'static str)]) -> Result<(), Error> {
    match capabilities
        .iter()
        .find(|(capability, _)| !vm.check_extension(*capability))
    {
        Some((_, name)) => Err(Error::Capability(name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_interruptions_are_retried() {
        let mut results = [Err(libc::EINTR), Err(libc::EINTR), Ok(7), Ok(8)].into_iter();
        let mut next = || {
            results
                .next()
                .expect("no more tries")
                .map_err(kvm_ioctls::Error::new)
        };
        assert_eq!(uninterrupted(&mut next), Ok(7));
        assert_eq!(uninterrupted(&mut next), Ok(8));
        let mut tries = 0;
        let failing = || {
            tries += 1;
            Err::<(), _>(kvm_ioctls::Error::new(libc::EMFILE))
        };
        assert_eq!(
            uninterrupted(failing).map_err(|error| error.errno()),
            Err(libc::EMFILE)
        );
        assert_eq!(tries, 1);
    }
}
