//! Prepares a guest from a [`Config`]. The order matters: checks that do not touch the host come
//! first, then KVM, then the host's devices, and the content of guest memory last.

#![expect(unsafe_code, reason = "shares the pages of a file that has a lease")]

use std::fs::{File, FileType};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use guest_abi::boot::BOOT_INFO_ADDRESS;
use kvm_ioctls::{Kvm, VmFd};

use crate::arch::{self, Architecture, Native, Processor, Vcpu};
use crate::config::{
    BlockOption, Config, Debugging, Engine, EngineChoice, GdbAddress, NetOption, NetRing,
    SandboxMode,
};
use crate::debug::{Listener, core};
use crate::devices::console::Console;
use crate::devices::ring::{self, Ring};
use crate::devices::{self, Devices, Plan};
use crate::exit::{Machine, Services};
use crate::guest::boot_info::{self, BootFacts};
use crate::guest::era::Rules;
use crate::guest::image::{self, Image};
use crate::guest::manifest::Manifest;
use crate::host::files::{Files, Look, Need, Shared};
use crate::host::inherited_filter;
use crate::host::lease::{self, Lease};
use crate::host::service_manager::Notifier;
use crate::host::title;
use crate::host::user;
use crate::memory::GuestMemory;
use crate::metrics::{self, Phase, Phases, Registry};
use crate::outcome;
use crate::report::clock;
use crate::sandbox::{self, Layer, Sandbox};
use unchanged::Found;

mod content;
mod error;
mod memory;
mod source;
#[cfg(test)]
mod tests;
mod unchanged;

pub(crate) use content::fill;
pub(crate) use error::Error;
pub(crate) use memory::{check_pages, map_memory, memory_size, reserve};

/// A unikernel and its start parameters, checked without touching the host.
struct Unikernel {
    file: File,
    /// The file before anything of it was read.
    found: Found,
    /// A lease on the file, if its pages may be shared.
    lease: Option<Lease>,
    image: Image,
    manifest: Manifest,
    cmdline: Vec<u8>,
    memory_size: u64,
}

/// Prepares everything that one run needs.
pub(crate) fn setup(config: &Config, files: &mut Files) -> Result<Machine, outcome::Error> {
    check_clock()?;
    let phases = Phases::begin();
    if let Some(name) = &config.name {
        title::set(name);
    }
    files.check_user()?;
    let mut unikernel = Unikernel::examine(config, files)?;
    let era = unikernel.image.era;
    let plan = plan(&unikernel.manifest, config, files)?;
    let sandbox = sandbox(config, files)?;
    let can_remove = config.sandbox == SandboxMode::Off && config.chroot.is_none();
    let outlets = metrics::Opened::open(&config.output, can_remove, files)?;
    let debugger = gdb_address(&config.debugging)
        .map(|address| Listener::bind(&address, &config.unikernel, files))
        .transpose()?;
    let cores = core::Directory::open(&config.debugging, &config.unikernel, files)?;
    phases.end(Phase::Image);

    // KVM comes before the devices, because attaching a tap is visible on the host: the tap goes up
    // and down.
    let (engine, missing) = engine(config.engine);
    if let Some(missing) = missing {
        log::warn!("--engine=auto: {missing}; the guest runs as a process, a weaker wall");
    }
    let (vm, mut vcpu) = match engine {
        Engine::Kvm => create_vm(config.sandbox).map(|(vm, vcpu)| (Some(vm), vcpu))?,
        Engine::Process => (None, Vcpu::process()),
    };
    let counter_frequency = vcpu.counter_frequency()?;
    let image_end = unikernel.image.end();
    let mut memory = reserve(engine, unikernel.memory_size, image_end, config)?;
    phases.end(Phase::Machine);
    let devices = Devices::attach(plan, files, era.rules()).map_err(of_device)?;
    phases.end(Phase::Devices);

    log::info!(
        "engine {}, {} MiB of memory, image up to {:#x}, counter of {counter_frequency} Hz",
        vcpu.engine().name(),
        unikernel.memory_size >> 20,
        unikernel.image.end()
    );
    if engine == Engine::Process {
        // A child cannot share what is mapped from a file.
        unikernel.lease = None;
    }
    let ring = net_ring(config.net_ring, engine, era.rules(), &devices)?;
    // SAFETY: the lease is dropped first: here as the younger local, later by `Machine::run`.
    let lease =
        unsafe { unikernel.load(&mut memory, &devices, ring.is_some(), counter_frequency) }?;
    match &vm {
        Some(vm) => map_memory(vm, &memory)?,
        None => check_pages(&memory, config.sandbox)?,
    }
    vcpu.boot(&arch::Boot {
        entry: unikernel.image.entry,
        stack_top: unikernel.memory_size,
        boot_info: BOOT_INFO_ADDRESS,
    })?;
    let notifier = Notifier::from_environment(|| unikernel.status(vcpu.engine(), &devices));
    let poll_limit = Native::poll_limit(counter_frequency).min(notifier.poll_limit());
    let console = Console::stdout()
        .limited(config.limits.console_rate)
        .stamped(config.output.console_timestamps);
    phases.end(Phase::Load);
    let mut registry = Registry::new(
        config,
        era,
        vcpu.engine(),
        phases,
        &devices,
        &console,
        ring.as_ref(),
    );
    if outlets.any() {
        registry.measure(&memory);
    }
    Ok(Machine {
        era,
        vcpu,
        memory: Arc::new(memory),
        services: Services {
            devices,
            console,
            notifier,
            lease,
            poll_limit,
            timeout: config.limits.timeout,
        },
        ring,
        sandbox,
        debugger,
        cores,
        vm,
        registry: Arc::new(registry),
        outlets,
    })
}

/// Checks the clocks. Reading an `Instant` before this may panic.
pub(crate) fn check_clock() -> Result<(), Error> {
    clock::check().map_err(Error::Clock)
}

impl Unikernel {
    fn examine(config: &Config, files: &mut Files) -> Result<Unikernel, outcome::Error> {
        let look = files.take(&config.unikernel, Need::Read);
        let found = Found::of(&look);
        // Locked memory is the guest's own. The lease is older than the first look into the file.
        let look_again = look.as_ref().ok().filter(|_| !config.limits.lock_memory);
        let lease = look_again.and_then(|look| Lease::take(look, config.user.is_some()));
        // A process shares no pages of the file, so it needs no lease.
        if lease.is_none() || config.engine != EngineChoice::Only(Engine::Kvm) {
            found.settle();
        }
        let (file, mut image) = examine(&config.unikernel, look)?;
        let memory_size = memory_size(config.memory, &image)?;
        let cmdline = boot_info::cmdline(&config.arguments)?;
        let manifest = manifest(&mut image, &config.nets, &config.blocks)?;
        Ok(Unikernel {
            file,
            found,
            lease,
            image,
            manifest,
            cmdline,
            memory_size,
        })
    }

    /// Writes the initial contents of guest memory. Returns the guard of the pages that it shares
    /// with the file.
    ///
    /// # Safety
    /// The memory must live longer than the result.
    unsafe fn load(
        &mut self,
        memory: &mut GuestMemory,
        devices: &Devices,
        ring: bool,
        counter_frequency: u64,
    ) -> Result<Option<lease::Guard>, outcome::Error> {
        let image = &self.image;
        let offered = if ring { "offered" } else { "not offered" };
        log::debug!(
            "first instruction at {:#x}, network ring {offered}",
            image.entry
        );
        let facts = BootFacts {
            memory_size: self.memory_size,
            image_end: image.end(),
            counter_frequency,
            net_ring: if ring { ring::ADDRESS } else { 0 },
            manifest: &self.manifest.to_bytes(devices.properties()),
            cmdline: &self.cmdline,
        };
        let file = (&self.file, self.lease.is_some());
        let pages = fill(memory, file, image, &facts)?;
        if self.lease.is_none() {
            self.found.check(&self.file)?;
        }
        let lease = self.lease.take().filter(|_| !pages.is_empty());
        // SAFETY: the caller keeps the memory. Only this thread writes to it, by volatile
        // accesses or by system calls.
        Ok(lease.map(|lease| unsafe { lease.protect(pages) }))
    }

    /// Formats the status line that a service manager shows for a running guest.
    fn status(&self, engine: Engine, devices: &Devices) -> String {
        let mut status = format!(
            "{}, engine {}, {} MiB of memory",
            self.image.era,
            engine.name(),
            self.memory_size >> 20
        );
        for device in self.manifest.devices() {
            let place = devices.on_host(device.handle).unwrap_or_default();
            status.push_str(&format!(", {}: {place}", device.name));
        }
        status
    }
}

/// Decides which option attaches which device. No file may have two purposes.
fn plan(manifest: &Manifest, config: &Config, files: &Files) -> Result<Plan, outcome::Error> {
    let plan = Plan::new(manifest, &config.nets, &config.blocks)
        .map_err(|error| of_device(error.with_misplaced(&config.arguments)))?;
    let shared = files.shared(plan.disks(), config.output.stats.as_ref());
    match shared.into_iter().next() {
        Some((_, Shared::Disks { device, path })) => {
            Err(of_device(devices::Error::twice(&device, path)))
        }
        Some((_, shared)) => Err(shared.into()),
        None => Ok(plan),
    }
}

/// Returns the error with the device that it is about.
fn of_device(error: devices::Error) -> outcome::Error {
    let device = error.device().map(str::to_owned);
    outcome::Error::Start {
        cause: Box::new(error.into()),
        device,
    }
}

fn sandbox(config: &Config, files: &mut Files) -> Result<Sandbox, outcome::Error> {
    let root = config.chroot.as_deref();
    let root = root.map(|path| sandbox::root(path, files)).transpose()?;
    let identity = config.user.as_ref().map(user::permitted).transpose()?;
    Ok(Sandbox::new(config.sandbox, identity, root))
}

/// Returns the address for gdb, with `--gdb`.
pub(crate) fn gdb_address(debugging: &Debugging) -> Option<GdbAddress> {
    if debugging.gdb_port.is_some() && !debugging.gdb {
        log::warn!("--gdb-port has no effect without --gdb");
    }
    debugging.address()
}

/// Opens and parses a unikernel; rejects one for another processor.
pub(crate) fn examine(
    path: &Path,
    look: io::Result<Look>,
) -> Result<(File, Image), outcome::Error> {
    let file = open(path, look, true)?;
    let image = Image::parse(&file).map_err(|error| match error {
        image::Error::NotElf(_) if error::is_toml(path, &file) => {
            outcome::Error::from(Error::Toml {
                path: path.to_owned(),
            })
        }
        error => error.into(),
    })?;
    check_machine(&image)?;
    Ok((file, image))
}

/// Returns the manifest of the unikernel. One that cannot declare devices gets those that the
/// operator attaches.
pub(crate) fn manifest(
    image: &mut Image,
    nets: &[NetOption],
    blocks: &[BlockOption],
) -> Result<Manifest, outcome::Error> {
    if let Some(manifest) = image.manifest.take() {
        return Ok(manifest);
    }
    let names = nets.iter().map(|net| &net.name);
    let names = names.chain(blocks.iter().map(|block| &block.name));
    if let Some(name) = names.flatten().next() {
        return Err(Error::UnnamedDevices {
            name: name.clone(),
            era: image.era,
        }
        .into());
    }
    Ok(Manifest::unnamed(!nets.is_empty(), !blocks.is_empty()))
}

/// Opens a unikernel's file, found at `path`; `is_run` if no command was given.
pub(crate) fn open(path: &Path, look: io::Result<Look>, is_run: bool) -> Result<File, Error> {
    let look = look.map_err(|source| Error::open(path, source, is_run))?;
    check_kind(look.metadata().file_type())?;
    look.open(File::options().read(true))
        .map_err(|source| Error::open(path, source, is_run))
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
    if image.machine == Native::MACHINE {
        return Ok(());
    }
    Err(Error::Machine {
        image: image.machine,
        host: Native::MACHINE,
    })
}

/// Returns the engine that is asked for. `auto` is a process if KVM cannot be opened; returns the
/// reason too.
pub(crate) fn engine(asked: EngineChoice) -> (Engine, Option<String>) {
    match asked {
        EngineChoice::Only(engine) => (engine, None),
        EngineChoice::Auto => match open_kvm() {
            Ok(_) => (Engine::Kvm, None),
            Err(Error::NoKvm { source, .. }) => {
                let missing = format!("cannot open /dev/kvm: {source}");
                (Engine::Process, Some(missing))
            }
            Err(_) => (Engine::Process, Some("/dev/kvm is not usable".to_owned())),
        },
    }
}

/// Creates a virtual machine without memory, and its one vCPU. `mode` decides whether a kernel
/// without MSR filters is accepted.
pub(crate) fn create_vm(mode: SandboxMode) -> Result<(VmFd, Vcpu), outcome::Error> {
    let kvm = open_kvm()?;
    let vm = Native::create_vm(&kvm)?;
    match Native::deny_registers(&vm) {
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

/// Returns the shared network ring, if the guest supports and needs it and the operator allows it.
fn net_ring(
    asked: NetRing,
    engine: Engine,
    rules: &Rules,
    devices: &Devices,
) -> Result<Option<Ring>, outcome::Error> {
    let possible = rules.net_ring && devices.has_nets();
    // An inherited filter that rejects calls may also reject those for the ring's timer.
    let prevented = inherited_filter::has_rejected();
    match asked {
        NetRing::Off => return Ok(None),
        NetRing::On if engine == Engine::Process => {
            log::warn!("--net-ring=on: the ring is unavailable with --engine=process");
            return Ok(None);
        }
        NetRing::Auto if engine == Engine::Process => return Ok(None),
        NetRing::Auto if !possible || prevented || !Native::runs_guests_natively() => {
            return Ok(None);
        }
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
