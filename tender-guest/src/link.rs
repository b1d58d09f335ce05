//! Linker arguments, for the `build.rs` of a unikernel.

extern crate std;

use std::{env, println};

/// The memory layout of a unikernel.
const LAYOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/unikernel.ld");

/// Makes cargo link the programs of this package as unikernels. The only line of their `build.rs`:
///
/// ```
/// tender_guest::link();
/// ```
///
/// It has no effect on builds for other targets than `*-unknown-none*`, such as tests on the host.
pub fn link() {
    println!("cargo::rerun-if-changed={LAYOUT}");
    if env::var_os("CARGO_CFG_TARGET_OS").is_none_or(|os| os != "none") {
        return;
    }
    // Instead of a position-independent program, which these targets make by default on x86_64. Pages have 4 KiB, so
    // that the file need not be aligned to larger ones.
    for argument in ["--no-pie", "-zmax-page-size=0x1000", "--build-id=none"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rustc-link-arg-bins=-T{LAYOUT}");
}
