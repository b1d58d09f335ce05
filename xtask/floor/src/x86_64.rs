//! x86_64: the entry of the process, and the vCPU. Part B.

use core::arch::global_asm;
use core::mem::MaybeUninit;
use core::ptr::null_mut;

use crate::BOOT_INFO;
use crate::sys::{self, O_RDWR, SHARED, ioctl, must};

global_asm!(
    ".global _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call floor"
);

const KVM_CREATE_VM: usize = 0xae01;
const KVM_CREATE_VCPU: usize = 0xae41;
const KVM_SET_USER_MEMORY_REGION: usize = 0x4020_ae46;
const KVM_GET_SUPPORTED_CPUID: usize = 0xc008_ae05;
const KVM_SET_CPUID2: usize = 0x4008_ae90;
const KVM_GET_SREGS: usize = 0x8138_ae83;
const KVM_SET_SREGS: usize = 0x4138_ae84;
const KVM_SET_REGS: usize = 0x4090_ae82;
const KVM_GET_TSC_KHZ: usize = 0xaea3;
const KVM_RUN: usize = 0xae80;
const KVM_EXIT_IO: u32 = 2;

/// Most entries of CPUID, of 40 bytes each.
const CPUID_ENTRIES: u64 = 256;

/// Addresses of the descriptors and of the guest's tables, of which the last maps pages of 2 MiB. Section B3.
const GDT: usize = 0x1000;
const TABLES: usize = 0x2000;
const LARGE_PAGE: usize = 1 << 21;

const PORT: u16 = 0x500;

pub struct Vcpu {
    fd: usize,
    run: *const u8,
}

impl Vcpu {
    pub unsafe fn create(memory: *mut u8, size: usize, entry: usize) -> Vcpu {
        let kvm = must(sys::open(c"/dev/kvm".as_ptr().cast(), O_RDWR));
        let vm = must(ioctl(kvm, KVM_CREATE_VM, 0));
        let region = [0, 0, size, memory as usize];
        must(ioctl(
            vm,
            KVM_SET_USER_MEMORY_REGION,
            &raw const region as usize,
        ));
        let fd = must(ioctl(vm, KVM_CREATE_VCPU, 0));
        let mut cpuid = MaybeUninit::<[u64; 1 + 5 * CPUID_ENTRIES as usize]>::uninit();
        let cpuid = cpuid.as_mut_ptr().cast::<u64>();
        *cpuid = CPUID_ENTRIES;
        must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid as usize));
        must(ioctl(fd, KVM_SET_CPUID2, cpuid as usize));
        tables(memory, size);
        system_registers(fd);
        // rax to rdx, rsi, rdi, rsp, rbp, r8 to r15, rip, rflags.
        let mut registers = [0_usize; 18];
        (registers[5], registers[6]) = (BOOT_INFO, size - 8);
        (registers[16], registers[17]) = (entry, 2);
        must(ioctl(fd, KVM_SET_REGS, &raw const registers as usize));
        let run = sys::map(null_mut(), 0x2000, SHARED, fd, 0);
        Vcpu { fd, run }
    }

    pub unsafe fn counter_frequency(&self) -> usize {
        must(ioctl(self.fd, KVM_GET_TSC_KHZ, 0)) * 1000
    }

    /// Runs the guest to its next hypercall; returns number and argument. Section B1.
    #[inline(always)]
    pub unsafe fn run(&self) -> Option<(u64, u32)> {
        must(ioctl(self.fd, KVM_RUN, 0));
        if self.run.add(8).cast::<u32>().read_volatile() != KVM_EXIT_IO {
            return None;
        }
        let port = self.run.add(34).cast::<u16>().read_volatile();
        let data = self.run.add(40).cast::<usize>().read_volatile();
        let argument = self.run.add(data).cast::<u32>().read_volatile();
        Some((port.wrapping_sub(PORT).into(), argument))
    }
}

unsafe fn tables(memory: *mut u8, size: usize) {
    let gdt = [0, 0x00af_9900_0000_ffff_usize, 0x00cf_9300_0000_ffff];
    memory.add(GDT).cast::<[usize; 3]>().write(gdt);
    let root: *mut usize = memory.add(TABLES).cast();
    let (middle, last) = (root.add(0x1000 / 8), root.add(0x2000 / 8));
    *root = (TABLES + 0x1000) | 3;
    for i in 0..4 {
        *middle.add(i) = (TABLES + 0x2000 + i * 0x1000) | 3;
    }
    for i in 0..size / LARGE_PAGE {
        *last.add(i) = (i * LARGE_PAGE) | 0x83;
    }
}

/// Sets the segments and the control registers, in the order of KVM's structure. Section B2.
unsafe fn system_registers(vcpu: usize) {
    const CODE: [u64; 3] = [0, 0x0109_0008_ffff_ffff, 0x0001_0101_0000];
    const DATA: [u64; 3] = [0, 0x0103_0010_ffff_ffff, 0x0001_0001_0100];
    const TASK: [u64; 3] = [0, 0x010b_0000_0000_0000, 0];
    const UNUSABLE: [u64; 3] = [0, 0, 1 << 48];
    let mut registers = MaybeUninit::<[u64; 39]>::uninit();
    let registers = registers.as_mut_ptr().cast::<u64>();
    must(ioctl(vcpu, KVM_GET_SREGS, registers as usize));
    let segments = [CODE, DATA, DATA, DATA, DATA, DATA, TASK, UNUSABLE];
    registers.cast::<[[u64; 3]; 8]>().write(segments);
    // The descriptors' base and limit; none for interrupts; then cr0, cr2, cr3, cr4, cr8, efer.
    let rest = [
        GDT as u64,
        0x17,
        0,
        0,
        0x8001_0021,
        0,
        TABLES as u64,
        0x620,
        0,
        0x500,
    ];
    registers.add(24).cast::<[u64; 10]>().write(rest);
    must(ioctl(vcpu, KVM_SET_SREGS, registers as usize));
}
