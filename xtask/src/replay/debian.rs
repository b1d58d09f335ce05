//! A small Debian for ARM64, made by mmdebstrap. Its packages are installed and configured as on a
//! board, under emulation. That takes minutes, so it is done once.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::base::error::{Context, Result, fail};
use crate::base::{process, progress};
use crate::build::packages::{self, Package};
use crate::machines::assets;

/// Packages in addition to those of every Debian.
const PACKAGES: [&str; 8] = [
    "systemd-sysv",
    "udev",
    "iproute2",
    "ifupdown",
    "bridge-utils",
    "curl",
    "kmod",
    "procps",
];

/// Memory is the machine's only disk, and these files are not needed.
const OMITTED: [&str; 4] = ["doc", "locale", "man", "zoneinfo"];

const NEEDED: &[Package] = &[
    Package::program("mmdebstrap", "mmdebstrap"),
    Package::program("arch-test", "arch-test"),
    Package::file(
        "debian-archive-keyring",
        "/usr/share/keyrings/debian-archive-keyring.gpg",
    ),
];

/// Directory of the kernel's registered binary formats.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// Returns the Debian as a tar archive, about 190 MB, and makes it if missing. Remove
/// `target/lab/debian-arm64` for a newer one.
pub fn root() -> Result<PathBuf> {
    let dir = assets::lab_dir()?.join("debian-arm64");
    let recipe = arguments().join("\n");
    if !is_whole(&dir, &recipe) {
        let fresh = dir.with_extension(std::process::id().to_string());
        // Renamed when complete, so that a partial one does not look like a Debian.
        let made = make(&fresh, &recipe);
        let _ = made.as_ref().map(|()| std::fs::remove_dir_all(&dir));
        let placed = made.and_then(|()| match std::fs::rename(&fresh, &dir) {
            Err(_) if is_whole(&dir, &recipe) => Ok(()),
            other => other.context(format_args!("cannot place {}", dir.display())),
        });
        let _ = std::fs::remove_dir_all(&fresh);
        placed?;
    }
    Ok(dir.join("root.tar"))
}

/// Whether there is one that was made with exactly this recipe.
fn is_whole(dir: &Path, recipe: &str) -> bool {
    dir.join("root.tar").exists()
        && std::fs::read_to_string(dir.join("recipe")).is_ok_and(|made_by| made_by == recipe)
}

/// The arguments of mmdebstrap, without the output path.
fn arguments() -> Vec<String> {
    let mut arguments = vec!["--arch=arm64".into(), "--variant=minbase".into()];
    arguments.push(format!("--include={}", PACKAGES.join(",")));
    arguments.extend(OMITTED.map(|what| format!("--dpkgopt=path-exclude=/usr/share/{what}/*")));
    // Packages installed later are installed completely.
    arguments.push(r#"--customize-hook=rm "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap"#.into());
    arguments.push("bookworm".into());
    arguments
}

fn make(dir: &Path, recipe: &str) -> Result<()> {
    packages::ensure("making a Debian", NEEDED)?;
    if !packages::is_root() {
        packages::ensure(
            "making a Debian without root",
            &[Package::program("uidmap", "newuidmap")],
        )?;
    }
    if !can_run_arm64() {
        let emulator = [
            Package::program("qemu-user-static", "qemu-aarch64-static"),
            Package::program("binfmt-support", "update-binfmts"),
        ];
        packages::ensure("running ARM64 programs", &emulator)?;
        register_emulator()?;
    }
    std::fs::create_dir_all(dir).context(format_args!("cannot make {}", dir.display()))?;
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(arguments()).arg(dir.join("root.tar"));
    progress::note(
        "making a small Debian for ARM64, once: its packages are configured under emulation",
    );
    progress::during("waiting for mmdebstrap", || process::output(&mut mmdebstrap)).context(if packages::is_root() {
        "no Debian"
    } else {
        "no Debian (without root it takes user namespaces, and an entry for this user in /etc/subuid and in /etc/subgid)"
    })?;
    std::fs::write(dir.join("recipe"), recipe).context("cannot write the recipe down")
}

fn can_run_arm64() -> bool {
    Command::new("arch-test")
        .arg("arm64")
        .output()
        .is_ok_and(|done| done.status.success())
}

/// Makes the kernel run ARM64 programs by QEMU. A machine that booted with the packages installed
/// does that; a container does not.
fn register_emulator() -> Result<()> {
    if packages::is_root() {
        if !Path::new(BINFMT).join("register").exists() {
            process::output(Command::new("mount").args([
                "-t",
                "binfmt_misc",
                "binfmt_misc",
                BINFMT,
            ]))?;
        }
        process::output(Command::new("update-binfmts").args(["--enable", "qemu-aarch64"]))?;
    }
    if can_run_arm64() {
        return Ok(());
    }
    fail(format!(
        "the kernel does not run ARM64 programs by QEMU, as making a Debian for ARM64 needs; have root run: \
         mount -t binfmt_misc binfmt_misc {BINFMT}; update-binfmts --enable qemu-aarch64"
    ))
}
