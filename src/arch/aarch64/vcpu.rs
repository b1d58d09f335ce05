//! One ARM64 vCPU: its start, exits and reports. Hypercalls are 32-bit stores above 4 GiB.

#![expect(
    unsafe_code,
    reason = "reads the union of `kvm_run`, and a system register"
)]

use guest_abi::hypercall::{MMIO_BASE, MMIO_STRIDE};
use guest_abi::ring::KICK_MMIO;
use kvm_bindings::{
    KVM_EXIT_ARM_NISV, KVM_EXIT_DEBUG, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR,
    KVM_EXIT_MEMORY_FAULT, KVM_EXIT_MMIO, KVM_EXIT_SYSTEM_EVENT, kvm_run, kvm_vcpu_init,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use super::boot::{self, Register};
use super::debug;
use crate::arch::{Boot, Call, Error, Exit, Processor, Stop, Vcpu};

/// Size of the hypercall window in bytes; the decoder checks whether a number exists.
const WINDOW: u64 = 0x100;

impl Processor for Vcpu {
    /// KVM_GET_ONE_REG.
    const REPORT_REQUESTS: &'static [u64] = &[0x4010_aeab];

    /// The type that KVM prefers on this host, without optional features.
    fn initialize(vcpu: &VcpuFd, _: &Kvm, vm: &VmFd) -> Result<(), Error> {
        let mut target = kvm_vcpu_init::default();
        vm.get_preferred_target(&mut target)
            .map_err(Error::kvm("KVM_ARM_PREFERRED_TARGET"))?;
        vcpu.vcpu_init(&boot::target(target))
            .map_err(Error::kvm("KVM_ARM_VCPU_INIT"))?;
        disable_firmware_services(vcpu);
        Ok(())
    }

    fn boot(&mut self, boot: &Boot) -> Result<(), Error> {
        let cpacr = self.get(boot::CPACR_EL1)?;
        self.set(boot::CPACR_EL1, cpacr | boot::CPACR_FPEN)?;
        boot::registers(boot)
            .into_iter()
            .try_for_each(|(register, value)| self.set(register, value))
    }

    fn counter_frequency(&self) -> Result<u64, Error> {
        let frequency: u64;
        // SAFETY: CNTFRQ_EL0 is readable from user space on Linux and reading it changes nothing.
        unsafe {
            std::arch::asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(nomem, nostack, preserves_flags));
        }
        if frequency == 0 {
            Err(Error::CounterFrequency {
                fix: "update the firmware, which must set CNTFRQ_EL0",
            })
        } else {
            Ok(frequency)
        }
    }

    #[inline(always)]
    fn decode(run: &kvm_run) -> Option<Call> {
        // SAFETY: any bytes are a valid value of this member, whichever member of the union was
        // written.
        let mmio = unsafe { &run.__bindgen_anon_1.mmio };
        let offset = mmio.phys_addr.wrapping_sub(MMIO_BASE);
        let is_hypercall = run.exit_reason == KVM_EXIT_MMIO
            && (offset < WINDOW && offset % MMIO_STRIDE == 0)
            && (mmio.len == size_of::<u32>() as u32 && mmio.is_write != 0);
        let [a, b, c, d, ..] = mmio.data;
        let call = Call {
            number: (offset / MMIO_STRIDE) as u32,
            argument: u32::from_le_bytes([a, b, c, d]),
        };
        is_hypercall.then_some(call)
    }

    #[inline(always)]
    fn is_kick(run: &kvm_run) -> bool {
        // SAFETY: as in `decode`.
        let mmio = unsafe { &run.__bindgen_anon_1.mmio };
        run.exit_reason == KVM_EXIT_MMIO
            && mmio.phys_addr == KICK_MMIO
            && (mmio.len == size_of::<u32>() as u32 && mmio.is_write != 0)
    }

    fn other_exit(run: &kvm_run) -> Exit {
        if run.exit_reason != KVM_EXIT_MMIO {
            return other(run);
        }
        // SAFETY: with this exit reason, `mmio` is the member of the union that was written.
        let mmio = unsafe { run.__bindgen_anon_1.mmio };
        access(mmio.phys_addr, mmio.len as usize, mmio.is_write != 0)
    }

    /// Kernels before 5.5 fail with ENOSYS on an access without syndrome; later ones report a
    /// separate exit.
    fn failure(errno: i32) -> Option<Exit> {
        (errno == libc::ENOSYS).then_some(Exit::Stop(Stop::Undecoded))
    }

    fn registers(&self) -> String {
        self.named(&[
            ("pc", boot::PC),
            ("lr", boot::X30),
            ("sp", boot::SP_EL1),
            ("pstate", boot::PSTATE),
        ])
    }

    fn fault_registers(&self) -> String {
        let exception = [
            ("esr", boot::ESR_EL1),
            ("far", boot::FAR_EL1),
            ("elr", boot::ELR_EL1),
        ];
        let handling = [
            ("spsr", boot::SPSR_EL1),
            ("vbar", boot::VBAR_EL1),
            ("sctlr", boot::SCTLR_EL1),
        ];
        self.named(&[exception, handling].concat())
    }
}

impl Vcpu {
    pub(super) fn get(&self, register: Register) -> Result<u64, Error> {
        let mut value = [0; 8];
        self.engine
            .get_one_reg(register.0, &mut value)
            .map_err(Error::kvm("KVM_GET_ONE_REG"))?;
        Ok(u64::from_le_bytes(value))
    }

    pub(super) fn set(&self, register: Register, value: u64) -> Result<(), Error> {
        self.engine
            .set_one_reg(register.0, &value.to_le_bytes())
            .map_err(Error::kvm("KVM_SET_ONE_REG"))?;
        Ok(())
    }

    fn named(&self, names: &[(&str, Register)]) -> String {
        let values = names
            .iter()
            .map(|(name, register)| match self.get(*register) {
                Ok(value) => format!("{name} {value:#x}"),
                Err(_) => format!("{name} unknown"),
            });
        values.collect::<Vec<_>>().join(", ")
    }
}

/// Disables KVM's firmware services where the kernel can (5.19 and later). No hvt guest calls any.
fn disable_firmware_services(vcpu: &VcpuFd) {
    for register in boot::SERVICES {
        if let Err(error) = vcpu.set_one_reg(register.0, &0_u64.to_le_bytes()) {
            log::debug!(
                "cannot disable KVM's firmware services ({:#x}): {error}",
                register.0
            );
        }
    }
}

/// Classifies an access that is neither to memory nor a hypercall.
fn access(address: u64, width: usize, is_write: bool) -> Exit {
    Exit::Stop(match address.checked_sub(MMIO_BASE) {
        _ if !is_write => Stop::Read { address, width },
        Some(offset) if offset < WINDOW && offset % MMIO_STRIDE == 0 => {
            Stop::Width { address, width }
        }
        _ => Stop::Write { address, width },
    })
}

/// Returns why the guest stopped, for exits other than MMIO.
fn other(run: &kvm_run) -> Exit {
    let details = &run.__bindgen_anon_1;
    // SAFETY: the exit reason determines which member of the union was written.
    let stop = unsafe {
        match run.exit_reason {
            KVM_EXIT_INTR => return Exit::Interrupted,
            KVM_EXIT_DEBUG => return Exit::Trap(debug::trap(&details.debug.arch)),
            KVM_EXIT_ARM_NISV => Stop::NoSyndrome {
                address: details.arm_nisv.fault_ipa,
            },
            KVM_EXIT_FAIL_ENTRY => Stop::Entry {
                reason: details.fail_entry.hardware_entry_failure_reason,
            },
            KVM_EXIT_MEMORY_FAULT => Stop::MemoryFault {
                address: details.memory_fault.gpa,
            },
            KVM_EXIT_SYSTEM_EVENT => Stop::SystemEvent {
                kind: details.system_event.type_,
            },
            KVM_EXIT_INTERNAL_ERROR => Stop::Internal {
                suberror: details.internal.suberror,
            },
            reason => Stop::Unknown { reason },
        }
    };
    Exit::Stop(stop)
}
