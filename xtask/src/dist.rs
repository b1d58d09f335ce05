//! `cargo xtask dist`: what a person copies to a machine, one file an architecture.

use std::path::PathBuf;
use std::process::Command;

use crate::arch::Arch;
use crate::cargo;
use crate::elf;
use crate::error::{Context, Result, fail};
use crate::options::Options;
use crate::process;
use crate::progress;
use crate::toolchain::StaticToolchain;

/// What the binary may weigh: it is copied over slow links to small machines.
const LIMIT: usize = 2 << 20;

pub fn run(options: &mut Options) -> Result<()> {
    let only = options.value("--arch")?.map(|name| Arch::parse(&name)).transpose()?;
    options.finish()?;
    for arch in Arch::ALL.into_iter().filter(|arch| only.is_none_or(|only| only == *arch)) {
        let path = binary(arch)?;
        let size = std::fs::metadata(&path).context("cannot look at the binary")?.len();
        println!("target/dist/{}: static, {} KiB", file_name(arch), size.div_ceil(1024));
    }
    checksums()
}

/// Builds the release binary of this architecture, checks it and puts it in its place.
pub fn binary(arch: Arch) -> Result<PathBuf> {
    let toolchain = StaticToolchain::choose(arch)?;
    progress::note(format_args!("building tender for {}", toolchain.describe()));
    let mut build = cargo::cargo("build");
    build.args(["--release", "--package", "tender", "--bin", "tender"]);
    toolchain.apply(&mut build);
    let built = cargo::build(&mut build)?;
    let Some(made) = built.iter().find(|b| b.name == "tender") else {
        return fail("cargo named no binary 'tender' among what it built");
    };
    let bytes = std::fs::read(&made.path).context(format_args!("cannot read {}", made.path.display()))?;
    elf::check_static(&bytes, arch).context(format_args!("{} is not static", made.path.display()))?;
    if bytes.len() > LIMIT {
        return fail(format!(
            "tender for {} has {} bytes, more than the {LIMIT} it may have",
            arch.name(),
            bytes.len()
        ));
    }
    let dir = cargo::target_dir().join("dist");
    std::fs::create_dir_all(&dir).context(format_args!("cannot make {}", dir.display()))?;
    let path = dir.join(file_name(arch));
    // Copied aside and renamed, as a tender started from there may be running.
    let aside = dir.join(format!(".{}.{}", file_name(arch), std::process::id()));
    std::fs::copy(&made.path, &aside).context(format_args!("cannot write {}", aside.display()))?;
    std::fs::rename(&aside, &path).context(format_args!("cannot write {}", path.display()))?;
    Ok(path)
}

fn file_name(arch: Arch) -> String {
    format!("tender-{}", arch.name())
}

/// `SHA256SUMS` beside the binaries, as `sha256sum --check` reads it.
fn checksums() -> Result<()> {
    let dir = cargo::target_dir().join("dist");
    let names = Arch::ALL.map(file_name).into_iter().filter(|name| dir.join(name).exists());
    let sums = process::output(Command::new("sha256sum").args(names).current_dir(&dir))?;
    std::fs::write(dir.join("SHA256SUMS"), sums).context("cannot write target/dist/SHA256SUMS")
}
