//! Tells the linker where code is to lie in a static program, for quick starts: `link/seldom.ld`.

use std::env;
use std::path::Path;

fn main() {
    const SCRIPT: &str = "link/seldom.ld";
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SCRIPT}");
    let of_target = |name: &str| env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    // Only there is the C library a part of the program, and the linker GNU's as far as is known.
    let is_static = of_target("FEATURE").split(',').any(|feature| feature == "crt-static");
    if is_static && of_target("OS") == "linux" && of_target("ENV") == "gnu" {
        let script = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join(SCRIPT);
        println!("cargo::rustc-link-arg-bin=tender=-Wl,-T,{}", script.display());
    }
}
