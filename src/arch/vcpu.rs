//! What the run loop sees of a processor, whatever it is: why the guest stopped running, and where it started.

use std::io;
use std::os::fd::RawFd;

use kvm_ioctls::Cap;

use super::debug::Trap;
use crate::report::counters::Amount;

/// Lets the guest run. `_IO(KVMIO, 0x80)`.
pub const KVM_RUN: u64 = 0xae80;

/// Where a guest starts.
#[derive(Clone, Copy, Debug)]
pub struct Boot {
    /// Address of its first instruction.
    pub entry: u64,
    /// Address after its last byte of memory: the stack grows down from here.
    pub stack_top: u64,
    /// Address of its boot info block.
    pub boot_info: u64,
}

/// A hypercall as it left the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Not checked: may be a number that does not exist.
    pub number: u32,
    /// Guest-physical address of its argument structure; not checked.
    pub argument: u32,
}

/// Why the guest left the processor, if not for a hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It has submitted requests to the shared network ring, and says so.
    Kick,
    /// A signal arrived, or the run was asked to stop; the guest itself can go on.
    Interrupted,
    /// KVM_RUN failed with EAGAIN: KVM lacks a resource that may be available later.
    Refused,
    /// The processor stopped it for a debugger.
    Trap(Trap),
    /// It did something after which it cannot go on.
    Stop(Stop),
}

/// What a guest did, or met, that ends its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum Stop {
    #[error("the guest kicks a network ring, and was offered none")]
    Kick,
    #[error("the guest wrote {} to {address:#x}, where there is neither memory nor a hypercall", bytes(*width))]
    Write { address: u64, width: usize },
    #[error("the guest read {} from {address:#x}, where there is no memory", bytes(*width))]
    Read { address: u64, width: usize },
    #[error(
        "the guest performed a {width}-byte hypercall at {address:#x}; hypercalls are 4 bytes wide"
    )]
    Width { address: u64, width: usize },
    #[error(
        "the guest accessed {address:#x} by an instruction that cannot be emulated (ldp/stp or write-back form)"
    )]
    NoSyndrome { address: u64 },
    #[error(
        "the guest accessed an address, which this kernel does not tell, by an instruction that cannot be emulated"
    )]
    Undecoded,
    #[error("the guest read from I/O port {port:#x}; there are no input ports")]
    PortRead { port: u16 },
    #[error("the guest wrote {} to I/O port {port:#x}, which is no hypercall", bytes(*width))]
    PortWrite { port: u16, width: usize },
    #[error("the guest stopped its processor (HLT), from which nothing can wake it")]
    Halted,
    #[error("the guest took a fault while handling a fault (triple fault)")]
    TripleFault,
    #[error("KVM cannot run this guest: internal error, suberror {suberror}{}", hint(*suberror))]
    Internal { suberror: u32 },
    #[error("the processor refused to enter the guest: hardware reason {reason:#x}")]
    Entry { reason: u64 },
    #[error("the guest accessed memory that the host could not provide at {address:#x}")]
    MemoryFault { address: u64 },
    #[error("the guest asked for a system event of type {kind}, which no unikernel does")]
    SystemEvent { kind: u32 },
    #[error("the guest stopped for a reason this tender does not know: KVM exit {reason}")]
    Unknown { reason: u32 },
}

/// The width of an access, in words.
fn bytes(width: usize) -> Amount {
    Amount(width as u64, "byte")
}

/// KVM_INTERNAL_ERROR_EMULATION is by far the most common, and rarely the guest's fault.
fn hint(suberror: u32) -> &'static str {
    match suberror {
        1 => " (an instruction that this host's KVM cannot emulate)",
        _ => "",
    }
}

/// Why the host could not provide a virtual machine.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum Error {
    #[error("KVM cannot {what}: {source}{}", cause(Some(source.errno())))]
    Kvm {
        what: &'static str,
        source: kvm_ioctls::Error,
    },
    #[error("this host failed to run the guest: {source}{}", cause(source.raw_os_error()))]
    Run { source: io::Error },
    #[error(
        "this host's KVM lacks {0}, which every tender needs; a kernel of 4.14 or later has it"
    )]
    Capability(&'static str),
    #[error("this host's KVM allows guests {bits} bits of physical address; hvt needs 33")]
    AddressSize { bits: u32 },
    #[error(
        "this host's cycle counter has no known, stable frequency; hvt guests tell the time by it"
    )]
    CounterFrequency,
}

/// What lies behind the host's terse words, where that is known.
fn cause(errno: Option<i32>) -> &'static str {
    match errno.unwrap_or_default() {
        libc::EMFILE | libc::ENFILE => " (raise the limit of open files, ulimit -n)",
        libc::EFAULT => {
            " (a page of the guest's memory cannot be had: memory is used up, or a part of it defective)"
        }
        libc::ENOMEM => " (the kernel has no memory left)",
        libc::EBUSY => {
            " (another hypervisor, such as VirtualBox or VMware, uses the processor; stop its machines)"
        }
        libc::EACCES | libc::EPERM => " (a security module or a system call filter forbids it)",
        libc::EAGAIN => {
            " (no task left for KVM's own thread: raise TasksMax= of the unit, the pids limit or ulimit -u)"
        }
        libc::EHWPOISON => " (a part of the host's memory is defective)",
        _ => "",
    }
}

impl Error {
    /// Names the operation that failed, for `map_err`.
    pub fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
        move |source| Error::Kvm { what, source }
    }
}

/// Enters the guest on the processor `vcpu`, until it wants something. The one thing that kvm-ioctls does for us
/// elsewhere but not here: it also turns every exit into a value of its own, for which a hypercall has no time.
///
/// # Safety
/// `vcpu` is a processor's descriptor, and all memory of its machine is there.
#[inline]
pub unsafe fn enter(vcpu: RawFd) -> io::Result<()> {
    // SAFETY: the caller vouches for the processor; the request takes no argument.
    match unsafe { libc::ioctl(vcpu, KVM_RUN as _, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Repeats `call` while signals interrupt it, as a stop and a continuation interrupt KVM_CREATE_VM. A signal
/// that is meant to end the process still does: none is caught yet.
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

/// Converts an error of KVM_RUN that only interrupts the guest into an exit; none for any other error.
pub fn interruption(error: &io::Error) -> Option<Exit> {
    match error.raw_os_error() {
        Some(libc::EINTR) => Some(Exit::Interrupted),
        Some(libc::EAGAIN) => Some(Exit::Refused),
        _ => None,
    }
}

/// Fails when the host's KVM lacks one of `capabilities`.
pub fn require(vm: &kvm_ioctls::VmFd, capabilities: &[(Cap, &'static str)]) -> Result<(), Error> {
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
