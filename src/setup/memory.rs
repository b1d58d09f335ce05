//! Guest memory: its size, its pages, and its place in the virtual machine.

#![expect(unsafe_code, reason = "maps guest memory into KVM")]

use guest_abi::boot::MAX_MEMORY;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;

use super::Error;
use crate::arch;
use crate::config::{Config, Engine, Memory, SandboxMode};
use crate::guest::image::Image;
use crate::memory::{self, GuestMemory};
use crate::outcome;

/// Returns the guest's memory size in bytes, if the image fits into it.
pub(crate) fn memory_size(memory: Memory, image: &Image) -> Result<u64, Error> {
    if memory.given != memory.asked {
        log::warn!(
            "guest memory is {} MiB: --mem is rounded down to a multiple of 2 MiB",
            memory.given >> 20
        );
    }
    if image.has_writable_code() {
        log::warn!("image has writable code (2018 era); heap and stack stay executable");
    }
    let needed = image.least_memory();
    if needed > MAX_MEMORY {
        return Err(Error::TooLarge {
            needed: needed >> 20,
        });
    }
    if memory.given < needed {
        return Err(Error::TooLittleMemory {
            given: memory.given >> 20,
            needed: needed >> 20,
        });
    }
    Ok(memory.given)
}

/// Reserves guest memory for an image that ends at `image_end`; with `--lock-memory`, allocates all
/// of it and locks it in RAM.
pub(crate) fn reserve(
    engine: Engine,
    size: u64,
    image_end: u64,
    config: &Config,
) -> Result<GuestMemory, outcome::Error> {
    let memory = match engine {
        Engine::Kvm => GuestMemory::new(size)?,
        Engine::Process => GuestMemory::shared(size)?,
    };
    memory.huge_pages(config.huge_pages, image_end);
    if config.limits.lock_memory {
        memory.lock()?;
    }
    Ok(memory)
}

/// Checks that host pages larger than the guest's leave no page both writable and executable.
pub(crate) fn check_pages(memory: &GuestMemory, mode: SandboxMode) -> Result<(), Error> {
    let page_size = memory::host_page_size() as u64;
    let Some(page) = arch::writable_code(memory.mappings(), page_size) else {
        return Ok(());
    };
    if mode == SandboxMode::Strict {
        return Err(Error::WritableCode(page.start));
    }
    log::warn!(
        "--engine=process: the host's page at {:#x} has code and data, and is writable and executable",
        page.start
    );
    Ok(())
}

/// Maps guest memory into the virtual machine.
pub(crate) fn map_memory(vm: &VmFd, memory: &GuestMemory) -> Result<(), outcome::Error> {
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: memory.size(),
        userspace_addr: memory.host_address(),
    };
    // SAFETY: the region is a live private mapping of exactly this size, no Rust reference points
    // into it, and the machine drops its VM together with its memory.
    unsafe { vm.set_user_memory_region(region) }
        .map_err(arch::Error::kvm("KVM_SET_USER_MEMORY_REGION"))?;
    Ok(())
}
