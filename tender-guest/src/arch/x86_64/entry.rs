//! Entry, descriptor tables and exception handlers.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

use crate::abi::hypercall::{COOKIE_SIZE, STATUS_ABORT};
use crate::{calls, println};

/// Exceptions the processor can raise.
const VECTORS: usize = 32;

/// Selector of the code segment: the tender starts us with the same one, so that it need not be loaded again.
const CODE: u64 = 8;

/// Null, 64-bit code, data; each marked accessed already, because the processor cannot write here.
static GDT: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

struct Idt(UnsafeCell<[[u64; 2]; VECTORS]>);
// SAFETY: there is one CPU and no interrupt; only `install_traps` writes it.
unsafe impl Sync for Idt {}
static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; VECTORS]));

/// Operand of `lgdt` and `lidt`.
#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

// The tender starts us as if we had been called: stack aligned as after a call, boot info in rdi.
global_asm!(
    ".section .text.start, \"ax\"",
    ".global _start",
    "_start:",
    "xor ebp, ebp",
    "jmp guest_start"
);

// One stub of 16 bytes per vector: a zero where the processor pushes no error code, then the vector (6a is `push imm8`).
global_asm!(
    ".section .text.vectors, \"ax\"",
    ".set vector, 0",
    ".balign 16",
    "guest_vectors:",
    ".rept 32",
    ".balign 16",
    ".if (0x60227d00 >> vector) & 1 == 0",
    ".byte 0x6a, 0",
    ".endif",
    ".byte 0x6a, vector",
    "jmp 2f",
    ".set vector, vector + 1",
    ".endr",
    "2:",
    "mov rdi, rsp",
    "mov rsi, cr2",
    "and rsp, -16",
    "cld",
    "call guest_trap",
);

unsafe extern "C" {
    static guest_vectors: [[u8; 16]; VECTORS];
}

/// The stack as a stub leaves it.
#[repr(C)]
struct Frame {
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Makes traps report themselves instead of ending in a triple fault.
pub fn install_traps() {
    let gdt = Pointer {
        limit: (size_of_val(&GDT) - 1) as u16,
        base: (&raw const GDT) as u64,
    };
    let idt = Pointer {
        limit: (size_of::<[[u64; 2]; VECTORS]>() - 1) as u16,
        base: IDT.0.get() as u64,
    };
    for vector in 0..VECTORS {
        let stub = (&raw const guest_vectors) as u64 + 16 * vector as u64;
        let low = stub & 0xffff | CODE << 16 | 0x8e00 << 32 | (stub >> 16 & 0xffff) << 48;
        // SAFETY: nothing else uses the table yet.
        unsafe { (*IDT.0.get())[vector] = [low, stub >> 32] };
    }
    // SAFETY: both tables are complete and are not moved; the selectors in use mean the same in the new GDT.
    unsafe {
        asm!("lgdt [{}]", "lidt [{}]", in(reg) &raw const gdt, in(reg) &raw const idt, options(nostack))
    };
}

#[unsafe(no_mangle)]
extern "C" fn guest_trap(frame: &Frame, cr2: u64) -> ! {
    let Frame {
        vector,
        error,
        rip,
        cs,
        rflags,
        rsp,
        ss,
    } = *frame;
    println!(
        "trap: {}, vector {vector}, error {error:#x}",
        describe(vector, error)
    );
    println!("trap: rip {rip:#x} cr2 {cr2:#x} rsp {rsp:#x} rflags {rflags:#x}");
    let mut cookie = [0u64; COOKIE_SIZE as usize / 8];
    cookie[..7].copy_from_slice(&[cr2, error, rip, cs, rflags, rsp, ss]);
    calls::halt_with(STATUS_ABORT, cookie.as_ptr() as u64)
}

fn describe(vector: u64, error: u64) -> &'static str {
    match (vector, error & 0b1_0011) {
        (0, _) => "division error",
        (1, _) => "debug",
        (3, _) => "breakpoint",
        (6, _) => "invalid opcode",
        (7, _) => "floating point not available",
        (8, _) => "double fault",
        (12, _) => "stack fault",
        (13, _) => "general protection",
        (14, 0b0_0000) => "page fault on read (not mapped)",
        (14, 0b0_0010) => "page fault on write (not mapped)",
        (14, 0b0_0001) => "page fault on read (not permitted)",
        (14, 0b0_0011) => "page fault on write (not permitted)",
        (14, 0b1_0000) => "page fault on execution (not mapped)",
        (14, _) => "page fault on execution (not permitted)",
        (16 | 19, _) => "floating point error",
        (17, _) => "misaligned access",
        _ => "exception",
    }
}
