//! The guest's view of its processor: what computes is there, as the host has it; what does not, or is a way to more
//! of the host's code, is not, and an attempt at it is the guest's own fault.

mod common;

#[cfg_attr(target_arch = "aarch64", path = "cpu/aarch64.rs")]
#[cfg_attr(target_arch = "x86_64", path = "cpu/x86_64.rs")]
mod arch;

use std::process::ExitCode;
use std::sync::OnceLock;

use common::{Output, run, unikernel};

fn main() -> ExitCode {
    common::main(arch::tests())
}

/// What the processor says of itself; the guest is run once.
fn cpuid() -> &'static str {
    static SAID: OnceLock<String> = OnceLock::new();
    SAID.get_or_init(|| {
        let output = run(&mut unikernel("cpuid", &["--mem=2"], &[]));
        output.exits(0).is_quiet();
        output.stdout
    })
}

/// What it says of the feature `name`.
#[track_caller]
fn feature(name: &str) -> &'static str {
    let mut values = cpuid().lines().filter_map(|line| {
        line.strip_prefix("cpuid: ")?
            .strip_prefix(name)?
            .strip_prefix(' ')
    });
    values
        .next()
        .unwrap_or_else(|| panic!("the guest says nothing of {name}: {}", cpuid()))
}

/// A guest that touches something.
fn msr(args: &str) -> Output {
    run(&mut unikernel(
        "msr",
        &["--mem=2"],
        &args.split(' ').collect::<Vec<_>>(),
    ))
}

/// Checks that the guest did not get its way: its own vector learns of it as `trap`, and nobody else does.
#[track_caller]
fn faults(args: &str, trap: &str) {
    let output = msr(args);
    output
        .exits(255)
        .is_quiet()
        .prints(&format!("trap: {trap}"));
    assert!(!output.stdout.contains("gave"), "{output:?}");
}
