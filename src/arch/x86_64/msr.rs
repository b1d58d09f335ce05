//! Model-specific registers. They expose more of KVM than anything else a guest can do, so it gets
//! those that unikernels use and no others. An access to another one raises a general protection
//! exception in the guest, as for a register that the processor lacks: there is no exit, and this
//! process decides nothing.

use kvm_ioctls::{Error, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};

/// FS_BASE, the first of the registers that a guest may access; GS_BASE and KERNEL_GS_BASE follow.
/// They hold the address of the current thread's data. The processor switches them with the guest,
/// and KVM never reads them. EFER is not among them: its initial value is right. The counter is
/// read by RDTSC instead.
pub(super) const FIRST: u32 = 0xc000_0100;

/// One bit for each register from [`FIRST`] on; a set bit allows access.
const ALLOWED: [u8; 1] = [0b111];

/// Makes KVM deny all other registers to the guest; this process can still set them. KVM does not
/// apply the filter to x2APIC registers (0x800 to 0x8ff), but denies those anyway: there is no
/// APIC.
///
/// # Errors
/// ENOTTY or EINVAL on kernels before 5.10.
pub(super) fn deny_registers(vm: &VmFd) -> Result<(), Error> {
    let range = MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base: FIRST,
        msr_count: ALLOWED[0].count_ones(),
        bitmap: &ALLOWED,
    };
    vm.set_msr_filter(MsrFilterDefaultAction::DENY, &[range])
}
