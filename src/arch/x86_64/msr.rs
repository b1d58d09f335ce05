//! Model-specific registers: through them a guest reaches more of KVM than by anything else that it can do, so it
//! gets those that unikernels use and no others. An access to another one is a general protection exception in the
//! guest, as it is for a register that the processor does not have; no exit, nothing for this process to decide.

use kvm_ioctls::{Error, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};

/// FS_BASE, the first of the registers that a guest may read and write. GS_BASE and KERNEL_GS_BASE follow it. They
/// hold where the current thread's data lies, and are the guest's own: the processor keeps them apart, and KVM never
/// looks at them. EFER is not among them: it is right from the start. Nor is the counter: RDTSC reads it.
const FIRST: u32 = 0xc000_0100;

/// A bit for each register from [`FIRST`] on: one that is set may be accessed.
const ALLOWED: [u8; 1] = [0b111];

/// Has KVM deny all registers but those. KVM does not ask the filter for the x2APIC's (0x800 to 0x8ff); they are
/// denied anyway, as there is no APIC. What this process sets for the guest is not concerned.
///
/// # Errors
/// ENOTTY or EINVAL: this kernel, before 5.10, cannot.
pub fn deny_registers(vm: &VmFd) -> Result<(), Error> {
    let range = MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base: FIRST,
        msr_count: ALLOWED[0].count_ones(),
        bitmap: &ALLOWED,
    };
    vm.set_msr_filter(MsrFilterDefaultAction::DENY, &[range])
}
