//! The traits that the code for each processor implements. The compiler lists the parts that are
//! missing for a new processor.

use kvm_bindings::kvm_run;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use super::debug::Debug;
use super::{Boot, Call, Error, Exit, TablesFull};
use crate::guest::image::Machine;
use crate::memory::{GuestAddress, GuestMemory, Mapping};

/// The virtual machine around a vCPU. [`super::Native`] implements it.
pub trait Architecture {
    /// Architecture of the guests.
    const MACHINE: Machine;

    /// System calls that exist on this architecture only, older forms of others; the names are for
    /// messages.
    const OLD_CALLS: &'static [(libc::c_long, &'static str)];

    /// Whether KVM runs guests on this processor itself. Otherwise it emulates each instruction of a
    /// guest, which takes longer than many an exit saved.
    fn runs_guests_natively() -> bool;

    /// Creates an empty virtual machine, without any interrupt controller.
    fn create_vm(kvm: &Kvm) -> Result<VmFd, Error>;

    /// Makes KVM deny the model-specific registers that no unikernel needs; this process can still
    /// set them.
    ///
    /// # Errors
    /// ENOTTY or EINVAL on kernels without MSR filters (x86_64 before 5.10).
    fn deny_registers(vm: &VmFd) -> Result<(), kvm_ioctls::Error>;

    /// Writes the page tables and the processor's other start structures into guest memory.
    fn build_tables(memory: &GuestMemory, mappings: &[Mapping]) -> Result<(), TablesFull>;

    /// Longest sleep of one POLL in nanoseconds, for the frequency of the guest's counter.
    fn poll_limit(counter_frequency: u64) -> u64;
}

/// Starting, running and reporting on a vCPU. [`super::Vcpu`] implements this trait and those
/// below.
pub trait Processor: Sized {
    /// Ioctls besides KVM_RUN that [`Processor::registers`] and [`Processor::fault_registers`]
    /// make.
    const REPORT_REQUESTS: &'static [u64];

    /// Initialises the only vCPU of `vm`.
    fn initialize(vcpu: &VcpuFd, kvm: &Kvm, vm: &VmFd) -> Result<(), Error>;

    /// Sets the registers for the guest's first instruction.
    fn boot(&mut self, boot: &Boot) -> Result<(), Error>;

    /// Returns the frequency in Hz of the counter that the guest uses as its clock.
    fn counter_frequency(&self) -> Result<u64, Error>;

    /// Decodes the last exit if it is a hypercall.
    fn decode(run: &kvm_run) -> Option<Call>;

    /// Returns whether the last exit is a kick of the shared network ring.
    fn is_kick(run: &kvm_run) -> bool;

    /// Returns why the guest exited, other than for a hypercall or a kick.
    fn other_exit(run: &kvm_run) -> Exit;

    /// Returns the exit for an errno of `KVM_RUN` that only this processor has.
    fn failure(errno: i32) -> Option<Exit>;

    /// Formats the registers that locate the guest, for a report; call [`super::Vcpu::settle`]
    /// first.
    fn registers(&self) -> String;

    /// Formats the registers of the last exception and its handler; call [`super::Vcpu::settle`]
    /// first.
    fn fault_registers(&self) -> String;
}

/// Registers for core files.
pub trait CoreRegisters {
    /// `elf_gregset_t`.
    type General;

    /// Ioctls for a core file in addition to [`Processor::REPORT_REQUESTS`].
    const CORE_REQUESTS: &'static [u64];

    /// Returns the general registers; call [`super::Vcpu::settle`] first.
    fn general_registers(&self) -> Result<Self::General, Error>;

    /// Returns the floating-point registers: `elf_fpregset_t`.
    fn floating_registers(&self) -> Result<Vec<u8>, Error>;

    /// Restores the registers that the guest's trap handler saved at `cookie`: those of the trap
    /// instead of those of the handler's HALT. Section 8. The guest chose the address; it may be
    /// any.
    fn return_to_trap(registers: &mut Self::General, memory: &GuestMemory, cookie: GuestAddress);
}

/// What gdb needs: registers, breakpoints and watchpoints.
pub trait Debugging {
    /// Ioctls for gdb in addition to [`Processor::REPORT_REQUESTS`].
    const DEBUG_REQUESTS: &'static [u64];

    /// The breakpoint instruction.
    const BREAKPOINT: &'static [u8];

    /// Target description: the registers in the order and widths of
    /// [`Debugging::debug_registers`].
    const DESCRIPTION: &'static str;

    /// Offset of the program counter in these registers.
    const PROGRAM_COUNTER: usize;

    /// Returns the number of hardware points that breakpoints and watchpoints can use.
    fn hardware_points(vm: Option<&VmFd>) -> usize;

    /// Returns whether the processor can watch these bytes.
    fn can_watch(address: u64, length: u64) -> bool;

    /// Returns all registers of [`Debugging::DESCRIPTION`], in that order.
    fn debug_registers(&self) -> Result<Vec<u8>, Error>;

    /// Sets the general and floating-point registers. System registers stay unchanged.
    fn set_debug_registers(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// Returns the address of the next instruction.
    fn program_counter(&self) -> Result<u64, Error>;

    /// Configures how the next `KVM_RUN` is debugged; `None` disables debugging.
    fn debug(&mut self, debug: Option<Debug<'_>>) -> Result<(), Error>;

    /// Makes changed instructions at this host address visible to the guest.
    fn instructions_changed(host_address: u64, length: u64);
}
