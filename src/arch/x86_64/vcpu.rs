//! One x86_64 vCPU: starting, running and inspecting it. Hypercalls are 32-bit writes to I/O ports.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use guest_abi::hypercall::PIO_BASE;
use guest_abi::ring::KICK_PORT;
use kvm_bindings::{
    KVM_CAP_ENFORCE_PV_FEATURE_CPUID, KVM_EXIT_DEBUG, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT,
    KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR, KVM_EXIT_IO, KVM_EXIT_IO_OUT, KVM_EXIT_MEMORY_FAULT,
    KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN, KVM_MAX_CPUID_ENTRIES, kvm_enable_cap, kvm_run,
    kvm_run__bindgen_ty_1__bindgen_ty_6,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use super::{boot, cpuid, debug};
use crate::arch::vcpu::{enter, interruption};
use crate::arch::{Boot, Call, Error, Exit, Stop};

/// Number of hypercall ports from the base; the decoder checks whether a number exists.
const PORTS: u16 = 0x100;

/// KVM_GET_REGS and KVM_GET_SREGS, for [`Vcpu::registers`] and [`Vcpu::fault_registers`]: the
/// ioctls besides KVM_RUN that are made on the vCPU once its guest runs.
pub const REPORT_REQUESTS: &[u64] = &[0x8090_ae81, 0x8138_ae83];

/// The guest's vCPU.
#[derive(Debug)]
pub struct Vcpu {
    pub(super) fd: VcpuFd,
    /// Error of the last `KVM_RUN`, if it failed.
    failed: Option<io::Error>,
}

impl AsRawFd for Vcpu {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Vcpu {
    /// Adds the only vCPU to `vm`.
    pub fn new(kvm: &Kvm, vm: &VmFd) -> Result<Vcpu, Error> {
        let fd = vm.create_vcpu(0).map_err(Error::kvm("KVM_CREATE_VCPU"))?;
        let mut supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(Error::kvm("KVM_GET_SUPPORTED_CPUID"))?;
        cpuid::limit(&mut supported);
        fd.set_cpuid2(&supported)
            .map_err(Error::kvm("KVM_SET_CPUID2"))?;
        disable_kvm_hypercalls(&fd);
        Ok(Vcpu { fd, failed: None })
    }

    /// Sets the registers for the guest's first instruction.
    pub fn boot(&mut self, boot: &Boot) -> Result<(), Error> {
        let reset = self.fd.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?;
        self.fd
            .set_sregs(&boot::system_registers(reset))
            .map_err(Error::kvm("KVM_SET_SREGS"))?;
        self.fd
            .set_regs(&boot::registers(boot))
            .map_err(Error::kvm("KVM_SET_REGS"))
    }

    /// Returns the frequency in Hz of the counter that the guest uses as its clock.
    pub fn counter_frequency(&self) -> Result<u64, Error> {
        match self.fd.get_tsc_khz() {
            Ok(khz) if khz > 0 => Ok(u64::from(khz) * 1000),
            _ => Err(Error::CounterFrequency),
        }
    }

    /// Runs the guest until its next exit. Returns the hypercall if it is one, the usual case;
    /// otherwise [`Vcpu::exit`] returns the reason.
    #[inline(always)]
    pub fn run(&mut self) -> Option<Call> {
        // SAFETY: the descriptor is our vCPU's, and the machine keeps its memory as long.
        if let Err(error) = unsafe { enter(self.fd.as_raw_fd()) } {
            self.failed = Some(error);
            return None;
        }
        let run = self.fd.get_kvm_run();
        if run.exit_reason != KVM_EXIT_IO {
            return None;
        }
        // SAFETY: with this exit reason, `io` is the member of the union that was written.
        let io = unsafe { run.__bindgen_anon_1.io };
        let number = io.port.wrapping_sub(PIO_BASE);
        let is_write = u32::from(io.direction) == KVM_EXIT_IO_OUT;
        let is_word = io.size == 4 && io.count == 1;
        if !(is_write && is_word && number < PORTS) {
            return None;
        }
        // SAFETY: KVM wrote the four bytes there, inside the vCPU's mapping.
        let argument = unsafe {
            (&raw const *run)
                .byte_add(io.data_offset as usize)
                .cast::<u32>()
                .read_unaligned()
        };
        Some(Call {
            number: number.into(),
            argument,
        })
    }

    /// Returns why the guest stopped when [`Vcpu::run`] returned no hypercall.
    ///
    /// # Errors
    /// `KVM_RUN` failed.
    #[cold]
    pub fn exit(&mut self) -> Result<Exit, Error> {
        if let Some(error) = self.failed.take() {
            return interruption(&error).ok_or(Error::Run { source: error });
        }
        let run = self.fd.get_kvm_run();
        if run.exit_reason != KVM_EXIT_IO {
            return Ok(other(run));
        }
        // SAFETY: with this exit reason, `io` is the member of the union that was written.
        let io = unsafe { run.__bindgen_anon_1.io };
        let width = usize::from(io.size) * io.count as usize;
        Ok(port_access(
            io.port,
            width,
            u32::from(io.direction) == KVM_EXIT_IO_OUT,
        ))
    }

    /// Completes the last exit: KVM does so at the next entry only. This enters KVM without running
    /// the guest. Returns false if KVM refuses even that for now.
    pub fn settle(&mut self) -> bool {
        self.fd.set_kvm_immediate_exit(1);
        // EINTR is expected; reading the registers reports any other failure.
        // SAFETY: as in `run`.
        let entered = unsafe { enter(self.fd.as_raw_fd()) };
        self.fd.set_kvm_immediate_exit(0);
        !entered.is_err_and(|error| interruption(&error) == Some(Exit::Refused))
    }

    /// Returns the byte that keeps the guest from running once it is 1: for signal handlers. Valid
    /// as long as `self`.
    pub fn interrupt_flag(&mut self) -> *mut u8 {
        &raw mut self.fd.get_kvm_run().immediate_exit
    }

    /// Formats the registers that locate the guest, for a report; call [`Vcpu::settle`] first.
    pub fn registers(&self) -> String {
        match self.fd.get_regs() {
            Ok(regs) => format!(
                "pc {:#x}, sp {:#x}, rflags {:#x}",
                regs.rip, regs.rsp, regs.rflags
            ),
            Err(error) => format!("registers unavailable: {error}"),
        }
    }

    /// Formats the registers of the last exception and its handler; call [`Vcpu::settle`] first.
    pub fn fault_registers(&self) -> String {
        match self.fd.get_sregs() {
            Ok(kvm_bindings::kvm_sregs {
                cr0, cr2, cr3, idt, ..
            }) => {
                format!(
                    "cr2 {cr2:#x}, cr3 {cr3:#x}, cr0 {cr0:#x}, idt {:#x}",
                    idt.base
                )
            }
            Err(error) => format!("system registers unavailable: {error}"),
        }
    }
}

/// Disables KVM's paravirtual hypercalls (VMCALL, VMMCALL), which the guest's CPUID does not list,
/// where the kernel can (5.10 and later). No hvt guest makes any.
fn disable_kvm_hypercalls(vcpu: &VcpuFd) {
    let mut capability = kvm_enable_cap {
        cap: KVM_CAP_ENFORCE_PV_FEATURE_CPUID,
        ..Default::default()
    };
    capability.args[0] = 1;
    if let Err(error) = vcpu.enable_cap(&capability) {
        log::debug!("KVM_CAP_ENFORCE_PV_FEATURE_CPUID failed: {error}");
    }
}

/// Classifies an access to an I/O port that is not a hypercall.
fn port_access(port: u16, width: usize, is_write: bool) -> Exit {
    Exit::Stop(match port.wrapping_sub(PIO_BASE) {
        _ if !is_write => Stop::PortRead { port },
        number if number < PORTS => Stop::Width {
            address: port.into(),
            width,
        },
        _ if port == KICK_PORT && width == size_of::<u32>() => return Exit::Kick,
        _ => Stop::PortWrite { port, width },
    })
}

/// Returns why the guest stopped, for exits other than port I/O.
fn other(run: &kvm_run) -> Exit {
    let details = &run.__bindgen_anon_1;
    // SAFETY: the exit reason determines which member of the union was written.
    let stop = unsafe {
        match run.exit_reason {
            KVM_EXIT_INTR => return Exit::Interrupted,
            KVM_EXIT_DEBUG => return Exit::Trap(debug::trap(&details.debug.arch)),
            KVM_EXIT_MMIO => access(&details.mmio),
            KVM_EXIT_HLT => Stop::Halted,
            KVM_EXIT_SHUTDOWN => Stop::TripleFault,
            KVM_EXIT_FAIL_ENTRY => Stop::Entry {
                reason: details.fail_entry.hardware_entry_failure_reason,
            },
            KVM_EXIT_MEMORY_FAULT => Stop::MemoryFault {
                address: details.memory_fault.gpa,
            },
            KVM_EXIT_INTERNAL_ERROR => Stop::Internal {
                suberror: details.internal.suberror,
            },
            reason => Stop::Unknown { reason },
        }
    };
    Exit::Stop(stop)
}

fn access(mmio: &kvm_run__bindgen_ty_1__bindgen_ty_6) -> Stop {
    let (address, width) = (mmio.phys_addr, mmio.len as usize);
    if mmio.is_write != 0 {
        Stop::Write { address, width }
    } else {
        Stop::Read { address, width }
    }
}
