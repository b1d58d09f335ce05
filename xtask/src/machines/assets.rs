//! Files of an emulated machine: Debian's kernel, modules, device tree and busybox, unpacked, not
//! installed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::base::error::{Context, Result, fail};
use crate::base::{process, progress};
use crate::build::arch::Arch;
use crate::build::packages::Package;
use crate::build::{cargo, packages};

/// A directory with `vmlinuz`, `busybox`, `modules/*.ko` and the device trees.
pub struct Assets {
    dir: PathBuf,
}

impl Assets {
    /// Returns those in `target/lab/`, downloaded if missing. Remove the directory to get newer
    /// ones.
    pub fn get(arch: Arch) -> Result<Self> {
        let other = other_kernel(arch)?;
        // Each kernel has a separate directory, named after its package.
        let name = other
            .as_deref()
            .and_then(Path::file_stem)
            .unwrap_or(OsStr::new(arch.name()));
        let dir = lab_dir()?.join(name);
        if !is_whole(arch, &dir) {
            // A directory of an older version of this program may lack files that this one needs.
            let _ = std::fs::remove_dir_all(&dir);
            let fresh = lab_dir()?.join(format!("{}.{}", arch.name(), std::process::id()));
            let made = make(arch, other.as_deref(), &fresh);
            // Renamed when complete, so that a broken download leaves nothing that looks like a
            // machine.
            let placed = made.and_then(|()| match std::fs::rename(&fresh, &dir) {
                Err(_) if is_whole(arch, &dir) => Ok(()),
                other => other.context(format_args!("cannot place {}", dir.display())),
            });
            let _ = std::fs::remove_dir_all(&fresh);
            placed?;
        }
        Ok(Assets { dir })
    }

    /// Returns the path of a file in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn is_whole(arch: Arch, dir: &Path) -> bool {
    let (_, wanted) = kernel(arch);
    wanted
        .iter()
        .chain(&["vmlinuz", "busybox"])
        .all(|name| dir.join(name).exists())
}

/// Directory for downloads and images of the emulated machines.
pub fn lab_dir() -> Result<PathBuf> {
    let dir = cargo::target_dir().join("lab");
    std::fs::create_dir_all(&dir).context(format_args!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Environment variable with a kernel package, a file, that machines of its architecture boot
/// instead of this Debian's kernel.
const OTHER_KERNEL: &str = "TENDER_LAB_KERNEL";

/// Returns the file of [`OTHER_KERNEL`], if it is for this architecture.
fn other_kernel(arch: Arch) -> Result<Option<PathBuf>> {
    let Some(path) = std::env::var_os(OTHER_KERNEL).map(PathBuf::from) else {
        return Ok(None);
    };
    let wanted = format!("_{}.deb", arch.debian());
    if !path.is_file() || !path.to_string_lossy().ends_with(&wanted) {
        return fail(format!(
            "{OTHER_KERNEL}={}: give a kernel package, a file NAME{wanted}",
            path.display()
        ));
    }
    Ok(Some(path))
}

/// Returns the kernel package, and the files needed of it (by the end of their path).
fn kernel(arch: Arch) -> (&'static str, &'static [&'static str]) {
    match arch {
        Arch::Aarch64 => (
            "linux-image-arm64",
            &[
                "tun.ko",
                "bcm2835-rng.ko",
                "bcm2835_wdt.ko",
                "bcm2837-rpi-3-b.dtb",
                // Modules that a Debian with a bridge loads automatically.
                "bridge.ko",
                "stp.ko",
                "llc.ko",
                "veth.ko",
            ],
        ),
        // The cloud kernel is half the size and has everything needed.
        Arch::X86_64 => (
            "linux-image-cloud-amd64",
            &["irqbypass.ko", "kvm.ko", "kvm-amd.ko", "tun.ko"],
        ),
    }
}

fn make(arch: Arch, other: Option<&Path>, dir: &Path) -> Result<()> {
    let (meta, wanted) = kernel(arch);
    let downloads = dir.join("download");
    let unpacked = dir.join("unpacked");
    std::fs::create_dir_all(&unpacked)
        .context(format_args!("cannot make {}", unpacked.display()))?;
    std::fs::create_dir_all(&downloads)
        .context(format_args!("cannot make {}", downloads.display()))?;
    match other {
        Some(deb) => std::fs::copy(deb, downloads.join("kernel.deb"))
            .map(drop)
            .context("cannot copy the kernel")?,
        None => packages::download(
            &packages::first_dependency(meta, arch.debian())?,
            arch.debian(),
            &downloads,
        )?,
    }
    packages::download("busybox-static", arch.debian(), &downloads)?;
    for deb in files_below(&downloads) {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg("-x").arg(&deb).arg(&unpacked);
        progress::during("unpacking the kernel package", || {
            process::output(&mut dpkg)
        })?;
    }
    let files = files_below(&unpacked);
    keep(&files, "/bin/busybox", &dir.join("busybox"))?;
    for name in wanted {
        keep(&files, &format!("/{name}"), &dir.join(name))?;
    }
    let vmlinuz = files
        .iter()
        .find(|f| f.to_string_lossy().contains("/boot/vmlinuz-"));
    let vmlinuz = vmlinuz.map_or_else(|| fail("the kernel package has no /boot/vmlinuz"), Ok)?;
    std::fs::rename(vmlinuz, dir.join("vmlinuz")).context("cannot keep the kernel")?;
    let _ = std::fs::remove_dir_all(unpacked);
    std::fs::remove_dir_all(downloads).context("cannot remove the packages")
}

/// Keeps the file whose path ends with `ending`, or unpacks it if `.xz` follows, as for modules
/// since Debian 13.
fn keep(files: &[PathBuf], ending: &str, to: &Path) -> Result<()> {
    let find = |ending: &str| {
        files
            .iter()
            .find(|file| file.to_string_lossy().ends_with(ending))
    };
    let file = match (find(ending), find(&format!("{ending}.xz"))) {
        (Some(file), _) => file.clone(),
        (None, Some(packed)) => {
            packages::ensure(
                "unpacking kernel modules",
                &[Package::program("xz-utils", "xz")],
            )?;
            process::output(Command::new("xz").arg("--decompress").arg(packed))?;
            packed.with_extension("")
        }
        (None, None) => {
            return fail(format!(
                "the Debian packages have no {ending}; remove target/lab and try again"
            ));
        }
    };
    std::fs::rename(file, to).context(format_args!("cannot keep {}", to.display()))
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}
