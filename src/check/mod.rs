//! `--check`: runs every check of a start, without starting anything. It reports all problems
//! together, each with a fix, for the operator who sets up a host.
//!
//! Every step is one of [`setup`]'s own, so that a check cannot disagree with a start. Three things
//! differ from a start:
//!
//! * Steps continue after an earlier one failed.
//! * Interfaces are inspected and not attached (`net/probe.rs` explains why).
//! * The check enters the sandbox itself, as its last step, without a guest.
//!
//! An option that can fail at the start must add its step to [`check`].

use std::fs::{self, File};
use std::sync::Arc;

use guest_abi::boot::{BOOT_INFO_ADDRESS, IMAGE_BASE};
use kvm_ioctls::VmFd;

use crate::arch::{Boot, Processor, Vcpu};
use crate::config::{Config, Engine, Memory, Output, SandboxMode};
use crate::debug::{self, core};
use crate::devices::Plan;
use crate::guest::boot_info::{self, BootFacts};
use crate::guest::era::Era;
use crate::guest::image::Image;
use crate::guest::manifest::Manifest;
use crate::host::files::{Files, Need};
use crate::host::unix_socket::Listener;
use crate::host::user;
use crate::memory::GuestMemory;
use crate::metrics::{self, StatsFile};
use crate::outcome;
use crate::report::counters::Count;
use crate::report::message::Message;
use crate::sandbox::{self, Sandbox};
use crate::setup;

mod report;

pub use report::{Finding, Report, Verdict};

/// A unikernel that this host can run.
struct Guest {
    file: File,
    image: Image,
    manifest: Option<Manifest>,
}

/// Checks everything that `config` requests. The process must exit afterwards, because it is in the
/// sandbox.
pub fn check(config: &Config, files: &mut Files) -> Report {
    let mut report = Report::new(config);
    report.needs("clock", setup::check_clock());
    let mut guest = unikernel(&mut report, config, files);
    let found = engine(&mut report, config);
    memory(&mut report, config, guest.as_mut(), &found);
    let cmdline = boot_info::cmdline(&config.arguments);
    report.passes("arguments", cmdline, |cmdline| {
        format!("{} of 8191", Count(cmdline.len() as u64 - 1, "byte"))
    });
    devices(&mut report, config, guest.as_ref(), files);
    outlets(&mut report, &config.output, files);
    let cores = core::Directory::open(&config.debugging, &config.unikernel, files);
    let cores = report.needs("dumpcore", cores).flatten();
    if let Some(address) = setup::gdb_address(&config.debugging) {
        let probed = debug::Listener::probe(&address, files);
        report.passes("gdb", probed, |place| format!("can connect at {place}"));
    }
    let identity = config.user.as_ref().and_then(|user| {
        let found = files.check_user().and_then(|()| user::permitted(user));
        report.passes("user", found, |found| {
            format!("user {}, group {}", found.uid, found.gid)
        })
    });
    // Under another user, the result would not be that of a start.
    let cores = cores.filter(|_| identity.is_some() == config.user.is_some());
    let root = config.chroot.as_ref().and_then(|path| {
        let root = sandbox::root(path, files);
        report.passes("chroot", root, |_| path.display())
    });
    let sandbox = Sandbox::new(config.sandbox, identity, root);
    if try_out(&mut report, sandbox, config.sandbox, cores).is_some() {
        if let Found::Process(vcpu) = found {
            report.passes("process", try_process(vcpu), |()| "can run a guest");
        }
    }
    report
}

fn unikernel(report: &mut Report, config: &Config, files: &mut Files) -> Option<Guest> {
    let path = config.unikernel.display();
    let examined = setup::examine(&config.unikernel, files.take(&config.unikernel, Need::Read))
        .map_err(|error| Message::from(error).about(path));
    let (file, mut image) = report.passes("unikernel", examined, |(_, image)| {
        format!("{}, {}", image.machine, image.era)
    })?;
    let manifest = report.needs(
        "devices",
        setup::manifest(&mut image, &config.nets, &config.blocks),
    );
    Some(Guest {
        file,
        image,
        manifest,
    })
}

/// What can run the guest.
enum Found {
    /// KVM; none after an error.
    Kvm(Option<VmFd>),
    /// A process, which is tried out last.
    Process(Vcpu),
}

fn engine(report: &mut Report, config: &Config) -> Found {
    let (engine, missing) = setup::engine(config.engine);
    if let Some(missing) = missing {
        report.doubtful(
            "KVM",
            format!("{missing}; the guest would run as a process, a weaker wall"),
            "",
        );
    }
    match engine {
        Engine::Kvm => Found::Kvm(kvm(report, config.sandbox)),
        Engine::Process => Found::Process(Vcpu::process()),
    }
}

/// Starts and ends a process as for a guest, from within the sandbox.
fn try_process(mut vcpu: Vcpu) -> Result<(), outcome::Error> {
    let memory = Arc::new(GuestMemory::shared(Memory::STEP)?);
    vcpu.boot(&Boot {
        entry: IMAGE_BASE,
        stack_top: Memory::STEP,
        boot_info: BOOT_INFO_ADDRESS,
    })?;
    vcpu.start(&memory)?;
    vcpu.end();
    Ok(())
}

fn kvm(report: &mut Report, mode: SandboxMode) -> Option<VmFd> {
    let (vm, vcpu) = report.needs("KVM", setup::create_vm(mode))?;
    report.passes("KVM", vcpu.counter_frequency(), |frequency| {
        let kilohertz = frequency / 1000;
        format!("can create a virtual machine; counter of {kilohertz} kHz")
    })?;
    Some(vm)
}

/// Reserves, fills and maps memory as a start would. This also proves that the file is readable to
/// its end. Returns none after an error.
fn memory(
    report: &mut Report,
    config: &Config,
    guest: Option<&mut Guest>,
    found: &Found,
) -> Option<()> {
    let lock = config.limits.lock_memory;
    let engine = match found {
        Found::Kvm(_) => Engine::Kvm,
        Found::Process(_) => Engine::Process,
    };
    let size = match &guest {
        Some(guest) => setup::memory_size(config.memory, &guest.image),
        None => Ok(config.memory.given),
    };
    let size = report.needs("memory", size)?;
    let image_end = guest.as_ref().map_or(0, |guest| guest.image.end());
    let mut memory = report.needs("memory", setup::reserve(engine, size, image_end, config))?;
    if let Some(Guest {
        file,
        image,
        manifest: Some(manifest),
    }) = guest
    {
        let cmdline = boot_info::cmdline(&config.arguments).unwrap_or_default();
        let facts = BootFacts {
            memory_size: size,
            image_end: image.end(),
            counter_frequency: 1,
            net_ring: 0,
            manifest: &manifest.to_bytes([]),
            cmdline: &cmdline,
        };
        report.needs(
            "memory",
            setup::fill(&mut memory, (file, false), image, &facts),
        )?;
    }
    let mapped = match found {
        Found::Kvm(Some(vm)) => setup::map_memory(vm, &memory),
        // KVM's error is already reported.
        Found::Kvm(None) => Ok(()),
        Found::Process(_) => setup::check_pages(&memory, config.sandbox).map_err(Into::into),
    };
    report.needs("memory", mapped)?;
    let locked = if lock {
        ", all of it locked in RAM"
    } else {
        ""
    };
    let given = format!("{} MiB{locked}", size >> 20);
    match available_memory() {
        Some(available) if available < size && !lock => report.doubtful(
            "memory",
            format!("{given}, but only {} MiB are available", available >> 20),
            "free some or lower --mem",
        ),
        _ => report.fine("memory", given),
    }
    Some(())
}

/// Returns the memory that the host can allocate without swapping, in bytes, if the kernel reports
/// it.
fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

fn devices(report: &mut Report, config: &Config, guest: Option<&Guest>, files: &mut Files) {
    let (nets, blocks) = (&config.nets, &config.blocks);
    let (plan, rules) =
        match guest.and_then(|guest| Some((guest.manifest.as_ref()?, guest.image.era))) {
            Some((manifest, era)) => {
                let (plan, errors) = Plan::partial(manifest, nets, blocks);
                if manifest.devices().is_empty() && errors.is_empty() {
                    report.fine("devices", "none declared, none attached");
                }
                for error in errors {
                    report.missing("devices", error.with_misplaced(&config.arguments));
                }
                (plan, era.rules())
            }
            // Without a manifest, devices are checked by the options alone, under the most
            // permissive rules.
            None => (Plan::of_options(nets, blocks), Era::Legacy.rules()),
        };
    let mut twice = Vec::new();
    for (disk, shared) in files.shared(plan.disks(), config.output.stats.as_ref()) {
        report.missing(
            &disk.map_or("files".to_owned(), |index| plan.disk_option(index)),
            shared,
        );
        twice.extend(disk);
    }
    // A disk that is used twice is neither locked nor opened.
    for probe in plan.without_disks(&twice).probe(files, rules) {
        match probe.found {
            Ok((found, None)) => report.fine(&probe.option, found),
            Ok((found, Some(doubt))) => report.doubtful(&probe.option, found, &doubt),
            Err(error) => report.missing(&probe.option, error),
        }
    }
}

fn outlets(report: &mut Report, output: &Output, files: &mut Files) {
    if let Some(target) = &output.stats {
        report.passes("stats", StatsFile::probe(target, files), |()| "writable");
    }
    if let Some(address) = &output.metrics {
        let probed = Listener::probe("--metrics", address, files).map_err(metrics::Error::from);
        report.passes("metrics", probed, |()| "can be served");
    }
}

/// Enters the sandbox, which cannot be left: must be the last step. The check for core files needs
/// the identity that the process has afterwards.
fn try_out(
    report: &mut Report,
    sandbox: Sandbox,
    mode: SandboxMode,
    cores: Option<core::Directory>,
) -> Option<()> {
    match report.needs("sandbox", sandbox.try_out()) {
        Some((layers, true)) if mode != SandboxMode::Off => report.fine("sandbox", layers),
        Some((layers, _)) => report.doubtful("sandbox", layers, ""),
        None => return None,
    }
    if let Some(cores) = cores {
        report.passes("dumpcore", cores.check(), |()| "core files can be made");
    }
    Some(())
}
