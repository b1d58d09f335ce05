//! `tender` runs one Solo5 hvt unikernel in a KVM guest. This crate is the whole of it; `main.rs` adds only the
//! process around it.
//!
//! The story of one run, in order, and where to read it:
//!
//! 1. The process begins ([`host::start`]), and [`cli`] turns the words of the command line into a [`config::Config`].
//! 2. [`host::files`] finds the files that are named there, before the first is opened. [`guest::image`] examines the unikernel file; [`guest::manifest`] lists the devices that it declares.
//! 3. [`setup`] attaches the devices ([`devices`]: [`net`], [`block`]), creates the virtual machine ([`arch`]), loads
//!    the image into guest memory ([`memory`]) and puts the processor at its first instruction.
//! 4. [`sandbox`] takes from the tender what it needs no longer, and [`exit`] runs the guest: each hypercall is decoded by [`guest::hypercall`], served by a device ([`devices::console`], [`devices::clock`],
//!    [`net`], [`block`]), and answered.
//!    Newer guests send and receive frames through a shared [`devices::ring`] instead.
//! 5. The guest halts, breaks a promise, or a [`host::signal`] ends it.
//!
//! While it runs, gdb may be beside it; and when it has come to a bad end, a core file is left ([`debug`]).
//!
//! [`check`] goes through the first of these, and tells what is missing; what a file says beside the command line is
//! read by [`cli::config_file`]. [`inspect`] reports what a file is, with the first two steps only. So does [`inspect::elftool`],
//! under the name of Solo5's tool.
//!
//! `docs/architecture.md` tells the same at more length; `docs/hvt-abi.md` is the interface to the guest.

pub mod arch;
pub mod block;
pub mod check;
pub mod cli;
pub mod config;
pub mod debug;
pub mod devices;
pub mod exit;
pub mod guest;
pub mod host;
pub mod inspect;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod outcome;
pub mod report;
pub mod sandbox;
pub mod setup;

pub use outcome::{Error, Outcome};

/// Runs the unikernel that `config` names, to its end.
///
/// # Errors
/// Everything that keeps it from starting, and everything that ends it other than its own halt or a signal.
pub fn run(config: &config::Config) -> Result<Outcome, Error> {
    run_with(config, &mut host::files::Files::find(config, None))
}

/// As [`run`], with the files that were found while the caller's descriptors were open.
///
/// # Errors
/// The same.
pub fn run_with(config: &config::Config, files: &mut host::files::Files) -> Result<Outcome, Error> {
    setup::setup(config, files)?.run()
}
