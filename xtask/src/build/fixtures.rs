//! `cargo xtask fixtures`: builds the test unikernels for both architectures into `fixtures/bin/`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::base::error::{Context, Result, fail};
use crate::base::options::Options;
use crate::base::progress;
use crate::build::arch::Arch;
use crate::build::cargo::{self, Built};
use crate::build::toolchain::GuestToolchain;

/// The file with the compiler versions of the built files. Another compiler produces other bytes,
/// which is no error.
const RECORD: &str = "BUILT-WITH";

pub fn run(options: &mut Options) -> Result<()> {
    let check = options.flag("--check");
    options.finish()?;
    let toolchain = GuestToolchain::choose()?;
    let built = build(&toolchain)?;
    let versions = toolchain.versions()?;
    if check {
        compare(&built, &versions)
    } else {
        place(&built, &versions)
    }
}

/// A built unikernel and its path in the repository.
struct Unikernel {
    made: PathBuf,
    place: PathBuf,
}

fn build(toolchain: &GuestToolchain) -> Result<Vec<Unikernel>> {
    progress::note("building the test unikernels, and Rust's core with them");
    let mut command = cargo::cargo("build");
    let workspace = cargo::root().join("fixtures");
    command
        .args(["--release", "--locked"])
        .env("CARGO_TARGET_DIR", workspace.join("target"));
    // Cargo reads its .cargo/config.toml, which has the flags, only inside that directory.
    command.current_dir(workspace);
    toolchain.apply(&mut command);
    let unikernels: Vec<Unikernel> = cargo::build(&mut command)?
        .into_iter()
        .filter_map(unikernel)
        .collect();
    if unikernels.is_empty() {
        fail("cargo named no unikernel among what it built")
    } else {
        Ok(unikernels)
    }
}

/// Derives the architecture from cargo's output directory.
fn unikernel(built: Built) -> Option<Unikernel> {
    let of = |arch: &Arch| {
        built
            .path
            .iter()
            .any(|part| part == GuestToolchain::triple(*arch))
    };
    let arch = Arch::ALL.into_iter().find(of)?;
    let place = directory(arch).join(format!("{}.hvt", built.name));
    Some(Unikernel {
        made: built.path,
        place,
    })
}

/// Directory of the built unikernels of this architecture.
pub fn directory(arch: Arch) -> PathBuf {
    bin().join(arch.name())
}

fn bin() -> PathBuf {
    cargo::root().join("fixtures/bin")
}

fn place(unikernels: &[Unikernel], versions: &str) -> Result<()> {
    for unikernel in unikernels {
        let dir = unikernel.place.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir).context(format_args!("cannot make {}", dir.display()))?;
        // Only files that differ are written, so that the times of the others stay.
        let fresh = read(&unikernel.made)?;
        if fs::read(&unikernel.place).ok().as_ref() != Some(&fresh) {
            fs::copy(&unikernel.made, &unikernel.place)
                .context(format_args!("cannot write {}", unikernel.place.display()))?;
            println!("{}: {} bytes", shown(&unikernel.place), fresh.len());
        }
    }
    fs::write(bin().join(RECORD), versions)
        .context(format_args!("cannot write fixtures/bin/{RECORD}"))?;
    println!("fixtures: {} unikernels built", unikernels.len());
    Ok(())
}

fn compare(unikernels: &[Unikernel], versions: &str) -> Result<()> {
    let mut different = Vec::new();
    for unikernel in unikernels {
        if fs::read(&unikernel.place).ok() != Some(read(&unikernel.made)?) {
            different.push(shown(&unikernel.place));
        }
    }
    let names = different.join(", ");
    let recorded = fs::read_to_string(bin().join(RECORD)).unwrap_or_default();
    if different.is_empty() {
        println!("fixtures: {} unikernels are as committed", unikernels.len());
    } else if recorded == versions {
        return fail(format!(
            "{names} differ(s) from the sources; run 'cargo xtask fixtures' and commit"
        ));
    } else {
        println!("fixtures: warning: {names} differ(s), but so does the compiler: now");
        println!("{versions}committed ones:\n{recorded}");
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(format_args!("cannot read {}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(cargo::root())
        .unwrap_or(path)
        .display()
        .to_string()
}
