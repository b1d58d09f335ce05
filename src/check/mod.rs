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

use kvm_ioctls::VmFd;

use crate::config::{Config, SandboxMode, UserOption};
use crate::debug::{self, core};
use crate::devices::Plan;
use crate::guest::boot_info::{self, BootFacts};
use crate::guest::era::Era;
use crate::guest::image::Image;
use crate::guest::manifest::Manifest;
use crate::host::files::{Files, Need};
use crate::host::unix_socket::Listener;
use crate::host::user;
use crate::metrics::{self, StatsFile};
use crate::report::counters::Count;
use crate::sandbox::{self, Root, Sandbox};
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
    let mut report = Report::new(config.unikernel.display().to_string());
    let mut guest = unikernel(&mut report, config, files);
    let vm = kvm(&mut report, config);
    memory(&mut report, config, guest.as_mut(), vm.as_ref());
    arguments(&mut report, config);
    devices(&mut report, config, guest.as_ref(), files);
    outlets(&mut report, config, files);
    let cores = report
        .needs("dumpcore", core::Directory::open(config, files))
        .flatten();
    debugger(&mut report, config, files);
    let user = identity(&mut report, config, files);
    let root = root(&mut report, config, files);
    sandbox(&mut report, config, user, root, cores);
    report
}

fn unikernel(report: &mut Report, config: &Config, files: &mut Files) -> Option<Guest> {
    let path = config.unikernel.display();
    let examined = setup::examine(files.take(&config.unikernel, Need::Read));
    let (file, mut image) = examined
        .map_err(|error| report.missing("unikernel", format_args!("{path}: {error}")))
        .ok()?;
    report.fine(
        "unikernel",
        format_args!("{}, {}", image.machine, image.era),
    );
    let manifest = report.needs("devices", setup::manifest(&mut image, config));
    Some(Guest {
        file,
        image,
        manifest,
    })
}

fn kvm(report: &mut Report, config: &Config) -> Option<VmFd> {
    let (vm, vcpu) = report.needs("KVM", setup::create_vm(config.sandbox))?;
    let frequency = report.needs("KVM", vcpu.counter_frequency())?;
    report.fine(
        "KVM",
        format_args!(
            "can create a virtual machine; counter of {} kHz",
            frequency / 1000
        ),
    );
    Some(vm)
}

/// Reserves, fills and maps memory as a start would. This also proves that the file is readable to
/// its end.
fn memory(report: &mut Report, config: &Config, guest: Option<&mut Guest>, vm: Option<&VmFd>) {
    let size = match &guest {
        Some(guest) => report.needs("memory", setup::memory_size(config.memory, &guest.image)),
        None => Some(config.memory.given),
    };
    let Some(size) = size else { return };
    let Some(mut memory) = report.needs("memory", setup::reserve(size, config.limits.lock_memory))
    else {
        return;
    };
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
        if report
            .needs("memory", setup::fill(&mut memory, file, image, &facts))
            .is_none()
        {
            return;
        }
    }
    // KVM errors are already reported.
    let mapped = vm.map(|vm| setup::map_memory(vm, &memory));
    if report.needs("memory", mapped.unwrap_or(Ok(()))).is_none() {
        return;
    }
    let locked = if config.limits.lock_memory {
        ", all of it locked in RAM"
    } else {
        ""
    };
    let given = format!("{} MiB{locked}", size >> 20);
    match available_memory() {
        Some(available) if available < size && !config.limits.lock_memory => report.doubtful(
            "memory",
            format!(
                "{given}, but only {} MiB are available; free some or lower --mem",
                available >> 20
            ),
        ),
        _ => report.fine("memory", given),
    }
}

/// Returns the memory that the host can allocate without swapping, in bytes, if the kernel reports
/// it.
fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

fn arguments(report: &mut Report, config: &Config) {
    if let Some(cmdline) = report.needs("arguments", boot_info::cmdline(&config.arguments)) {
        report.fine(
            "arguments",
            format!("{} of 8191", Count(cmdline.len() as u64 - 1, "byte")),
        );
    }
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
                errors
                    .into_iter()
                    .for_each(|error| report.missing("devices", error));
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
            shared.without_device(),
        );
        twice.extend(disk);
    }
    // A disk that is used twice is neither locked nor opened.
    for probe in plan.without_disks(&twice).probe(files, rules) {
        match probe.found {
            Ok((found, None)) => report.fine(&probe.option, found),
            Ok((found, Some(doubt))) => report.doubtful(&probe.option, format!("{found}; {doubt}")),
            Err(error) => report.missing(&probe.option, error),
        }
    }
}

fn outlets(report: &mut Report, config: &Config, files: &mut Files) {
    if let Some(target) = &config.output.stats {
        if report
            .needs("stats", StatsFile::probe(target, files))
            .is_some()
        {
            report.fine("stats", "writable");
        }
    }
    if let Some(address) = &config.output.metrics {
        let probed = Listener::probe("--metrics", address, files).map_err(metrics::Error::from);
        if report.needs("metrics", probed).is_some() {
            report.fine("metrics", "can be served");
        }
    }
}

fn identity(report: &mut Report, config: &Config, files: &mut Files) -> Option<UserOption> {
    let option = config.user.clone()?;
    let found = files.check_user().and_then(|()| user::permitted(&option));
    let found = report.needs("user", found)?;
    report.fine("user", format!("user {}, group {}", found.uid, found.gid));
    Some(option)
}

fn root(report: &mut Report, config: &Config, files: &mut Files) -> Option<Root> {
    let path = config.chroot.as_ref()?;
    let root = report.needs("chroot", sandbox::root(path, files))?;
    report.fine("chroot", path.display());
    Some(root)
}

fn debugger(report: &mut Report, config: &Config, files: &mut Files) {
    let Some(address) = setup::gdb_address(config) else {
        return;
    };
    if let Some(place) = report.needs("gdb", debug::Listener::probe(&address, files)) {
        report.fine("gdb", format_args!("can connect at {place}"));
    }
}

/// Enters the sandbox, which cannot be left: must be the last step. The check for core files needs
/// the identity that the process has afterwards.
fn sandbox(
    report: &mut Report,
    config: &Config,
    user: Option<UserOption>,
    root: Option<Root>,
    cores: Option<core::Directory>,
) {
    // Errors of these are already reported.
    let possible = Config {
        user,
        chroot: None,
        ..config.clone()
    };
    let tried = Sandbox::new(&possible).and_then(|sandbox| sandbox.in_root(root).try_out());
    match report.needs("sandbox", tried) {
        Some((layers, true)) if config.sandbox != SandboxMode::Off => {
            report.fine("sandbox", layers)
        }
        Some((layers, _)) => report.doubtful("sandbox", layers),
        None => return,
    }
    // Under another user, the result would not be that of a start.
    if let Some(cores) = cores.filter(|_| possible.user == config.user) {
        if report.needs("dumpcore", cores.check()).is_some() {
            report.fine("dumpcore", "core files can be made");
        }
    }
}
