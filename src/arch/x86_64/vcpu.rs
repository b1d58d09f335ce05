//! One x86_64 vCPU: its start, exits and reports. Hypercalls are 32-bit writes to I/O ports.

#![expect(unsafe_code, reason = "reads the union of `kvm_run`")]

use std::arch::x86_64::__cpuid;

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
use crate::arch::process::EXIT_MODE;
use crate::arch::{Boot, Call, Error, Exit, Processor, Stop, Vcpu};

/// Number of hypercall ports from the base; the decoder checks whether a number exists.
const PORTS: u16 = 0x100;

impl Processor for Vcpu {
    /// KVM_GET_REGS and KVM_GET_SREGS.
    const REPORT_REQUESTS: &'static [u64] = &[0x8090_ae81, 0x8138_ae83];

    fn initialize(vcpu: &VcpuFd, kvm: &Kvm, _: &VmFd) -> Result<(), Error> {
        let mut supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(Error::kvm("KVM_GET_SUPPORTED_CPUID"))?;
        cpuid::limit(&mut supported);
        vcpu.set_cpuid2(&supported)
            .map_err(Error::kvm("KVM_SET_CPUID2"))?;
        disable_kvm_hypercalls(vcpu);
        Ok(())
    }

    fn boot(&mut self, boot: &Boot) -> Result<(), Error> {
        let reset = self
            .engine
            .get_sregs()
            .map_err(Error::kvm("KVM_GET_SREGS"))?;
        self.engine
            .set_sregs(&boot::system_registers(reset))
            .map_err(Error::kvm("KVM_SET_SREGS"))?;
        self.engine
            .set_regs(&boot::registers(boot))
            .map_err(Error::kvm("KVM_SET_REGS"))
    }

    fn counter_frequency(&self) -> Result<u64, Error> {
        match self.engine.get_tsc_khz() {
            Ok(khz) if khz > 0 => Ok(u64::from(khz) * 1000),
            _ => Err(Error::CounterFrequency {
                fix: "run without KVM (--engine=process), or use another host",
            }),
        }
    }

    #[inline(always)]
    fn decode(run: &kvm_run) -> Option<Call> {
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

    #[inline(always)]
    fn is_kick(run: &kvm_run) -> bool {
        // SAFETY: any bytes are a valid value of this member, whichever member of the union was
        // written.
        let io = unsafe { &run.__bindgen_anon_1.io };
        run.exit_reason == KVM_EXIT_IO
            && (io.port == KICK_PORT && u32::from(io.direction) == KVM_EXIT_IO_OUT)
            && (usize::from(io.size) == size_of::<u32>() && io.count == 1)
    }

    fn other_exit(run: &kvm_run) -> Exit {
        if run.exit_reason != KVM_EXIT_IO {
            return other(run);
        }
        // SAFETY: with this exit reason, `io` is the member of the union that was written.
        let io = unsafe { run.__bindgen_anon_1.io };
        let width = usize::from(io.size) * io.count as usize;
        port_access(io.port, width, u32::from(io.direction) == KVM_EXIT_IO_OUT)
    }

    fn failure(_: i32) -> Option<Exit> {
        None
    }

    fn registers(&self) -> String {
        match self.engine.get_regs() {
            Ok(regs) => format!(
                "pc {:#x}, sp {:#x}, rflags {:#x}",
                regs.rip, regs.rsp, regs.rflags
            ),
            Err(error) => format!("registers unavailable: {error}"),
        }
    }

    fn fault_registers(&self) -> String {
        match self.engine.get_sregs() {
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

/// Returns whether the processor has VMX or SVM. Without them, KVM emulates guests (kvm-pvm).
#[allow(
    unused_unsafe,
    reason = "CPUID is a safe function in newer versions of Rust"
)]
pub(super) fn has_virtualization() -> bool {
    const VMX: u32 = 1 << 5;
    const SVM: u32 = 1 << 2;
    // SAFETY: every x86_64 processor has CPUID and these two leaves.
    let [basic, extended] = [1, 0x8000_0001].map(|leaf| unsafe { __cpuid(leaf) }.ecx);
    basic & VMX != 0 || extended & SVM != 0
}

/// Classifies an access to an I/O port that is not a hypercall.
fn port_access(port: u16, width: usize, is_write: bool) -> Exit {
    Exit::Stop(match port.wrapping_sub(PIO_BASE) {
        _ if !is_write => Stop::PortRead { port },
        number if number < PORTS => Stop::Width {
            address: port.into(),
            width,
        },
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
            EXIT_MODE => Stop::Mode,
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
