//! ARM64: the entry of the process, and the vCPU. Part A.

use core::arch::{asm, global_asm};
use core::ptr::null_mut;

use crate::BOOT_INFO;
use crate::sys::{self, O_RDWR, SHARED, ioctl, must};

global_asm!(
    ".global _start",
    "_start:",
    "mov x29, xzr",
    "mov x30, xzr",
    "mov x0, sp",
    "b floor"
);

const KVM_CREATE_VM: usize = 0xae01;
const KVM_CREATE_VCPU: usize = 0xae41;
const KVM_SET_USER_MEMORY_REGION: usize = 0x4020_ae46;
const KVM_ARM_PREFERRED_TARGET: usize = 0x8020_aeaf;
const KVM_ARM_VCPU_INIT: usize = 0x4020_aeae;
const KVM_SET_ONE_REG: usize = 0x4010_aeac;
const KVM_RUN: usize = 0xae80;
const KVM_EXIT_MMIO: u32 = 6;

/// Guest-physical address bits: the fewest of which KVM needs three levels of tables without joining roots.
const ADDRESS_BITS: usize = 36;

/// Addresses of the guest's tables, and entries of blocks of 1 GiB: memory and devices. Section A3.
const TABLES: usize = 0x1000;
const GIB: usize = 1 << 30;
const MEMORY: usize = 0x0040_0000_0000_0711;
const DEVICES: usize = 0x0060_0000_0000_0705;

const WINDOW: u64 = 0x1_0000_0000;

pub struct Vcpu {
    fd: usize,
    run: *const u8,
}

impl Vcpu {
    pub unsafe fn create(memory: *mut u8, size: usize, entry: usize) -> Vcpu {
        let kvm = must(sys::open(c"/dev/kvm".as_ptr().cast(), O_RDWR));
        let mut vm = ioctl(kvm, KVM_CREATE_VM, ADDRESS_BITS);
        if vm < 0 {
            vm = ioctl(kvm, KVM_CREATE_VM, 0);
        }
        let vm = must(vm);
        let region = [0, 0, size, memory as usize];
        must(ioctl(
            vm,
            KVM_SET_USER_MEMORY_REGION,
            &raw const region as usize,
        ));
        let fd = must(ioctl(vm, KVM_CREATE_VCPU, 0));
        let mut target = [0_u32; 8];
        must(ioctl(
            vm,
            KVM_ARM_PREFERRED_TARGET,
            &raw mut target as usize,
        ));
        must(ioctl(fd, KVM_ARM_VCPU_INIT, &raw const target as usize));
        tables(memory);
        for (register, value) in registers(size, entry) {
            let pair = [register, &raw const value as usize];
            must(ioctl(fd, KVM_SET_ONE_REG, &raw const pair as usize));
        }
        let run = sys::map(null_mut(), 0x1000, SHARED, fd, 0);
        Vcpu { fd, run }
    }

    pub fn counter_frequency(&self) -> usize {
        let frequency;
        // SAFETY: reads a register that user space may read.
        unsafe {
            asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(nomem, nostack, preserves_flags))
        };
        frequency
    }

    /// Runs the guest to its next hypercall; returns number and argument. Section A1.
    #[inline(always)]
    pub unsafe fn run(&self) -> Option<(u64, u32)> {
        must(ioctl(self.fd, KVM_RUN, 0));
        let read = |offset: usize| self.run.add(offset).cast::<u32>().read_volatile();
        let address = self.run.add(32).cast::<u64>().read_volatile();
        (read(8) == KVM_EXIT_MMIO).then(|| (address.wrapping_sub(WINDOW) / 8, read(40)))
    }
}

unsafe fn tables(memory: *mut u8) {
    let root: *mut usize = memory.add(TABLES).cast();
    let blocks = root.add(0x1000 / 8);
    *root = (TABLES + 0x1000) | 3;
    for i in 0..4 {
        *blocks.add(i) = MEMORY + i * GIB;
    }
    *blocks.add(4) = DEVICES + 4 * GIB;
}

/// The registers at the guest's first instruction, by KVM's numbers. Section A2.
fn registers(memory: usize, entry: usize) -> [(usize, usize); 9] {
    let core = |offset: usize| 0x6030_0000_0010_0000 + offset / 4;
    let system = |encoding: usize| 0x6030_0000_0013_0000 + encoding;
    [
        (system(0xc510), 0xbbff_440c_0400), // MAIR_EL1
        (system(0xc102), 0x32_b518_3518),   // TCR_EL1
        (system(0xc100), TABLES),           // TTBR0_EL1
        (system(0xc080), 0x1005),           // SCTLR_EL1
        (system(0xc082), 3 << 20),          // CPACR_EL1
        (core(264), 0x3c5),                 // PSTATE
        (core(256), entry),                 // PC
        (core(272), memory - 16),           // SP_EL1
        (core(0), BOOT_INFO),               // X0
    ]
}
