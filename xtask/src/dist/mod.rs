//! `cargo xtask dist`: the files to copy or install: for each architecture a static binary, a
//! tarball and a Debian package. Two builds from one commit by one compiler are identical.

pub mod apt;
mod archive;
mod contents;
mod epoch;
mod licences;
mod links;
pub mod opam;
pub mod package_test;
mod tree;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::base::error::{Context, Result, fail};
use crate::base::options::Options;
use crate::base::process;
use crate::base::progress;
use crate::build::arch::Arch;
use crate::build::cargo;
use crate::build::elf;
use crate::build::packages::{self, Package};
use crate::build::toolchain::StaticToolchain;

/// Largest size of the binary: it is copied over slow links to small machines.
const LIMIT: usize = 2_000_000;

/// Least code, in bytes, that `xtask/start.ld` must place; it was 318 KB for ARM64 when this was
/// written.
const START: u64 = 200 << 10;

/// The version of the workspace, and so of tender.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

const PACKERS: &[Package] = &[
    Package::program("dpkg", "dpkg-deb"),
    Package::program("tar", "tar"),
    Package::program("gzip", "gzip"),
];

/// The sources of one architecture's packages.
struct Sources {
    arch: Arch,
    binary: Vec<u8>,
    /// Directory of the manual pages and completions.
    manual: PathBuf,
    /// Crates in the binary, other than tender.
    licences: String,
    /// The time of all files in them.
    epoch: u64,
}

pub fn run(options: &mut Options) -> Result<()> {
    let only = options
        .value("--arch")?
        .map(|name| Arch::parse(&name))
        .transpose()?;
    options.finish()?;
    for arch in Arch::ALL
        .into_iter()
        .filter(|arch| only.is_none_or(|only| only == *arch))
    {
        for path in packages(arch)? {
            let size = std::fs::metadata(&path)
                .context(format_args!("cannot look at {}", path.display()))?
                .len();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            println!("target/dist/{name}: {} KiB", size.div_ceil(1024));
        }
    }
    Ok(())
}

/// Builds everything for one architecture: binary, tarball, Debian package.
pub fn packages(arch: Arch) -> Result<[PathBuf; 3]> {
    packages::ensure("making packages", PACKERS)?;
    let binary_path = binary(arch)?;
    let epoch = epoch::epoch()?;
    let sources = Sources {
        arch,
        binary: std::fs::read(&binary_path)
            .context(format_args!("cannot read {}", binary_path.display()))?,
        manual: manual(epoch)?,
        licences: licences::third_party(&StaticToolchain::choose(arch)?.triple)?,
        epoch,
    };
    let paths = contents::file_names(arch).map(|name| dir().join(name));
    remove_other_versions(arch)?;
    archive::tarball(&sources, &paths[1])?;
    archive::debian(&sources, &paths[2])?;
    checksums()?;
    Ok(paths)
}

/// Removes the packages of other versions: `tender_*.deb` in the README must name one file.
fn remove_other_versions(arch: Arch) -> Result<()> {
    let [_, tarball, deb] = contents::file_names(arch);
    let endings = [
        format!("-{}.tar.gz", arch.name()),
        format!("_{}.deb", arch.debian()),
    ];
    let files = std::fs::read_dir(dir()).context("cannot list target/dist")?;
    for file in files.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let is_package =
            name.starts_with("tender") && endings.iter().any(|end| name.ends_with(end));
        if is_package && ![&tarball, &deb].contains(&&name) {
            std::fs::remove_file(file.path())
                .context(format_args!("cannot remove target/dist/{name}"))?;
        }
    }
    Ok(())
}

/// Runs `manual/` to write its pages and completions; returns their directory.
fn manual(epoch: u64) -> Result<PathBuf> {
    let dir = cargo::target_dir().join("manual");
    let _ = std::fs::remove_dir_all(&dir);
    let mut manual = cargo::cargo("run");
    manual
        .args(["--quiet", "--locked", "--package", "manual", "--"])
        .arg(&dir)
        .arg(epoch::date(epoch, "%F")?);
    process::run(&mut manual).context("the manual cannot be written")?;
    Ok(dir)
}

/// Builds the release binary of this architecture, checks it and moves it to its path.
pub fn binary(arch: Arch) -> Result<PathBuf> {
    let toolchain = StaticToolchain::choose(arch)?;
    progress::note(format_args!("building tender for {}", toolchain.describe()));
    let mut build = cargo::cargo("build");
    build.args(["--release", "--package", "tender-vmm", "--bin", "tender"]);
    toolchain.apply_for_release(&mut build);
    let made = cargo::program(&mut build, "tender")?;
    let bytes = std::fs::read(&made).context(format_args!("cannot read {}", made.display()))?;
    elf::check_static(&bytes, arch).context(format_args!("{} is not static", made.display()))?;
    let together = elf::section_size(&bytes, ".text.start")?.unwrap_or(0);
    if together < START {
        return fail(format!(
            "of tender for {}, xtask/start.ld places {together} bytes of code together, and {START} at least should be; \
             run 'cargo xtask layout'",
            arch.name()
        ));
    }
    if bytes.len() > LIMIT {
        return fail(format!(
            "tender for {} has {} bytes, more than the {LIMIT} it may have",
            arch.name(),
            bytes.len()
        ));
    }
    let [name, ..] = contents::file_names(arch);
    place(&made, &name)
}

/// Copies it under another name, then renames it, as a tender may be running from the old file.
fn place(made: &Path, name: &str) -> Result<PathBuf> {
    let dir = dir();
    std::fs::create_dir_all(&dir).context(format_args!("cannot make {}", dir.display()))?;
    let path = dir.join(name);
    let aside = dir.join(format!(".{name}.{}", std::process::id()));
    // The checksums of the old files are wrong from now on; packages get new ones.
    let _ = std::fs::remove_file(dir.join(SUMS));
    std::fs::copy(made, &aside).context(format_args!("cannot write {}", aside.display()))?;
    std::fs::rename(&aside, &path).context(format_args!("cannot write {}", path.display()))?;
    Ok(path)
}

fn dir() -> PathBuf {
    cargo::target_dir().join("dist")
}

const SUMS: &str = "SHA256SUMS";

/// Writes [`SUMS`] next to the files, in the format of `sha256sum --check`.
fn checksums() -> Result<()> {
    let names = Arch::ALL
        .into_iter()
        .flat_map(contents::file_names)
        .filter(|name| dir().join(name).exists());
    let sums = process::output(Command::new("sha256sum").args(names).current_dir(dir()))?;
    std::fs::write(dir().join(SUMS), sums).context("cannot write target/dist/SHA256SUMS")
}
