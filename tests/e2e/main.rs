//! The end-to-end tests, on a real /dev/kvm: one module for each capability, one program for all.
//!
//! The program has its own `main`, because only that can report a test as *ignored, with the
//! reason*. `TENDER_TESTS_OF=NAME` runs the tests of one module.

#[macro_use]
mod common;

mod block;
mod boot;
mod check;
mod clock;
mod config;
mod cpu;
mod descriptors;
mod disks;
mod docs;
mod dropin;
mod dumpcore;
mod elftool;
mod endless;
mod eras;
mod faults;
mod gdb;
mod host;
mod host_faults;
mod hostile;
mod huge_pages;
mod hypercalls;
mod images;
mod inspect;
mod instructions;
mod journal;
mod limits;
mod maxdev;
mod metrics;
mod namespaces;
mod net;
mod notify;
mod observe;
mod packaging;
mod paths;
mod process;
mod ring;
mod ring_hostile;
mod sandbox;
mod sandbox_rules;
mod shared_pages;
mod signals;
mod syscalls;
mod usage;
mod web;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Lists the tests of modules, or of one.
macro_rules! tests_of {
    ($only:expr; $($name:ident)*) => {{
        let mut tests: Vec<Trial> = Vec::new();
        $(if $only.is_none_or(|only| only == stringify!($name)) {
            tests.extend(common::of(stringify!($name), $name::tests));
        })*
        tests
    }};
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
    let tests = tests(only.as_deref());
    assert!(
        !tests.is_empty(),
        "TENDER_TESTS_OF={only:?}: no such module"
    );
    let result = libtest_mimic::run(&arguments, tests);
    endless::report();
    result.exit_code()
}

fn tests(only: Option<&str>) -> Vec<Trial> {
    tests_of! { only;
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
        huge_pages
        hypercalls
        images
        inspect
        instructions
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
        process
        ring
        ring_hostile
        sandbox
        sandbox_rules
        shared_pages signals
        syscalls
        usage
        web
    }
}
