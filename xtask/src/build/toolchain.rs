//! Choice of compilers: rustup's targets if installed, otherwise Debian's rustc-web.
//!
//! Nothing here lets rustup download: that is the user's decision.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::base::error::{Result, fail};
use crate::base::process;
use crate::build::arch::Arch;
use crate::build::packages::{self, Brings, Package};

/// Debian's rustc-web installs here, in addition to a rustup in the user's home.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A compiler and a target whose programs run on any Linux of that architecture, without a library.
#[derive(Debug)]
pub struct StaticToolchain {
    pub triple: String,
    /// Set if it is not cargo's default compiler.
    rustc: Option<PathBuf>,
    /// GNU prefix of the C compiler and linker, empty for the machine's own architecture.
    c_prefix: &'static str,
}

impl StaticToolchain {
    pub fn choose(arch: Arch) -> Result<Self> {
        packages::ensure(
            &format!("building for {}", arch.name()),
            &Self::packages(arch)?,
        )?;
        let c_prefix = if Arch::host()? == arch {
            ""
        } else {
            cross_prefix(arch)
        };
        if let Some(triple) = rustups_triple(arch)? {
            return Ok(StaticToolchain {
                triple,
                rustc: None,
                c_prefix,
            });
        }
        let triple = format!("{}-unknown-linux-gnu", arch.name());
        if !has_target(&sysroot(Path::new(DEBIAN_RUSTC))?, &triple) {
            return fail(format!(
                "{DEBIAN_RUSTC} has no std for {triple}; its package is {}",
                debian_std(arch)[1].name
            ));
        }
        Ok(StaticToolchain {
            triple,
            rustc: Some(DEBIAN_RUSTC.into()),
            c_prefix,
        })
    }

    /// All packages that it needs, so that missing ones are reported, or installed, together.
    pub fn packages(arch: Arch) -> Result<Vec<Package>> {
        let mut wanted = c_packages(arch, Arch::host()? == arch).to_vec();
        if rustups_triple(arch)?.is_none() {
            wanted.extend(debian_std(arch));
        }
        Ok(wanted)
    }

    /// Adds compiler, target and flags to a cargo command that builds a release.
    pub fn apply_for_release(&self, cargo: &mut Command) {
        let map = format!("-Clink-arg=-Wl,-Map={}", self.map().display());
        // Otherwise the C start-up files refer to these tables, and tests unwind.
        let scripts = if self.triple.starts_with(Arch::X86_64.name()) {
            &["xtask/unwind.ld"][..]
        } else {
            &[]
        };
        self.apply_with(cargo, scripts, &[map]);
    }

    /// Adds compiler, target and flags to a cargo command.
    pub fn apply(&self, cargo: &mut Command) {
        self.apply_with(cargo, &[], &[]);
    }

    /// Adds compiler, target and flags to a cargo command for a program without a C library.
    pub fn apply_bare(&self, cargo: &mut Command) {
        let flags = [
            "-Crelocation-model=static",
            "-Clink-arg=-nostartfiles",
            "-Clink-arg=-nostdlib",
            "-Clink-arg=-Wl,-z,max-page-size=4096",
        ];
        self.apply_with(cargo, &[], &flags.map(String::from));
    }

    /// The linker's list of the sections of the latest release.
    pub fn map(&self) -> PathBuf {
        crate::build::cargo::target_dir().join(format!("{}.map", self.triple))
    }

    fn apply_with(&self, cargo: &mut Command, scripts: &[&str], more: &[String]) {
        cargo.args(["--target", &self.triple]);
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc);
        }
        if !self.c_prefix.is_empty() {
            let lower = self.triple.replace('-', "_");
            let gcc = format!("{}gcc", self.c_prefix);
            cargo.env(
                format!("CARGO_TARGET_{}_LINKER", lower.to_uppercase()),
                &gcc,
            );
            cargo.env(format!("CC_{lower}"), &gcc);
            cargo.env(format!("AR_{lower}"), format!("{}ar", self.c_prefix));
        }
        // The encoded form outranks RUSTFLAGS and every config file, so that no setting undoes the
        // static linking.
        let mut flags = vec!["-Ctarget-feature=+crt-static".to_string()];
        // For the linkers of GNU and LLVM, which our compilers use; others have no INSERT.
        for script in [&["xtask/start.ld"], scripts].concat() {
            let script = crate::build::cargo::root().join(script);
            flags.extend([
                "-Clink-arg=-T".to_string(),
                format!("-Clink-arg={}", script.display()),
            ]);
        }
        if self.triple.starts_with(Arch::X86_64.name()) {
            // A position-independent program has thousands of relocations: this stores them in 700
            // bytes instead of 63,000.
            flags.push("-Clink-arg=-Wl,-z,pack-relative-relocs".to_string());
        }
        flags.extend(remap_flags());
        flags.extend_from_slice(more);
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    }

    pub fn describe(&self) -> String {
        let rustc = self.rustc.as_deref().unwrap_or(Path::new("rustc"));
        format!("{} by {}", self.triple, rustc.display())
    }
}

/// A compiler with the sources of `core`, for programs without an operating system.
#[derive(Debug)]
pub struct GuestToolchain {
    rustc: PathBuf,
}

impl GuestToolchain {
    /// The targets are those of `fixtures/.cargo/config.toml`, which has the linkers and flags.
    pub fn triple(arch: Arch) -> &'static str {
        match arch {
            Arch::Aarch64 => "aarch64-unknown-none-softfloat",
            Arch::X86_64 => "x86_64-unknown-none",
        }
    }

    pub fn choose() -> Result<Self> {
        const PURPOSE: &str = "building test unikernels";
        if has_sources(&sysroot(Path::new("rustc"))?) {
            packages::ensure(PURPOSE, GUEST_LINKERS)?;
            return Ok(GuestToolchain {
                rustc: "rustc".into(),
            });
        }
        packages::ensure(PURPOSE, &[GUEST_LINKERS, GUEST_RUST].concat())?;
        if !has_sources(&sysroot(Path::new(DEBIAN_RUSTC))?) {
            return fail(format!(
                "{DEBIAN_RUSTC} lacks library sources of the same version; install rust-web-src of that version"
            ));
        }
        Ok(GuestToolchain {
            rustc: DEBIAN_RUSTC.into(),
        })
    }

    /// Whether `core` must be built for a unikernel of this machine, as cargo's own compiler does
    /// not come with it.
    pub fn builds_core() -> Result<bool> {
        let triple = format!("{}-unknown-none", Arch::host()?.name());
        Ok(!has_target(&sysroot(Path::new("rustc"))?, &triple))
    }

    /// The linker of an architecture.
    pub fn linker(arch: Arch) -> String {
        format!("{}ld", cross_prefix(arch))
    }

    /// Makes cargo use this compiler.
    pub fn set_compiler(&self, cargo: &mut Command) {
        if self.rustc == Path::new(DEBIAN_RUSTC) {
            cargo.env("RUSTC", &self.rustc);
        }
    }

    /// Adds compiler and targets to a cargo command.
    pub fn apply(&self, cargo: &mut Command) {
        for arch in Arch::ALL {
            cargo.args(["--target", Self::triple(arch)]);
        }
        self.set_compiler(cargo);
        // Building `core` is unstable in name only: compiler and sources have the same version.
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }

    /// The versions of everything that affects the bytes, one a line.
    pub fn versions(&self) -> Result<String> {
        let mut lines = String::new();
        let linkers = GUEST_LINKERS
            .iter()
            .filter_map(|package| match package.brings {
                Brings::Program(linker) => Some(Path::new(linker)),
                Brings::File(_) => None,
            });
        for program in linkers.chain([self.rustc.as_path()]) {
            let text = process::output(Command::new(program).arg("--version"))?;
            lines += text.lines().next().unwrap_or_default();
            lines += "\n";
        }
        Ok(lines)
    }
}

/// Removes this machine's directories from panic messages, so that builds are identical everywhere.
pub fn remap_flags() -> Vec<String> {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let cargo_home =
        std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    [
        (cargo_home, "/cargo"),
        (crate::build::cargo::root(), "/tender"),
    ]
    .iter()
    .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
    .collect()
}

fn cross_prefix(arch: Arch) -> &'static str {
    match arch {
        Arch::Aarch64 => "aarch64-linux-gnu-",
        Arch::X86_64 => "x86_64-linux-gnu-",
    }
}

/// The C compiler (one dependency has a C file), the linker, and libc.a to link against.
fn c_packages(arch: Arch, native: bool) -> &'static [Package] {
    const NATIVE: &[Package] = &[Package::program("gcc", "cc")];
    const TO_ARM: &[Package] = &[
        Package::program("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc"),
        Package::file("libc6-dev-arm64-cross", "/usr/aarch64-linux-gnu/lib/libc.a"),
    ];
    const TO_PC: &[Package] = &[
        Package::program("gcc-x86-64-linux-gnu", "x86_64-linux-gnu-gcc"),
        Package::file("libc6-dev-amd64-cross", "/usr/x86_64-linux-gnu/lib/libc.a"),
    ];
    match (native, arch) {
        (true, _) => NATIVE,
        (false, Arch::Aarch64) => TO_ARM,
        (false, Arch::X86_64) => TO_PC,
    }
}

/// The second is the std itself.
fn debian_std(arch: Arch) -> &'static [Package; 2] {
    const RUSTC: Package = Package::file("rustc-web", DEBIAN_RUSTC);
    const ARM: [Package; 2] = [
        RUSTC,
        Package::file(
            "libstd-rust-web-dev:arm64",
            "/usr/lib/rustlib/aarch64-unknown-linux-gnu/lib",
        ),
    ];
    const PC: [Package; 2] = [
        RUSTC,
        Package::file(
            "libstd-rust-web-dev:amd64",
            "/usr/lib/rustlib/x86_64-unknown-linux-gnu/lib",
        ),
    ];
    match arch {
        Arch::Aarch64 => &ARM,
        Arch::X86_64 => &PC,
    }
}

const GUEST_RUST: &[Package] = &[
    Package::file("rustc-web", DEBIAN_RUSTC),
    Package::file(
        "rust-web-src",
        "/usr/lib/rustlib/src/rust/library/Cargo.lock",
    ),
];

/// Each is also the machine's own linker on its own architecture.
const GUEST_LINKERS: &[Package] = &[
    Package::program("binutils-x86-64-linux-gnu", "x86_64-linux-gnu-ld"),
    Package::program("binutils-aarch64-linux-gnu", "aarch64-linux-gnu-ld"),
];

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    Ok(
        process::output(Command::new(rustc).args(["--print", "sysroot"]))?
            .trim()
            .into(),
    )
}

/// The first suitable target of cargo's own compiler, usually rustup's.
fn rustups_triple(arch: Arch) -> Result<Option<String>> {
    let sysroot = sysroot(Path::new("rustc"))?;
    let triples = ["gnu", "musl"].map(|libc| format!("{}-unknown-linux-{libc}", arch.name()));
    Ok(triples
        .into_iter()
        .find(|triple| has_target(&sysroot, triple)))
}

fn has_target(sysroot: &Path, triple: &str) -> bool {
    let lib = sysroot.join("lib/rustlib").join(triple).join("lib");
    let std = std::fs::read_dir(lib).into_iter().flatten().flatten();
    std.map(|entry| entry.file_name())
        .any(|name| name.to_string_lossy().starts_with("libcore-"))
}

fn has_sources(sysroot: &Path) -> bool {
    sysroot
        .join("lib/rustlib/src/rust/library/Cargo.lock")
        .exists()
}
