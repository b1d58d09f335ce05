//! x86_64: section B of `docs/hvt-abi.md`, memory layout of Solo5 0.9 and later.

mod boot;
mod core;
mod cpuid;
mod debug;
mod engine;
mod msr;
pub(super) mod process;
mod vcpu;

use kvm_ioctls::{Cap, Kvm, VmFd};

use super::paging::{Format, Tables, TablesFull};
use super::vcpu::{require, uninterrupted};
use super::{Architecture, Error, Native};
use crate::guest::image::Machine;
use crate::memory::{Access, GuestAddress, GuestMemory, Mapping};

/// Address of the boot-time segment descriptors. Section B3.
const GDT_ADDRESS: u64 = 0x1000;

/// Address of the page tables, root first. Section B3.
const TABLES_ADDRESS: u64 = 0x2000;

/// First address after the page tables.
const TABLES_END: u64 = 0x10000;

/// Page table descriptors.
struct Descriptors;

impl Descriptors {
    const PRESENT: u64 = 1 << 0;
    const WRITABLE: u64 = 1 << 1;
    const LARGE: u64 = 1 << 7;
    const NO_EXECUTE: u64 = 1 << 63;

    fn access(access: Access) -> u64 {
        match access {
            Access::None => 0,
            Access::Read => Self::PRESENT | Self::NO_EXECUTE,
            Access::ReadWrite => Self::PRESENT | Self::WRITABLE | Self::NO_EXECUTE,
            Access::ReadExecute => Self::PRESENT,
            Access::All => Self::PRESENT | Self::WRITABLE,
        }
    }
}

impl Format for Descriptors {
    fn table(address: u64) -> u64 {
        address | Self::PRESENT | Self::WRITABLE
    }

    fn page(address: u64, access: Access) -> u64 {
        address | Self::access(access)
    }

    fn block(address: u64, access: Access) -> u64 {
        address | Self::access(access) | Self::LARGE
    }
}

impl Architecture for Native {
    const MACHINE: Machine = Machine::X86_64;

    const OLD_CALLS: &'static [(libc::c_long, &'static str)] = &[
        (libc::SYS_open, "open"),
        (libc::SYS_creat, "creat"),
        (libc::SYS_fork, "fork"),
        (libc::SYS_vfork, "vfork"),
        (libc::SYS_poll, "poll"),
        (libc::SYS_stat, "stat"),
        (libc::SYS_dup2, "dup2"),
        (libc::SYS_arch_prctl, "arch_prctl"),
    ];

    fn runs_guests_natively() -> bool {
        vcpu::has_virtualization()
    }

    fn create_vm(kvm: &Kvm) -> Result<VmFd, Error> {
        let vm = uninterrupted(|| kvm.create_vm()).map_err(Error::kvm("KVM_CREATE_VM"))?;
        require(
            &vm,
            &[
                (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
                (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
                (Cap::GetTscKhz, "KVM_CAP_GET_TSC_KHZ"),
            ],
        )?;
        Ok(vm)
    }

    fn deny_registers(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
        msr::deny_registers(vm)
    }

    fn build_tables(memory: &GuestMemory, mappings: &[Mapping]) -> Result<(), TablesFull> {
        let tables = Tables::build::<Descriptors>(TABLES_ADDRESS, TABLES_END, mappings)?;
        place(memory, TABLES_ADDRESS, tables.as_bytes());
        place(memory, GDT_ADDRESS, &boot::gdt());
        Ok(())
    }

    fn poll_limit(_: u64) -> u64 {
        u64::MAX
    }
}

fn place(memory: &GuestMemory, address: u64, bytes: &[u8]) {
    let placed = memory.place(GuestAddress(address), bytes);
    debug_assert!(
        placed.is_ok(),
        "the least guest memory, 2 MiB, holds everything below 0x10000"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Section B3: table 0x..003; RO page addr|1, RW page addr|3, 2 MiB block addr|0x83; here with
    /// NX added.
    #[test]
    fn descriptors_have_the_bits_of_the_manual() {
        const NX: u64 = 1 << 63;
        assert_eq!(Descriptors::table(0x3000), 0x3003);
        assert_eq!(Descriptors::page(0x10000, Access::Read), 0x10001 | NX);
        assert_eq!(Descriptors::page(0x10000, Access::ReadWrite), 0x10003 | NX);
        assert_eq!(Descriptors::page(0x10000, Access::ReadExecute), 0x10001);
        assert_eq!(
            Descriptors::block(0x20_0000, Access::ReadWrite),
            0x20_0083 | NX
        );
        assert_eq!(
            Descriptors::block(0x20_0000, Access::ReadExecute),
            0x20_0081
        );
    }
}
