//! The one instruction by which a guest calls its tender (sections A1 and B1). For code that runs
//! inside a guest.

/// Performs hypercall `number` with the argument structure at `argument`.
///
/// # Safety
/// Only inside an hvt guest, at EL1 or ring 0, with virtual addresses equal to physical ones.
/// `argument` must point to the structure that belongs to `number`, below 4 GiB, valid for reads
/// and writes, and every buffer it names must be valid for what the call does with it.
#[inline(always)]
pub unsafe fn hypercall<T>(number: u32, argument: *mut T) {
    // SAFETY: the caller guarantees that this is a guest and that `argument` fits `number`.
    unsafe { raw(number, argument as usize as u32) }
}

/// Stores any `value` at the address of hypercall `number`. Tests use it to violate
/// the contract.
///
/// # Safety
/// As for [`hypercall`], except that a tender must survive any `value`; the guest may not.
#[inline(always)]
pub unsafe fn raw(number: u32, value: u32) {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a store to the hypercall window reaches the tender and changes only what the call's
    // contract allows. The absent `nomem` makes the compiler assume that memory changes.
    unsafe {
        core::arch::asm!(
            "str {value:w}, [{address}]",
            value = in(reg) value,
            address = in(reg) crate::hypercall::MMIO_BASE + crate::hypercall::MMIO_STRIDE * number as u64,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above, for an `out` to the hypercall's port.
    unsafe {
        core::arch::asm!(
            "out dx, eax",
            in("dx") crate::hypercall::PIO_BASE + number as u16,
            in("eax") value,
            options(nostack, preserves_flags),
        );
    }
}
