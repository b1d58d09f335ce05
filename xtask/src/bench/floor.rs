//! Builds `xtask/floor/`: the least tender, as a limit for the others.

use std::path::PathBuf;

use crate::base::error::Result;
use crate::base::progress;
use crate::build::arch::Arch;
use crate::build::cargo;
use crate::build::toolchain::StaticToolchain;

/// Builds it and returns the path of the binary.
pub fn binary(arch: Arch) -> Result<PathBuf> {
    let toolchain = StaticToolchain::choose(arch)?;
    progress::note(format_args!(
        "building the floor for {}",
        toolchain.describe()
    ));
    let mut build = cargo::cargo("build");
    build
        .args(["--release", "--locked", "--manifest-path"])
        .arg(cargo::root().join("xtask/floor/Cargo.toml"))
        .env("CARGO_TARGET_DIR", cargo::target_dir().join("floor"));
    toolchain.apply_bare(&mut build);
    cargo::program(&mut build, "floor")
}
