//! Prepares a guest from a [`Config`]. The order matters: checks that do not touch the host come
//! first, then KVM, then the host's devices, and the content of guest memory last.

use std::fs::{File, FileType};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;

use guest_abi::boot::{BOOT_INFO_ADDRESS, IMAGE_BASE, MAX_MEMORY};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VmFd};

use crate::arch::{self, Vcpu};
use crate::config::{Config, GdbAddress, Memory, NetRing, SandboxMode};
use crate::debug::{Listener, core};
use crate::devices::console::Console;
use crate::devices::ring::{self, Ring};
use crate::devices::{Devices, Plan};
use crate::exit::Machine;
use crate::guest::boot_info::{self, BootFacts};
use crate::guest::era::Rules;
use crate::guest::image::{self, Image, Segment};
use crate::guest::manifest::Manifest;
use crate::host::files::{Files, Look, Need};
use crate::host::inherited_filter;
use crate::host::service_manager::Notifier;
use crate::memory::{Access, GuestAddress, GuestMemory, Mapping};
use crate::metrics::{Observer, Outlets, Parts, Phase, Phases, Registry};
use crate::outcome;
use crate::sandbox::{self, Layer, Sandbox};

mod error;
mod source;
#[cfg(test)]
mod tests;

pub use error::Error;

/// Prepares everything that one run needs.
pub fn setup(config: &Config, files: &mut Files) -> Result<Machine, outcome::Error> {
    let phases = Phases::begin();
    files.check_user()?;
    let (file, mut image) = examine(files.take(&config.unikernel, Need::Read))?;
    let size = memory_size(config.memory, &image)?;
    let cmdline = boot_info::cmdline(&config.arguments)?;
    let manifest = manifest(&mut image, config)?;
    let plan = Plan::new(&manifest, &config.nets, &config.blocks)?;
    if let Some((_, shared)) = files
        .shared(plan.disks(), config.output.stats.as_ref())
        .into_iter()
        .next()
    {
        return Err(shared.into());
    }
    let sandbox = Sandbox::with_files(config, files)?;
    let outlets = Outlets::open(config, files)?;
    let debugger = gdb_address(config)
        .map(|address| Listener::bind(&address, &config.unikernel, files))
        .transpose()?;
    let cores = core::Directory::open(config, files)?;
    phases.end(Phase::Image);

    // KVM comes before the devices, because attaching a tap is visible on the host: the tap goes up
    // and down.
    let (vm, mut vcpu) = create_vm(config.sandbox)?;
    let counter_frequency = vcpu.counter_frequency()?;
    let mut memory = reserve(size, config.limits.lock_memory)?;
    phases.end(Phase::Machine);
    let devices = Devices::attach(plan, files, image.era.rules())?;
    phases.end(Phase::Devices);

    log::info!(
        "{} MiB of memory, image up to {:#x}, counter of {counter_frequency} Hz",
        size >> 20,
        image.end()
    );
    let ring = net_ring(config.net_ring, image.era.rules(), &devices)?;
    let facts = BootFacts {
        memory_size: size,
        image_end: image.end(),
        counter_frequency,
        net_ring: if ring.is_some() { ring::ADDRESS } else { 0 },
        manifest: &manifest.to_bytes(devices.properties()),
        cmdline: &cmdline,
    };
    let offered = if ring.is_some() {
        "offered"
    } else {
        "not offered"
    };
    log::debug!(
        "first instruction at {:#x}, network ring {offered}",
        image.entry
    );
    fill(&mut memory, &file, &image, &facts)?;
    map_memory(&vm, &memory)?;
    vcpu.boot(&arch::Boot {
        entry: image.entry,
        stack_top: size,
        boot_info: BOOT_INFO_ADDRESS,
    })?;
    let notifier = Notifier::from_environment(|| status(&image, size, &manifest, &devices));
    let poll_limit = arch::poll_limit(counter_frequency).min(notifier.poll_limit());
    let console = Console::stdout()
        .limited(config.limits.console_rate)
        .stamped(config.output.console_timestamps);
    let timeout = config.limits.timeout;
    phases.end(Phase::Load);
    let parts = Parts {
        memory: &memory,
        devices: &devices,
        console: &console,
        ring: ring.as_ref(),
    };
    let registry = Registry::new(config, image.era, phases, &parts, outlets.any());
    let observer = Observer::new(registry, outlets);
    let era = image.era;
    Ok(Machine {
        era,
        vcpu,
        memory,
        devices,
        console,
        ring,
        sandbox,
        notifier,
        poll_limit,
        timeout,
        debugger,
        cores,
        vm,
        observer,
    })
}

/// Returns the address for gdb, with `--gdb`.
pub(crate) fn gdb_address(config: &Config) -> Option<GdbAddress> {
    if config.debugging.gdb_port.is_some() && !config.debugging.gdb {
        log::warn!("--gdb-port has no effect without --gdb");
    }
    config.debugging.address()
}

/// Formats the status line that a service manager shows for a running guest.
fn status(image: &Image, size: u64, manifest: &Manifest, devices: &Devices) -> String {
    let mut status = format!("{}, {} MiB of memory", image.era, size >> 20);
    for device in manifest.devices() {
        let place = devices.on_host(device.handle).unwrap_or_default();
        status.push_str(&format!(", {}: {place}", device.name));
    }
    status
}

/// Opens and parses a unikernel; rejects one for another processor.
pub(crate) fn examine(look: io::Result<Look>) -> Result<(File, Image), outcome::Error> {
    let file = open(look)?;
    let image = Image::parse(&file)?;
    check_machine(&image)?;
    Ok((file, image))
}

/// Returns the manifest of the unikernel. One that cannot declare devices gets those that the
/// operator attaches.
pub(crate) fn manifest(image: &mut Image, config: &Config) -> Result<Manifest, outcome::Error> {
    if let Some(manifest) = image.manifest.take() {
        return Ok(manifest);
    }
    let names = config
        .nets
        .iter()
        .map(|net| &net.name)
        .chain(config.blocks.iter().map(|block| &block.name));
    if let Some(name) = names.flatten().next() {
        return Err(Error::UnnamedDevices {
            name: name.clone(),
            era: image.era,
        }
        .into());
    }
    Ok(Manifest::unnamed(
        !config.nets.is_empty(),
        !config.blocks.is_empty(),
    ))
}

/// Opens a unikernel's file.
pub(crate) fn open(look: io::Result<Look>) -> Result<File, Error> {
    let look = look.map_err(|source| Error::Open { source })?;
    check_kind(look.metadata().file_type())?;
    look.open(File::options().read(true))
        .map_err(|source| Error::Open { source })
}

fn check_kind(kind: FileType) -> Result<(), Error> {
    Err(Error::NotAFile(match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "directory",
        kind if kind.is_fifo() => "pipe (save its content as a file first)",
        kind if kind.is_socket() => "socket",
        _ => "device",
    }))
}

fn check_machine(image: &Image) -> Result<(), Error> {
    if image.machine == arch::MACHINE {
        return Ok(());
    }
    Err(Error::Machine {
        image: image.machine,
        host: arch::MACHINE,
    })
}

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

/// Creates a virtual machine without memory, and its one vCPU. `mode` decides whether a kernel
/// without MSR filters is accepted.
pub(crate) fn create_vm(mode: SandboxMode) -> Result<(VmFd, Vcpu), outcome::Error> {
    let kvm = open_kvm()?;
    let vm = arch::create_vm(&kvm)?;
    match arch::deny_registers(&vm) {
        Err(error) if matches!(error.errno(), libc::ENOTTY | libc::EINVAL) => {
            sandbox::handle_missing_layer(Layer::Registers, mode, error.into())?;
        }
        result => result.map_err(arch::Error::kvm("KVM_X86_SET_MSR_FILTER"))?,
    }
    let vcpu = Vcpu::new(&kvm, &vm)?;
    Ok((vm, vcpu))
}

fn open_kvm() -> Result<Kvm, Error> {
    let kvm = arch::uninterrupted(Kvm::new).map_err(|source| Error::no_kvm(source.errno()))?;
    match kvm.get_api_version() {
        12 => Ok(kvm),
        -1 => Err(Error::NotKvm),
        version => Err(Error::KvmVersion(version)),
    }
}

/// Reserves guest memory; with `lock`, allocates all of it and locks it in RAM.
pub(crate) fn reserve(size: u64, lock: bool) -> Result<GuestMemory, outcome::Error> {
    let memory = GuestMemory::new(size)?;
    if lock {
        memory.lock()?;
    }
    Ok(memory)
}

/// Returns the shared network ring, if the guest supports and needs it and the operator allows it.
fn net_ring(
    asked: NetRing,
    rules: &Rules,
    devices: &Devices,
) -> Result<Option<Ring>, outcome::Error> {
    let possible = rules.net_ring && devices.has_nets();
    // An inherited filter that rejects calls may also forbid a second thread, or the calls by which
    // both threads cooperate.
    let prevented = inherited_filter::has_rejected();
    match asked {
        NetRing::Off => return Ok(None),
        NetRing::Auto if !possible || prevented => return Ok(None),
        NetRing::On if !possible => {
            log::warn!(
                "--net-ring=on: this unikernel has no network device or predates the ring; none is offered"
            );
            return Ok(None);
        }
        NetRing::On if prevented => {
            log::warn!("--net-ring=on: the ring is unavailable under an inherited seccomp filter");
            return Ok(None);
        }
        NetRing::Auto | NetRing::On => {}
    }
    Ok(Some(Ring::new(
        devices.try_clone_nets().map_err(Error::Descriptors)?,
    )))
}

/// Returns the access rights of each page of guest memory. Sections A3 and B3.
fn mappings(image: &Image, size: u64, ring: bool) -> Vec<Mapping> {
    let boot_pages = image.era.rules().boot_pages;
    let ring_pages = if ring { Access::ReadWrite } else { boot_pages };
    let mut mappings = vec![
        Mapping {
            range: 0..BOOT_INFO_ADDRESS,
            access: Access::None,
        },
        Mapping {
            range: BOOT_INFO_ADDRESS..ring::ADDRESS,
            access: boot_pages,
        },
        Mapping {
            range: ring::ADDRESS..ring::END,
            access: ring_pages,
        },
        Mapping {
            range: ring::END..IMAGE_BASE,
            access: boot_pages,
        },
    ];
    mappings.extend(image.mappings(size));
    mappings
}

/// Writes the initial contents of guest memory and its page tables, and write-protects what the
/// guest must not write.
pub(crate) fn fill(
    memory: &mut GuestMemory,
    file: &File,
    image: &Image,
    facts: &BootFacts,
) -> Result<(), outcome::Error> {
    let mappings = mappings(image, memory.size(), facts.net_ring != 0);
    load(memory, file, &image.segments)?;
    for Mapping { range, access } in &mappings {
        log::trace!("page tables: {range:#x?}: {access:?}");
    }
    arch::build_tables(memory, &mappings)?;
    memory.place(
        GuestAddress(BOOT_INFO_ADDRESS),
        &boot_info::to_bytes(image.era, facts),
    )?;
    memory.protect(&mappings);
    Ok(())
}

/// Loads the segments. Bytes that the file does not fill are zero, because guest memory is fresh.
fn load(memory: &GuestMemory, file: &File, segments: &[Segment]) -> Result<(), outcome::Error> {
    for segment in segments {
        log::debug!(
            "segment {:#x?}: {:?}, from {:#x?} of the file",
            segment.memory,
            segment.access,
            segment.file
        );
    }
    for segment in segments.iter().filter(|segment| !segment.file.is_empty()) {
        let length = segment.file.end - segment.file.start;
        memory
            .load(
                GuestAddress(segment.memory.start),
                length,
                file.as_fd(),
                segment.file.start,
            )?
            .map_err(image::Error::Io)?;
    }
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
