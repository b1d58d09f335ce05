//! The start of a child on ARM64.

use std::arch::{asm, global_asm};

use super::Cpu;
use crate::arch::process::{Step, may};
use crate::arch::{Debugging, Vcpu};

// Makes the calls at X20: see `stub` in `arch/process/steps.rs`.
global_asm!(
    ".pushsection .rodata.stub, \"a\"",
    ".hidden tender_stub, tender_stub_after_call, tender_stub_end",
    ".globl tender_stub, tender_stub_after_call, tender_stub_end",
    ".balign 4",
    "tender_stub:",
    "ldr x8, [x20]",
    "ldp x0, x1, [x20, #8]",
    "ldp x2, x3, [x20, #24]",
    "ldp x4, x5, [x20, #40]",
    "svc #0",
    "tender_stub_after_call:",
    "str x0, [x20, #56]",
    "tbz x0, #63, 2f",
    "ldr x9, [x20, #64]",
    "cbnz x9, 2f",
    "mov x0, #1",
    "mov x8, #94", // exit_group
    "svc #0",
    "2: add x20, x20, #72",
    "b tender_stub",
    "tender_stub_end:",
    ".popsection",
);

/// Runs the code at `code` with the steps at `records`.
///
/// # Safety
/// The code is that of `tender_stub`.
pub(in crate::arch) unsafe fn jump(code: u64, records: u64) -> ! {
    // SAFETY: the caller's.
    unsafe { asm!("br {0}", in(reg) code, in("x20") records, options(noreturn)) }
}

/// Makes new instructions visible to the processor.
pub(in crate::arch) fn synchronize(address: u64, length: u64) {
    Vcpu::instructions_changed(address, length);
}

/// Returns the end of the address space of a process. It differs by kernel; of the ends that exist,
/// the next above the stack is this kernel's.
pub(in crate::arch) fn top() -> u64 {
    const BITS: [u32; 4] = [39, 42, 47, 48];
    // SAFETY: the call reads a number that the kernel gave this process: an address on its stack.
    let stack = unsafe { libc::getauxval(libc::AT_RANDOM) };
    let tops = BITS.map(|bits| 1 << bits);
    tops.into_iter().find(|top| stack < *top).unwrap_or(1 << 48)
}

/// Returns the area of restartable sequences that the C library registered for this thread, and
/// the signature.
pub(in crate::arch) fn restartable_sequences() -> Option<(u64, u64)> {
    const SIGNATURE: u64 = 0xd428_bc00;
    let (offset, thread): (*const i64, u64);
    // SAFETY: a weak symbol, whose address is 0 if there is none, and the thread pointer.
    unsafe {
        asm!(
            ".weak __rseq_offset",
            "adrp {0}, :got:__rseq_offset",
            "ldr {0}, [{0}, :got_lo12:__rseq_offset]",
            "mrs {1}, tpidr_el0",
            out(reg) offset, out(reg) thread, options(nostack, pure, readonly, preserves_flags),
        );
        Some((thread.wrapping_add_signed(*offset.as_ref()?), SIGNATURE))
    }
}

impl Cpu {
    /// Returns the steps of ARM64: keys of pointer authentication are the tender's, and a guest
    /// under KVM has none.
    pub(in crate::arch) fn steps(&self, _free: u64) -> Vec<Step> {
        const PR_PAC_RESET_KEYS: u64 = 54;
        const PR_PAC_SET_ENABLED_KEYS: u64 = 60;
        const ALL_ADDRESS_KEYS: u64 = 0xf;
        let prctl = libc::SYS_prctl;
        let disable = [PR_PAC_SET_ENABLED_KEYS, ALL_ADDRESS_KEYS, 0];
        vec![
            may("change keys of pointers", prctl, &[PR_PAC_RESET_KEYS]),
            may("disable keys of pointers", prctl, &disable),
        ]
    }
}
