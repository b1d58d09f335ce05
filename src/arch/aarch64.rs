//! ARM64: sections A1 to A5 and 15 of `docs/hvt-abi.md`. The tender never creates an interrupt
//! controller, so boards without a virtual one, such as the Raspberry Pi 3, run guests too.

mod boot;
mod core;
mod debug;
mod engine;
pub(super) mod process;
mod registers;
mod vcpu;

use kvm_bindings::{KVM_CAP_ARM_NISV_TO_USER, kvm_enable_cap};
use kvm_ioctls::{Cap, Kvm, VmFd};

use super::paging::{Format, Tables, TablesFull};
use super::vcpu::{require, uninterrupted};
use super::{Architecture, Error, Native};
use crate::devices::clock;
use crate::guest::image::Machine;
use crate::memory::{Access, GuestAddress, GuestMemory, Mapping};

/// Address of the page tables, root first. Section A3.
const TABLES_ADDRESS: u64 = 0x1000;

/// First address after the page tables.
const TABLES_END: u64 = 0x10000;

/// Bits of guest-physical address needed for 4 GiB of RAM and the hypercall window above it.
const LEAST_ADDRESS_BITS: u32 = 33;

/// Bits of guest-physical address, if KVM supports as many. Fewer would make KVM's own tables
/// larger: for 33 and 34 bits they have 8 and 16 roots. At the end of a run KVM walks every entry of
/// a root: 64 for 36 bits, 1024 for the 40 of a machine without a choice of size.
const USUAL_ADDRESS_BITS: u32 = 36;

impl Architecture for Native {
    const MACHINE: Machine = Machine::Aarch64;

    const OLD_CALLS: &'static [(libc::c_long, &'static str)] = &[];

    fn runs_guests_natively() -> bool {
        true
    }

    /// The largest guest address space differs by host, so KVM is queried.
    fn create_vm(kvm: &Kvm) -> Result<VmFd, Error> {
        let failed = Error::kvm("KVM_CREATE_VM");
        let vm = match u32::try_from(kvm.check_extension_int(Cap::ArmVmIPASize)) {
            Ok(bits) if (1..LEAST_ADDRESS_BITS).contains(&bits) => {
                return Err(Error::AddressSize { bits });
            }
            // Kernels before 4.20 have no such capability and no choice: type 0 is 40 bits.
            Err(_) | Ok(0) => uninterrupted(|| kvm.create_vm_with_type(0)).map_err(failed)?,
            Ok(bits) => uninterrupted(|| kvm.create_vm_with_ipa_size(bits.min(USUAL_ADDRESS_BITS)))
                .map_err(failed)?,
        };
        require(
            &vm,
            &[
                (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
                (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
                (Cap::OneReg, "KVM_CAP_ONE_REG"),
            ],
        )?;
        report_undecodable_accesses(&vm);
        Ok(vm)
    }

    /// A guest has the registers of its enabled features only.
    fn deny_registers(_: &VmFd) -> Result<(), kvm_ioctls::Error> {
        Ok(())
    }

    /// In addition to `mappings`, the page tables map the hypercall window.
    fn build_tables(memory: &GuestMemory, mappings: &[Mapping]) -> Result<(), TablesFull> {
        let mut tables = Tables::build::<Descriptors>(TABLES_ADDRESS, TABLES_END, mappings)?;
        let window = guest_abi::hypercall::MMIO_BASE;
        tables.entries::<Descriptors>(window, 1)?[0] = Descriptors::window(window);
        let placed = memory.place(GuestAddress(TABLES_ADDRESS), tables.as_bytes());
        debug_assert!(
            placed.is_ok(),
            "the least guest memory, 2 MiB, holds everything below 0x10000"
        );
        Ok(())
    }

    /// A quarter of the time after which guests' clock arithmetic overflows (section A5).
    fn poll_limit(counter_frequency: u64) -> u64 {
        clock::poll_limit(counter_frequency)
    }
}

/// Makes KVM report the address of an access that it cannot decode (section 15) instead of a bare
/// error. Kernels before 5.5 cannot; then a report lacks the address.
fn report_undecodable_accesses(vm: &VmFd) {
    let capability = kvm_enable_cap {
        cap: KVM_CAP_ARM_NISV_TO_USER,
        ..Default::default()
    };
    if let Err(error) = vm.enable_cap(&capability) {
        log::debug!("KVM_CAP_ARM_NISV_TO_USER failed: {error}");
    }
}

/// Page table descriptors. Each is for EL1 only (UXN), inner shareable and has its access flag set.
struct Descriptors;

impl Descriptors {
    const TABLE: u64 = 0b11;
    const PAGE: u64 = 0b11;
    const BLOCK: u64 = 0b01;
    const NORMAL: u64 = 4 << 2;
    const DEVICE: u64 = 1 << 2;
    const READ_ONLY: u64 = 1 << 7;
    const INNER_SHAREABLE: u64 = 3 << 8;
    const ACCESSED: u64 = 1 << 10;
    const NO_EXECUTE: u64 = 1 << 53;
    const NO_USER_EXECUTE: u64 = 1 << 54;
    const COMMON: u64 = Self::INNER_SHAREABLE | Self::ACCESSED | Self::NO_USER_EXECUTE;

    fn leaf(access: Access) -> u64 {
        let rights = match access {
            Access::None => return 0,
            Access::Read => Self::READ_ONLY | Self::NO_EXECUTE,
            Access::ReadWrite => Self::NO_EXECUTE,
            Access::ReadExecute => Self::READ_ONLY,
            Access::All => 0,
        };
        Self::COMMON | Self::NORMAL | rights
    }

    /// The 1 GiB window of hypercalls.
    fn window(address: u64) -> u64 {
        address | Self::COMMON | Self::DEVICE | Self::NO_EXECUTE | Self::BLOCK
    }
}

impl Format for Descriptors {
    fn table(address: u64) -> u64 {
        address | Self::TABLE
    }

    fn page(address: u64, access: Access) -> u64 {
        address | Self::leaf(access) | Self::PAGE
    }

    fn block(address: u64, access: Access) -> u64 {
        address | Self::leaf(access) | Self::BLOCK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of section A3.
    #[test]
    fn descriptors_have_the_bits_of_the_manual() {
        assert_eq!(Descriptors::table(0x2000), 0x2003);
        assert_eq!(Descriptors::page(0, Access::Read), 0x60_0000_0000_0793);
        assert_eq!(Descriptors::page(0, Access::ReadWrite), 0x60_0000_0000_0713);
        assert_eq!(
            Descriptors::page(0, Access::ReadExecute),
            0x40_0000_0000_0793
        );
        assert_eq!(Descriptors::page(0, Access::All), 0x40_0000_0000_0713);
        assert_eq!(
            Descriptors::block(0, Access::ReadWrite),
            0x60_0000_0000_0711
        );
        assert_eq!(Descriptors::window(0x1_0000_0000), 0x60_0001_0000_0705);
    }
}
