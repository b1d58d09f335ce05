//! The start of a child on x86_64.

use std::arch::x86_64::__cpuid;
use std::arch::{asm, global_asm};

use super::Cpu;
use crate::arch::process::{Step, may, must};

/// Returns the end of the address space of a process.
pub(in crate::arch) fn top() -> u64 {
    0x7fff_ffff_f000
}

// Makes the calls at R12: see `stub` in `arch/process/steps.rs`.
global_asm!(
    ".pushsection .rodata.stub, \"a\"",
    ".hidden tender_stub, tender_stub_after_call, tender_stub_end",
    ".globl tender_stub, tender_stub_after_call, tender_stub_end",
    "tender_stub:",
    "mov rax, [r12]",
    "mov rdi, [r12 + 8]",
    "mov rsi, [r12 + 16]",
    "mov rdx, [r12 + 24]",
    "mov r10, [r12 + 32]",
    "mov r8, [r12 + 40]",
    "mov r9, [r12 + 48]",
    "syscall",
    "tender_stub_after_call:",
    "mov [r12 + 56], rax",
    "test rax, rax",
    "jns 2f",
    "cmp qword ptr [r12 + 64], 0",
    "jne 2f",
    "mov edi, 1",
    "mov eax, 231", // exit_group
    "syscall",
    "2: add r12, 72",
    "jmp tender_stub",
    "tender_stub_end:",
    ".popsection",
);

/// Runs the code at `code` with the steps at `records`.
///
/// # Safety
/// The code is that of `tender_stub`.
pub(in crate::arch) unsafe fn jump(code: u64, records: u64) -> ! {
    // SAFETY: the caller's.
    unsafe { asm!("jmp rax", in("rax") code, in("r12") records, options(noreturn)) }
}

/// Does nothing: the processor detects new instructions.
pub(in crate::arch) fn synchronize(_address: u64, _length: u64) {}

/// Returns the area of restartable sequences that the C library registered for this thread, and
/// the signature.
pub(in crate::arch) fn restartable_sequences() -> Option<(u64, u64)> {
    const SIGNATURE: u64 = 0x5305_3053;
    let (offset, thread): (*const i64, u64);
    // SAFETY: a weak symbol, whose address is 0 if there is none, and the thread pointer.
    unsafe {
        asm!(
            ".weak __rseq_offset",
            "mov {0}, qword ptr [rip + __rseq_offset@GOTPCREL]",
            "mov {1}, fs:0",
            out(reg) offset, out(reg) thread, options(nostack, pure, readonly),
        );
        Some((thread.wrapping_add_signed(*offset.as_ref()?), SIGNATURE))
    }
}

impl Cpu {
    /// Returns the steps of x86_64. The vDSO moves to `free`: the kernel returns there from
    /// SYSENTER, and so would show the guest where it was in the tender.
    pub(in crate::arch) fn steps(&self, free: u64) -> Vec<Step> {
        const ARCH_SET_CPUID: u64 = 0x1012;
        const PR_SET_TSC: u64 = 26;
        const PR_TSC_SIGSEGV: u64 = 2;
        const PAGE: u64 = 4096;
        // More pages than a vDSO has.
        const LONGEST: u64 = 4;
        let mut steps = Vec::new();
        // The kernel switches this with the process. In a virtual machine that takes 15 µs: four
        // times as long as all else of a hypercall.
        if !is_virtual_machine() {
            steps.push(may(
                "trap CPUID",
                libc::SYS_arch_prctl,
                &[ARCH_SET_CPUID, 0],
            ));
        }
        if self.counter.is_emulated {
            let arguments = [PR_SET_TSC, PR_TSC_SIGSEGV];
            steps.push(must("trap the counter", libc::SYS_prctl, &arguments));
        }
        // SAFETY: the call reads a number that the kernel gave this process.
        let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
        let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
        // The kernel moves the vDSO as a whole only, and does not report its length.
        let lengths = (1..=LONGEST)
            .map(|pages| pages * PAGE)
            .filter(|_| vdso != 0);
        steps.extend(lengths.map(|length| {
            let arguments = [vdso, length, length, flags, free];
            may("move the vDSO", libc::SYS_mremap, &arguments)
        }));
        steps
    }
}

/// Returns whether this host is a virtual machine itself.
#[allow(
    unused_unsafe,
    reason = "CPUID is a safe function in newer versions of Rust"
)]
fn is_virtual_machine() -> bool {
    const HYPERVISOR: u32 = 1 << 31;
    // SAFETY: every x86_64 processor has CPUID and this leaf.
    unsafe { __cpuid(1) }.ecx & HYPERVISOR != 0
}
