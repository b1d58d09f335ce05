//! `cargo xtask package-test`: installs, tries and removes the Debian package in a bare Debian 12,
//! and checks that nothing is left; builds it twice, with identical bytes.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::base::error::{Context, Result, fail};
use crate::base::options::Options;
use crate::base::{process, progress};
use crate::build::arch::Arch;
use crate::build::cargo;
use crate::build::fixtures;
use crate::build::packages::{self, Package};
use crate::dist::{self, apt};

const RELEASE: &str = "bookworm";

const TOOLS: &[Package] = &[
    Package::program("mmdebstrap", "mmdebstrap"),
    Package::program("tar", "tar"),
    Package::program("gpg", "gpg"),
    Package::program("gpg-agent", "gpg-agent"),
    Package::program("util-linux", "unshare"),
];

/// The unikernel for `tender inspect`, which is tried without /dev/kvm.
const UNIKERNEL: &str = "web.hvt";

pub fn run(options: &mut Options) -> Result<()> {
    let if_root = options.flag("--if-root");
    options.finish()?;
    if !packages::is_root() {
        let reason = "only root can install packages in a root directory of their own";
        if !if_root {
            return fail(reason);
        }
        println!("package-test: not run, because {reason}");
        return Ok(());
    }
    packages::ensure("trying a package", TOOLS)?;
    let arch = Arch::host()?;
    let package = made_twice(arch)?;
    let archive = bare_debian(arch)?;
    let root = cargo::target_dir().join(format!("lab/package-test.{}", std::process::id()));
    let tried = unpack(&archive, &root).and_then(|()| try_in(&root, &package, arch));
    std::fs::remove_dir_all(&root).context(format_args!("cannot remove {}", root.display()))?;
    tried?;
    println!(
        "package-test: {} installs, works and leaves nothing behind",
        file_name(&package)
    );
    Ok(())
}

/// Builds the package twice; both must have the same bytes.
fn made_twice(arch: Arch) -> Result<PathBuf> {
    let read = |path: &PathBuf| {
        std::fs::read(path).context(format_args!("cannot read {}", path.display()))
    };
    let [_, tarball, package] = dist::packages(arch)?;
    let first = (read(&tarball)?, read(&package)?);
    dist::packages(arch)?;
    if first != (read(&tarball)?, read(&package)?) {
        return fail(format!(
            "{} or the tarball differs when it is made again",
            file_name(&package)
        ));
    }
    Ok(package)
}

/// A minimal Debian, with `man`, kept as an archive. Remove that to get a newer one.
fn bare_debian(arch: Arch) -> Result<PathBuf> {
    let archive = cargo::target_dir().join(format!("lab/debian-{RELEASE}-{}.tar", arch.debian()));
    if archive.exists() {
        return Ok(archive);
    }
    let dir = archive.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).context(format_args!("cannot make {}", dir.display()))?;
    // Renamed when complete, so that a broken download leaves nothing that looks like an archive.
    let fresh = archive.with_extension(format!("{}.tar", std::process::id()));
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--variant=minbase", "--include=man-db", RELEASE])
        .arg(&fresh);
    let made = progress::during("making a bare Debian", || process::output(&mut make));
    let placed = made
        .and_then(|_| std::fs::rename(&fresh, &archive).context("cannot place the bare Debian"));
    let _ = std::fs::remove_file(&fresh);
    placed.map(|()| archive)
}

fn unpack(archive: &Path, root: &Path) -> Result<()> {
    std::fs::create_dir_all(root).context(format_args!("cannot make {}", root.display()))?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--numeric-owner", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(root);
    process::output(&mut tar).map(drop)
}

/// Runs `packaging/debian/test` there, with separate processes, mounts and (no) network.
fn try_in(root: &Path, package: &Path, arch: Arch) -> Result<()> {
    let script = cargo::root().join("packaging/debian/test");
    let unikernel = fixtures::directory(arch).join(UNIKERNEL);
    for file in [package, &script, &unikernel] {
        std::fs::copy(file, root.join("tmp").join(file_name(file)))
            .context(format_args!("cannot copy {}", file.display()))?;
    }
    apt_repository(root, package)?;
    let mut inside = Command::new("unshare");
    inside.args(["--net", "--mount", "--pid", "--fork", "--kill-child"]);
    inside
        .arg(format!("--mount-proc={}", root.join("proc").display()))
        .arg("chroot")
        .arg(root);
    inside.args([
        "/tmp/test",
        &format!("/tmp/{}", file_name(package)),
        &format!("/tmp/{UNIKERNEL}"),
    ]);
    inside
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root");
    process::run(&mut inside).context("the package does not do what it should")
}

/// Makes /tmp/apt there a repository with the package, signed by a key for this test.
fn apt_repository(root: &Path, package: &Path) -> Result<()> {
    let dir = root.join("tmp/apt");
    std::fs::create_dir(&dir).context(format_args!("cannot make {}", dir.display()))?;
    std::fs::copy(package, dir.join(file_name(package))).context("cannot copy the package")?;
    let home = root.join("tmp/gnupg");
    std::fs::create_dir(&home)
        .and_then(|()| std::fs::set_permissions(&home, Permissions::from_mode(0o700)))
        .context("cannot make a directory for gpg")?;
    let name = String::from("package-test");
    let mut gpg = Command::new("gpg");
    gpg.args(["--batch", "--quiet", "--passphrase=", "--homedir"])
        .arg(&home);
    process::output(gpg.args(["--quick-generate-key", &name]))?;
    apt::index(
        &dir,
        Some(&apt::Key {
            name,
            home: Some(home),
        }),
    )
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
