//! The initial file system of a replay: busybox, which unpacks the Debian into memory and execs its
//! systemd.

use std::path::Path;

use super::STEP_LIMIT;
use super::step::Step;
use crate::base::error::{Result, fail};
use crate::build::fixtures;
use crate::machines::assets::Assets;
use crate::machines::initramfs::{self, Archive, MARK};
use crate::machines::machine::Emulated;

/// Continues when the kernel is ready.
const HAND_OVER: &str = include_str!("hand-over.sh");
/// The service that runs the steps, and its program.
const SERVICE: &str = include_str!("replay.service");
const RUNNER: &str = include_str!("runner.sh");

/// Kernel modules that this Debian loads on demand, as it would from its own kernel package.
const MODULES: [&str; 4] = ["bridge.ko", "stp.ko", "llc.ko", "veth.ko"];

/// The files of the board's owner in root's home: the talk's unit, and a script that lists all
/// files.
const UNIT: &str = include_str!("presentation.service");
const FILES: &str = include_str!("files.sh");

/// The web server, as unikernels were built at the time of the talk, and as today.
const UNIKERNELS: [(&str, &str); 2] = [
    ("presentation_server.hvt", "web-e1.hvt"),
    ("web.hvt", "web.hvt"),
];

/// Packs the initramfs. `root` is the Debian as a tar archive, `deb` the package to be installed.
pub fn pack(
    machine: Emulated,
    assets: &Assets,
    root: &Path,
    deb: &Path,
    steps: &[Step],
) -> Result<Archive> {
    let mut archive = initramfs::starting(machine, assets, HAND_OVER)?;
    for module in MODULES {
        archive.copy(&format!("lib/modules/{module}"), &assets.file(module))?;
    }
    archive.copy("root.tar", root)?;
    archive.dir("overlay");
    for dir in [
        "etc",
        "etc/systemd",
        "etc/systemd/system",
        "replay",
        "replay/steps",
        "root",
    ] {
        archive.dir(&format!("overlay/{dir}"));
    }
    archive.text("overlay/etc/hostname", "raspberrypi\n");
    archive.text(
        "overlay/etc/hosts",
        "127.0.0.1 localhost\n127.0.1.1 raspberrypi\n",
    );
    archive.text("overlay/etc/systemd/system/replay.service", SERVICE);
    let runner = RUNNER
        .replace("@MARK@", MARK)
        .replace("@LIMIT@", &STEP_LIMIT.to_string());
    archive.program("overlay/replay/run", runner.as_bytes());
    for (number, step) in (1..).zip(steps) {
        archive.text(&format!("overlay/replay/steps/{number:02}"), &step.run);
    }
    archive.text("overlay/root/presentation.service", UNIT);
    archive.program("overlay/root/files", FILES.as_bytes());
    let Some(name) = deb.file_name() else {
        return fail(format!("{} is no file", deb.display()));
    };
    archive.copy(&format!("overlay/root/{}", name.to_string_lossy()), deb)?;
    for (name, fixture) in UNIKERNELS {
        archive.copy(
            &format!("overlay/root/{name}"),
            &fixtures::directory(machine.arch()).join(fixture),
        )?;
    }
    Ok(archive)
}
