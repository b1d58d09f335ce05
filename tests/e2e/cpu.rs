//! The guest's view of its processor: computing features are as on the host. Others, and features
//! that reach more of the host's code, are absent, and using them is the guest's own fault.

#[cfg_attr(target_arch = "aarch64", path = "cpu/aarch64.rs")]
#[cfg_attr(target_arch = "x86_64", path = "cpu/x86_64.rs")]
mod arch;

use libtest_mimic::Trial;
use std::sync::OnceLock;

use crate::common::{Output, run, unikernel};

pub fn tests() -> Vec<Trial> {
    arch::tests()
}

/// Returns the output of the unikernel `cpuid`; the guest runs once.
fn cpuid() -> &'static str {
    static OUTPUT: OnceLock<String> = OnceLock::new();
    OUTPUT.get_or_init(|| {
        let output = run(&mut unikernel("cpuid", &["--mem=2"], &[]));
        output.exits(0).is_quiet();
        output.stdout
    })
}

/// Runs a guest that accesses a register.
fn msr(args: &str) -> Output {
    run(&mut unikernel(
        "msr",
        &["--mem=2"],
        &args.split(' ').collect::<Vec<_>>(),
    ))
}

/// Checks that the access failed: the guest's own vector receives it as `trap`, and the host sees
/// nothing.
#[track_caller]
fn faults(args: &str, trap: &str) {
    let output = msr(args);
    output.aborts().prints(&format!("trap: {trap}"));
    assert!(!output.stdout.contains("gave"), "{output:?}");
}
