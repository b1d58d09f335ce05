//! `tender` runs one Solo5 hvt unikernel in a KVM guest. This crate contains everything except the
//! entry and exit of the process, which are in `main.rs`.
//!
//! One run, step by step:
//!
//! 1. The process starts ([`host::start`]), and [`cli`] parses the command line into a
//!    [`config::Config`].
//! 2. [`host::files`] finds the files named there, before the first is opened. [`guest::image`]
//!    examines the unikernel file; [`guest::manifest`] lists the devices that it declares.
//! 3. [`setup`] creates the virtual machine ([`arch`]) and attaches the devices ([`devices`]:
//!    [`net`], [`block`]). It loads the image into guest memory ([`memory`]) and sets the vCPU to
//!    the first instruction.
//! 4. [`sandbox`] drops the privileges that are no longer needed, and [`exit`] runs the guest:
//!    [`guest::hypercall`] decodes each hypercall, and a device serves it ([`devices::console`],
//!    [`devices::clock`], [`net`], [`block`]). Newer guests send and receive frames through a
//!    shared [`devices::ring`] instead.
//! 5. The run ends: the guest halts or violates its contract, or a signal ends it
//!    ([`host::signal`]).
//!
//! [`debug`] is a gdb stub for the running guest, and writes core files of guests that crashed.
//!
//! [`check`] runs steps 1 to 3 without starting the guest and reports every problem.
//! [`cli::config_file`] reads the TOML file of `--config`. [`inspect`] needs only steps 1 and 2,
//! and so does [`inspect::elftool`], which replaces Solo5's tool of that name.
//!
//! `docs/architecture.md` explains this in detail; `docs/hvt-abi.md` is the interface to the guest.

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "the documentation is built with private items"
)]
#![deny(
    clippy::dbg_macro,
    clippy::expect_used,
    clippy::panic,
    clippy::todo,
    clippy::unwrap_used,
    unreachable_pub,
    unsafe_code
)]
#![cfg_attr(
    test,
    allow(
        clippy::expect_used,
        clippy::panic,
        clippy::unwrap_used,
        unreachable_pub,
        unsafe_code
    )
)]

pub mod arch;
mod block;
pub mod check;
pub mod cli;
pub mod config;
mod debug;
pub mod devices;
mod exit;
pub mod guest;
pub mod host;
pub mod inspect;
pub mod memory;
mod metrics;
pub mod net;
mod outcome;
pub mod report;
pub mod sandbox;
mod setup;

pub use outcome::{Error, Outcome};

/// Runs the unikernel that `config` names, to its end. The process must exit afterwards: it is in
/// the sandbox, and keeps the guest's devices and memory.
///
/// # Errors
/// Any error that prevents the start or ends the run. A HALT of the guest and a signal are no
/// errors.
pub fn run(config: &config::Config) -> Result<Outcome, Error> {
    run_with(config, &mut host::files::Files::find(config, None))
}

/// Runs like [`run`], with files that were found while the caller's descriptors were open.
///
/// # Errors
/// Those of [`run`].
pub fn run_with(config: &config::Config, files: &mut host::files::Files) -> Result<Outcome, Error> {
    setup::setup(config, files)?.run()
}
