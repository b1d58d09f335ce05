//! One x86_64 virtual processor: how it is started, run and read. Hypercalls are 32-bit writes to I/O ports.

use std::os::fd::{AsRawFd, RawFd};

use guest_abi::hypercall::PIO_BASE;
use guest_abi::ring::KICK_PORT;
use kvm_bindings::{KVM_CAP_ENFORCE_PV_FEATURE_CPUID, KVM_MAX_CPUID_ENTRIES, kvm_enable_cap};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use super::{boot, cpuid};
use crate::arch::{Boot, Error, Exit, Stop};

/// Ports that hypercalls may arrive at, counted from the base; which numbers exist is for the decoder to say.
const PORTS: u16 = 0x100;

/// KVM_GET_REGS and KVM_GET_SREGS, the requests beside KVM_RUN that a processor gets once its guest runs: for
/// [`Vcpu::registers`] and [`Vcpu::fault_registers`].
pub const REPORT_REQUESTS: &[u64] = &[0x8090_ae81, 0x8138_ae83];

/// The guest's processor.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
}

impl AsRawFd for Vcpu {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Vcpu {
    /// Adds the one processor to `vm`.
    pub fn new(kvm: &Kvm, vm: &VmFd) -> Result<Vcpu, Error> {
        let fd = vm.create_vcpu(0).map_err(Error::kvm("create a virtual processor"))?;
        let mut supported =
            kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(Error::kvm("tell what its processors support"))?;
        cpuid::limit(&mut supported);
        fd.set_cpuid2(&supported).map_err(Error::kvm("set what the processor supports"))?;
        refuse_hypercalls(&fd);
        Ok(Vcpu { fd })
    }

    /// Puts the processor at the guest's first instruction.
    pub fn boot(&mut self, boot: &Boot) -> Result<(), Error> {
        let reset = self.fd.get_sregs().map_err(Error::kvm("read system registers"))?;
        self.fd.set_sregs(&boot::system_registers(reset)).map_err(Error::kvm("set system registers"))?;
        self.fd.set_regs(&boot::registers(boot)).map_err(Error::kvm("set general registers"))
    }

    /// Frequency in Hz of the counter by which the guest tells the time.
    pub fn counter_frequency(&self) -> Result<u64, Error> {
        match self.fd.get_tsc_khz() {
            Ok(khz) if khz > 0 => Ok(u64::from(khz) * 1000),
            _ => Err(Error::CounterFrequency),
        }
    }

    /// Lets the guest run until it wants something.
    #[inline]
    pub fn run(&mut self) -> Result<Exit, Error> {
        let exit = match self.fd.run() {
            Ok(VcpuExit::IoOut(port, data)) => return Ok(port_write(port, data)),
            Ok(exit) => exit,
            Err(error) => return interrupted(error),
        };
        let stop = match exit {
            VcpuExit::IoIn(port, _) => Stop::PortRead { port },
            VcpuExit::MmioWrite(address, data) => Stop::Write { address, width: data.len() },
            VcpuExit::MmioRead(address, data) => Stop::Read { address, width: data.len() },
            VcpuExit::Hlt => Stop::Halted,
            VcpuExit::Shutdown => Stop::TripleFault,
            VcpuExit::FailEntry(reason, _) => Stop::Entry { reason },
            VcpuExit::MemoryFault { gpa, .. } => Stop::MemoryFault { address: gpa },
            VcpuExit::Intr => return Ok(Exit::Interrupted),
            _ => self.unusual(),
        };
        Ok(Exit::Stop(stop))
    }

    /// Exits that kvm-ioctls passes on without their details.
    fn unusual(&mut self) -> Stop {
        let run = self.fd.get_kvm_run();
        match run.exit_reason {
            kvm_bindings::KVM_EXIT_INTERNAL_ERROR => {
                // SAFETY: the exit reason says that `internal` is the member of the union that was written.
                Stop::Internal { suberror: unsafe { run.__bindgen_anon_1.internal.suberror } }
            }
            reason => Stop::Unknown { reason },
        }
    }

    /// Brings the registers up to date: KVM completes the last exit only when the guest is entered again, which this
    /// does without running it.
    pub fn settle(&mut self) {
        self.fd.set_kvm_immediate_exit(1);
        // The interruption is what was asked for; any other failure will show when the registers are read.
        let _ = self.fd.run();
        self.fd.set_kvm_immediate_exit(0);
    }

    /// The byte that, once set to 1, keeps the guest from running: for signal handlers. Valid as long as `self` is.
    pub fn interrupt_flag(&mut self) -> *mut u8 {
        &raw mut self.fd.get_kvm_run().immediate_exit
    }

    /// The registers that say where the guest is, for a report; call [`Vcpu::settle`] first.
    pub fn registers(&self) -> String {
        match self.fd.get_regs() {
            Ok(regs) => format!("pc {:#x}, sp {:#x}, rflags {:#x}", regs.rip, regs.rsp, regs.rflags),
            Err(error) => format!("registers cannot be read: {error}"),
        }
    }

    /// The registers that say what the guest met last and where it handles that; call [`Vcpu::settle`] first.
    pub fn fault_registers(&self) -> String {
        match self.fd.get_sregs() {
            Ok(kvm_bindings::kvm_sregs { cr0, cr2, cr3, idt, .. }) => {
                format!("cr2 {cr2:#x}, cr3 {cr3:#x}, cr0 {cr0:#x}, idt {:#x}", idt.base)
            }
            Err(error) => format!("system registers cannot be read: {error}"),
        }
    }
}

/// Has KVM go by what the guest was told of its hypervisor, which is nothing: KVM's own hypercalls (VMCALL, VMMCALL) are
/// refused then, where the kernel can (5.10 and later). No hvt guest makes any.
fn refuse_hypercalls(vcpu: &VcpuFd) {
    let mut capability = kvm_enable_cap { cap: KVM_CAP_ENFORCE_PV_FEATURE_CPUID, ..Default::default() };
    capability.args[0] = 1;
    if let Err(error) = vcpu.enable_cap(&capability) {
        log::debug!("KVM cannot refuse its own hypercalls: {error}");
    }
}

fn port_write(port: u16, data: &[u8]) -> Exit {
    let number = port.wrapping_sub(PIO_BASE);
    match <[u8; 4]>::try_from(data) {
        Ok(value) if number < PORTS => Exit::Hypercall { number: number.into(), argument: u32::from_le_bytes(value) },
        Err(_) if number < PORTS => Exit::Stop(Stop::Width { address: port.into(), width: data.len() }),
        Ok(_) if port == KICK_PORT => Exit::Kick,
        _ => Exit::Stop(Stop::PortWrite { port, width: data.len() }),
    }
}

fn interrupted(error: kvm_ioctls::Error) -> Result<Exit, Error> {
    match error.errno() {
        libc::EINTR | libc::EAGAIN => Ok(Exit::Interrupted),
        _ => Err(Error::Run { source: error }),
    }
}
