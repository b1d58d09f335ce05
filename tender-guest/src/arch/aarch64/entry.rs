//! Entry and exception vectors.

use core::arch::{asm, global_asm};

use crate::abi::hypercall::STATUS_ABORT;
use crate::{calls, println};

// The tender has set the stack and put the boot info's address into x0. No frame is above this one.
global_asm!(
    ".section .text.start, \"ax\"",
    ".global _start",
    "_start:",
    "mov x29, xzr",
    "mov x30, xzr",
    "b guest_start"
);

// Sixteen vectors of 128 bytes. None returns, so registers may be lost: x30 identifies the vector.
// The report runs on a separate stack, because the current one may be the cause.
global_asm!(
    ".section .text.vectors, \"ax\"",
    ".balign 2048",
    "guest_vectors:",
    ".rept 16",
    ".balign 128",
    "mov x6, x30",
    "bl 2f",
    ".endr",
    ".balign 128",
    "2:",
    "mov x0, sp",
    "adrp x1, guest_vectors",
    "add x1, x1, :lo12:guest_vectors",
    "sub x1, x30, x1",
    "lsr x1, x1, #7",
    "mrs x2, esr_el1",
    "mrs x3, elr_el1",
    "mrs x4, far_el1",
    "mrs x5, spsr_el1",
    "adrp x30, guest_trap_stack + 4096",
    "mov sp, x30",
    "b guest_trap",
    ".section .bss.trap, \"aw\", @nobits",
    ".balign 4096",
    "guest_trap_stack:",
    ".skip 4096",
);

/// Makes traps report themselves instead of looping at an unmapped address.
pub fn install_traps() {
    // SAFETY: the vectors are a properly aligned table and stay where they are.
    unsafe {
        asm!(
            "adrp {address}, guest_vectors",
            "add {address}, {address}, :lo12:guest_vectors",
            "msr vbar_el1, {address}",
            "isb",
            address = out(reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// The registers x0 to x6, as a vector passes them on.
#[unsafe(no_mangle)]
extern "C" fn guest_trap(
    sp: u64,
    vector: u64,
    esr: u64,
    elr: u64,
    far: u64,
    spsr: u64,
    lr: u64,
) -> ! {
    let (what, detail) = describe(esr);
    println!("trap: {what}{detail}, vector {vector}");
    println!("trap: esr {esr:#x} elr {elr:#x} far {far:#x} spsr {spsr:#x} sp {sp:#x} lr {lr:#x}");
    calls::halt(STATUS_ABORT)
}

/// ESR_EL1 as text: the class, and for an abort its cause.
fn describe(esr: u64) -> (&'static str, &'static str) {
    let write = esr >> 6 & 1 == 1;
    match esr >> 26 & 0x3f {
        0x00 => ("unknown reason", ""),
        0x01 => ("trapped WFI or WFE", ""),
        0x07 => ("floating point not enabled", ""),
        0x0e => ("illegal execution state", ""),
        0x15 => ("supervisor call", ""),
        0x18 => ("trapped system register", ""),
        0x20 | 0x21 => ("instruction abort", abort(esr)),
        0x22 => ("misaligned program counter", ""),
        0x24 | 0x25 if write => ("data abort on write", abort(esr)),
        0x24 | 0x25 => ("data abort on read", abort(esr)),
        0x26 => ("misaligned stack pointer", ""),
        0x3c => ("breakpoint", ""),
        _ => ("exception", ""),
    }
}

fn abort(esr: u64) -> &'static str {
    match esr & 0x3f {
        0x00..=0x03 => " (address size)",
        0x04..=0x07 => " (not mapped)",
        0x08..=0x0b => " (access flag)",
        0x0c..=0x0f => " (not permitted)",
        0x10 => " (external)",
        0x21 => " (alignment)",
        _ => "",
    }
}
