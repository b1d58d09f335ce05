//! The end-to-end tests, on a real /dev/kvm: one module for each capability, one program for all.
//!
//! The program has its own `main`, because only that can report a test as *ignored, with the reason*.
//! `TENDER_TESTS_OF=NAME` runs the tests of one module.

#[macro_use]
mod common;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Declares the modules, and lists the tests of all of them or of one.
macro_rules! capabilities {
    ($($name:ident)*) => {
        $(mod $name;)*

        fn tests(only: Option<&str>) -> Vec<Trial> {
            let mut tests = Vec::new();
            $(if only.is_none_or(|only| only == stringify!($name)) {
                tests.extend(common::of(stringify!($name), $name::tests));
            })*
            tests
        }
    };
}

capabilities! {
    block
    boot
    check
    clock
    config
    cpu
    descriptors
    disks
    docs
    dropin
    dumpcore
    elftool
    endless
    eras
    faults
    gdb
    host
    host_faults
    hostile
    hypercalls
    images
    inspect
    journal
    limits
    maxdev
    metrics
    namespaces
    net
    notify
    observe
    packaging
    paths
    ring
    ring_hostile
    sandbox
    sandbox_rules
    signals
    syscalls
    usage
    web
}

fn main() -> ExitCode {
    if let Some(code) = sandbox::attempt() {
        return code;
    }
    let arguments = Arguments::from_args();
    if !arguments.list {
        // First of all, before there is a second thread.
        common::net::become_root();
    }
    let only = std::env::var("TENDER_TESTS_OF").ok();
    let result = libtest_mimic::run(&arguments, tests(only.as_deref()));
    endless::report();
    result.exit_code()
}
