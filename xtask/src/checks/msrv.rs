//! `cargo xtask msrv`: checks that everything builds with the `rust-version` of `Cargo.toml`.
//!
//! The compiler is an installed one, or Debian's, unpacked under `target/msrv/` and not installed,
//! as it would replace a newer one. Cargo is the one that runs this program; it accepts any
//! compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::base::error::{Context, Result, fail};
use crate::base::options::Options;
use crate::base::{process, progress};
use crate::build::arch::Arch;
use crate::build::{cargo, packages};

/// `rust-version` of the workspace.
const RUST: &str = env!("CARGO_PKG_RUST_VERSION");

/// Debian's package of the compiler, which `apt` may have in several versions.
const COMPILER: &str = "rustc-web";

/// Libraries of Debian's compiler that not every Debian has. They are unpacked next to it, so that
/// nothing is installed.
const LIBRARIES: &[&str] = &[
    "libllvm19",
    "libbsd0",
    "libedit2",
    "libffi8",
    "libicu72",
    "libmd0",
    "libtinfo6",
    "libxml2",
    "libz3-4",
];

pub fn run(options: &mut Options) -> Result<()> {
    let if_available = options.flag("--if-available");
    options.finish()?;
    let compiler = match Compiler::find() {
        Ok(compiler) => compiler,
        Err(reason) if if_available => {
            println!("msrv: not checked, because {reason}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    progress::note(format_args!(
        "checking the workspace with {} ({})",
        compiler.version,
        compiler.rustc.display()
    ));
    let mut check = cargo::cargo("check");
    check.args(["--workspace", "--all-targets", "--locked"]);
    // A separate directory: with another compiler, cargo would rebuild everything else.
    check.env("CARGO_TARGET_DIR", dir().join("build"));
    compiler.apply(&mut check);
    process::run(&mut check).context(format_args!(
        "the workspace does not build with {}",
        compiler.version
    ))?;
    println!(
        "msrv: lib, binaries and tests build with {}",
        compiler.version
    );
    Ok(())
}

fn dir() -> PathBuf {
    cargo::target_dir().join("msrv")
}

/// A compiler of the required version.
struct Compiler {
    rustc: PathBuf,
    /// Directory of its shared libraries, if it does not find them.
    libraries: Vec<PathBuf>,
    /// Its own version string.
    version: String,
}

impl Compiler {
    fn find() -> Result<Self> {
        let there = installed()
            .into_iter()
            .filter_map(|rustc| Compiler::try_out(rustc, Vec::new()).ok());
        there
            .into_iter()
            .find(|compiler| is_wanted(&compiler.version))
            .map_or_else(Compiler::from_debian, Ok)
    }

    /// Returns a compiler with its version, or why it does not run.
    fn try_out(rustc: PathBuf, libraries: Vec<PathBuf>) -> Result<Self> {
        let mut compiler = Compiler {
            rustc,
            libraries,
            version: String::new(),
        };
        let mut asked = Command::new(&compiler.rustc);
        compiler.apply(asked.arg("--version"));
        compiler.version = process::output(&mut asked)?.trim().to_string();
        Ok(compiler)
    }

    /// Returns the one in `target/msrv/`, downloaded if missing. Remove the directory to get it
    /// again.
    fn from_debian() -> Result<Self> {
        let place = dir().join("debian");
        if !place.exists() {
            let fresh = dir().join(format!("debian.{}", std::process::id()));
            let made = unpack(&fresh);
            // Renamed when complete, so that a broken download leaves nothing that looks like a
            // compiler.
            let placed = made.and_then(|()| {
                std::fs::rename(&fresh, &place).context("cannot place the compiler of Debian")
            });
            let _ = std::fs::remove_dir_all(&fresh);
            placed?;
        }
        let lib = place.join("usr/lib");
        let libraries = vec![lib.join(format!("{}-linux-gnu", Arch::host()?.name())), lib];
        let compiler = Compiler::try_out(place.join("usr/bin/rustc"), libraries).context(
            format_args!("{COMPILER} as unpacked in {} does not run", place.display()),
        )?;
        if is_wanted(&compiler.version) {
            return Ok(compiler);
        }
        fail(format!(
            "{} is {}, not Rust {RUST}; remove it and try again",
            place.display(),
            compiler.version
        ))
    }

    /// Makes a command use it: cargo, or the compiler itself.
    fn apply(&self, command: &mut Command) {
        command.env("RUSTC", &self.rustc);
        if !self.libraries.is_empty() {
            let paths: Vec<String> = self
                .libraries
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            command.env("LD_LIBRARY_PATH", paths.join(":"));
        }
    }
}

/// Whether `version`, as in `rustc 1.85.0 (…)`, is the required one.
fn is_wanted(version: &str) -> bool {
    version.strip_prefix("rustc ").is_some_and(is_of_series)
}

/// Whether a version is the required one, with any patch number and packager's suffix.
fn is_of_series(version: &str) -> bool {
    version
        .strip_prefix(RUST)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Compilers on this machine that may have that version. Those of rustup are searched as files: run
/// by name, rustup might download one.
/// might download one.
fn installed() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let rustup =
        std::env::var_os("RUSTUP_HOME").map_or_else(|| home.join(".rustup"), PathBuf::from);
    let toolchains = std::fs::read_dir(rustup.join("toolchains"))
        .into_iter()
        .flatten()
        .flatten();
    let named = toolchains.filter(|entry| is_of_series(&entry.file_name().to_string_lossy()));
    named
        .map(|entry| entry.path().join("bin/rustc"))
        .chain(["rustc".into(), "/usr/bin/rustc".into()])
        .collect()
}

/// Downloads the compiler, its std and its libraries, and unpacks them in `place`.
fn unpack(place: &Path) -> Result<()> {
    let arch = Arch::host()?.debian();
    let known = packages::versions(COMPILER).context(format_args!(
        "checking with Rust {RUST} needs the Debian package {COMPILER}"
    ))?;
    let Some(version) = known.iter().find(|version| is_of_series(version)) else {
        return fail(format!(
            "checking with Rust {RUST} needs the Debian package {COMPILER} {RUST}.*, of which apt knows {}; \
             have root run: apt-get update",
            if known.is_empty() {
                "none".into()
            } else {
                known.join(" and ")
            }
        ));
    };
    let downloads = place.join("download");
    std::fs::create_dir_all(&downloads)
        .context(format_args!("cannot make {}", downloads.display()))?;
    let std_of_it = format!("libstd-rust-web-{RUST}");
    for name in [COMPILER, "libstd-rust-web-dev", &std_of_it] {
        packages::download_version(name, arch, Some(version), &downloads)?;
    }
    for name in LIBRARIES {
        packages::download(name, arch, &downloads)?;
    }
    for entry in std::fs::read_dir(&downloads)
        .into_iter()
        .flatten()
        .flatten()
    {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg("-x").arg(entry.path()).arg(place);
        progress::during("unpacking the compiler", || process::output(&mut dpkg))?;
    }
    std::fs::remove_dir_all(downloads).context("cannot remove the packages")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_required_version_is_accepted() {
        assert!(is_wanted(&format!(
            "rustc {RUST}.0 (4d91de4e4 2025-02-17) (built from a source tarball)"
        )));
        for other in ["rustc 1.8.5", "rustc 1.96.0 (x)", "cargo 1.85.0", ""] {
            assert!(!is_wanted(other), "{other}");
        }
        assert!(!is_of_series(&format!("{RUST}0.0")));
        assert!(is_of_series(&format!("{RUST}.1-x86_64-unknown-linux-gnu")));
        assert!(is_of_series(&format!("{RUST}.0+dfsg3-1~deb12u3")));
    }
}
