//! CPUID of the guest. KVM supports far more than a unikernel uses, and each further feature is
//! host code that a hostile guest can reach. So this module is an allow-list, bit by bit; every
//! other bit and leaf reads as zero. Pure: entries in, entries out.
//!
//! Allowed are instructions that compute, what they need (XSAVE, NX, long mode), the counter, and
//! the sizes of caches and addresses. Omitted, in addition to unknown bits:
//!
//! * nested virtualisation: VMX, SVM, SMX, SKINIT, and their leaves;
//! * enclaves and encryption: SGX, TME, SEV, key locker;
//! * counting and tracing: PMU, DS, PDCM, processor trace, last branches, IBS, LWP, RDT, RDPRU;
//! * features that need an interrupt controller or put the processor to sleep: APIC, x2APIC, TSC
//!   deadline, MONITOR, MWAITX, WAITPKG, thermal and power leaves;
//! * every bit that implies a model-specific register, as [`super::msr`] denies it: MTRR, PAT, MCE,
//!   MCA, SYSCALL, SEP, TSC_ADJUST, speculation control, XSAVES, CET, OSVW;
//! * transactions (HLE, RTM), MPX, PKU, PCID, LA57, LAM, FRED, AMX: state and modes that no
//!   unikernel enters;
//! * the hypervisor's leaves, which only guests older than this tender's oldest read;
//! * host topology: APIC IDs, core and thread counts. There is one processor, number 0.

#![expect(unsafe_code, reason = "CPUID")]

use std::arch::x86_64::__cpuid_count;

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// The highest basic leaf and the highest extended leaf of the guest.
const LAST_BASIC: u32 = 0xd;
const LAST_EXTENDED: u32 = 0x8000_0008;

/// The highest subleaf of leaf 7.
const LAST_OF_7: u32 = 1;

const ALL: u32 = u32::MAX;

/// The bits of one leaf that the guest gets.
struct Kept {
    leaf: u32,
    /// Zero in leaves without subleaves.
    subleaf: u32,
    eax: u32,
    ebx: u32,
    ecx: u32,
    edx: u32,
}

/// All bits of a leaf.
const fn whole(leaf: u32, subleaf: u32) -> Kept {
    Kept {
        leaf,
        subleaf,
        eax: ALL,
        ebx: ALL,
        ecx: ALL,
        edx: ALL,
    }
}

/// Returns a mask of these bits.
const fn bits(numbers: &[u32]) -> u32 {
    let (mut mask, mut i) = (0, 0);
    while i < numbers.len() {
        mask |= 1 << numbers[i];
        i += 1;
    }
    mask
}

/// FPU, DE, PSE, TSC, MSR, PAE, CX8, PGE, CMOV, PSE36, MMX, FXSR: in leaf 1, and on AMD again in
/// 0x8000_0001.
const BASE: u32 = bits(&[0, 2, 3, 4, 5, 6, 8, 13, 15, 17, 23, 24]);

const KEPT: [Kept; 19] = [
    // Highest leaf (lowered, see `limit`) and vendor.
    whole(0, 0),
    Kept {
        leaf: 1,
        subleaf: 0,
        // Family, model, stepping: libraries select their code by them.
        eax: ALL,
        // Length of a cache line, for CLFLUSH. The bits above it are the host's processor count and
        // APIC ID.
        ebx: 0xff00,
        // SSE3, PCLMULQDQ, SSSE3, FMA, CMPXCHG16B, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE,
        // OSXSAVE (as the guest sets it), AVX, F16C, RDRAND.
        ecx: bits(&[0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 27, 28, 29, 30]),
        // And CLFLUSH, SSE, SSE2.
        edx: BASE | bits(&[19, 25, 26]),
    },
    // Caches, in Intel's old form.
    whole(2, 0),
    // Caches: kind, level and sizes, without the number of processors that share them. Three or
    // four caches.
    Kept {
        eax: CACHE_ITSELF,
        ..whole(4, 0)
    },
    Kept {
        eax: CACHE_ITSELF,
        ..whole(4, 1)
    },
    Kept {
        eax: CACHE_ITSELF,
        ..whole(4, 2)
    },
    Kept {
        eax: CACHE_ITSELF,
        ..whole(4, 3)
    },
    Kept {
        leaf: 7,
        subleaf: 0,
        // Highest subleaf (lowered, see `limit`).
        eax: ALL,
        // FSGSBASE, BMI1, AVX2, FDP_EXCPTN_ONLY, SMEP, BMI2, ERMS, ZERO_FCS_FDS, AVX512 F and DQ,
        // RDSEED, ADX, SMAP, AVX512 IFMA, CLFLUSHOPT, CLWB, AVX512 PF, ER and CD, SHA, AVX512 BW
        // and VL.
        ebx: bits(&[
            0, 3, 5, 6, 7, 8, 9, 13, 16, 17, 18, 19, 20, 21, 23, 24, 26, 27, 28, 29, 30, 31,
        ]),
        // PREFETCHWT1, AVX512 VBMI, UMIP, AVX512 VBMI2, GFNI, VAES, VPCLMULQDQ, AVX512 VNNI, BITALG
        // and VPOPCNTDQ, RDPID (which gives 0), CLDEMOTE, MOVDIRI, MOVDIR64B.
        ecx: bits(&[0, 1, 2, 6, 8, 9, 10, 11, 12, 14, 22, 25, 27, 28]),
        // AVX512 4VNNIW and 4FMAPS, fast short REP MOV, AVX512 VP2INTERSECT, MD_CLEAR (an effect of
        // VERW), SERIALIZE, AVX512 FP16.
        edx: bits(&[2, 3, 4, 8, 10, 14, 23]),
    },
    Kept {
        leaf: 7,
        subleaf: 1,
        // SHA512, SM3, SM4, AVX VNNI, AVX512 BF16, CMPCCXADD, fast REP MOV, STO, CMP and SCA, AVX
        // IFMA.
        eax: bits(&[0, 1, 2, 4, 5, 7, 10, 11, 12, 23]),
        ebx: 0,
        ecx: 0,
        // AVX VNNI INT8, AVX NE CONVERT, AVX VNNI INT16, PREFETCHITI.
        edx: bits(&[4, 5, 10, 14]),
    },
    // XSAVE: x87, SSE, AVX and the three parts of AVX512; no supervisor states. The size in ecx is
    // what the host needs for all its states, and so is sufficient.
    Kept {
        eax: XCR0,
        edx: 0,
        ..whole(0xd, 0)
    },
    // XSAVEOPT, XSAVEC, XGETBV with 1.
    Kept {
        eax: bits(&[0, 1, 2]),
        ecx: 0,
        edx: 0,
        ..whole(0xd, 1)
    },
    whole(0xd, 2),
    whole(0xd, 5),
    whole(0xd, 6),
    whole(0xd, 7),
    // Highest leaf (lowered, see `limit`).
    whole(0x8000_0000, 0),
    Kept {
        leaf: 0x8000_0001,
        subleaf: 0,
        // Family, model, stepping again.
        eax: ALL,
        ebx: 0,
        // LAHF, LZCNT, SSE4A, misaligned SSE, PREFETCHW, XOP, FMA4, TBM.
        ecx: bits(&[0, 5, 6, 7, 8, 11, 16, 21]),
        // And NX, on which the guest's page tables depend, MMXEXT, 1 GiB pages, RDTSCP, long mode,
        // 3DNOW.
        edx: BASE | bits(&[20, 22, 26, 27, 29, 30, 31]),
    },
    // The counter's rate is constant.
    Kept {
        leaf: 0x8000_0007,
        subleaf: 0,
        eax: 0,
        ebx: 0,
        ecx: 0,
        edx: bits(&[8]),
    },
    Kept {
        leaf: 0x8000_0008,
        subleaf: 0,
        // Bits of an address, physical and virtual.
        eax: 0xffff,
        // CLZERO, XSAVE of error pointers, WBNOINVD.
        ebx: bits(&[0, 2, 9]),
        // One processor.
        ecx: 0,
        edx: 0,
    },
];

/// Leaves that are allowed whole: the processor's name, its caches in AMD's form.
const NAME_AND_CACHES: std::ops::RangeInclusive<u32> = 0x8000_0002..=0x8000_0006;

/// The fields of a cache, without the number of processors that share it.
const CACHE_ITSELF: u32 = 0x3fff;

/// XSAVE states that a guest may enable: x87, SSE, AVX, AVX512.
const XCR0: u32 = bits(&[0, 1, 2, 5, 6, 7]);

/// Reduces KVM's supported CPUID to the allow-list.
pub(super) fn limit(cpuid: &mut CpuId) {
    cpuid.as_mut_slice().iter_mut().for_each(limit_entry);
    // Empty leaves need no entry: absent ones read as zero.
    cpuid.retain(|entry| entry.eax | entry.ebx | entry.ecx | entry.edx != 0);
}

/// Returns what CPUID answers, in the order of the letters of its registers, reduced to the
/// allow-list: for a guest whose CPUID is emulated.
#[allow(
    unused_unsafe,
    reason = "CPUID is a safe function in newer versions of Rust"
)]
pub(super) fn answer(leaf: u32, subleaf: u32) -> [u32; 4] {
    let has_subleaves = KEPT
        .iter()
        .any(|kept| kept.leaf == leaf && kept.subleaf > 0);
    let index = if has_subleaves { subleaf } else { 0 };
    // SAFETY: every x86_64 processor has CPUID.
    let [last, found] = [(leaf & 1 << 31, 0), (leaf, index)]
        .map(|(leaf, index)| unsafe { __cpuid_count(leaf, index) });
    if leaf > last.eax {
        return [0; 4];
    }
    let mut entry = kvm_cpuid_entry2 {
        function: leaf,
        index,
        eax: found.eax,
        ebx: found.ebx,
        ecx: found.ecx,
        edx: found.edx,
        ..Default::default()
    };
    limit_entry(&mut entry);
    [entry.eax, entry.ebx, entry.ecx, entry.edx]
}

fn limit_entry(entry: &mut kvm_cpuid_entry2) {
    if NAME_AND_CACHES.contains(&entry.function) {
        return;
    }
    let kept = KEPT
        .iter()
        .find(|kept| kept.leaf == entry.function && kept.subleaf == entry.index);
    let (eax, ebx, ecx, edx) = kept.map_or((0, 0, 0, 0), |kept| {
        (kept.eax, kept.ebx, kept.ecx, kept.edx)
    });
    entry.eax &= eax;
    entry.ebx &= ebx;
    entry.ecx &= ecx;
    entry.edx &= edx;
    match (entry.function, entry.index) {
        (0, _) => entry.eax = entry.eax.min(LAST_BASIC),
        (7, 0) => entry.eax = entry.eax.min(LAST_OF_7),
        (0x8000_0000, _) => entry.eax = entry.eax.min(LAST_EXTENDED),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
