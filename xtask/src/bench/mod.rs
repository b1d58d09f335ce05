//! `cargo xtask bench`: the cost of a start, a hypercall and a byte of memory, optionally compared
//! with another tender.
//!
//! Machines are noisy, so both tenders take turns within one run, and the result is the ratio of
//! their medians. On `virt` the emulator's clock counts instructions (`-icount`): the results are
//! then instructions of guest, kernel and tender together, and repeat exactly or almost so.

mod entry;
pub mod fleet;
mod flood;
mod inside;
mod sample;
mod trace;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::error::{Result, fail};
use crate::base::options::Options;
use crate::machines::host;
use crate::machines::initramfs;
use crate::machines::machine::{Emulated, Machine};
use crate::machines::qemu::Clock;

pub use inside::run as inside;

/// The hidden command that measures, in a separate process.
pub const INSIDE: &str = "bench-inside";

/// Longest time without output of an emulated machine.
const LIMIT: Duration = Duration::from_secs(1800);

pub fn run(options: &mut Options) -> Result<()> {
    let machine = Machine::option(options)?.unwrap_or(Machine::Host);
    let peer = options.value("--peer")?.map(PathBuf::from);
    let starts = options.flag("--starts");
    options.finish()?;
    match &peer {
        Some(peer) if !peer.is_file() => {
            return fail(format!(
                "--peer {} is no file; give another tender's binary",
                peer.display()
            ));
        }
        _ => {}
    }
    match machine {
        Machine::Host => on_host(peer.as_deref(), starts),
        Machine::Emulated(machine) => emulated(machine, peer.as_deref(), starts),
    }
}

fn on_host(peer: Option<&Path>, starts: bool) -> Result<()> {
    let mut inside = host::inside(INSIDE)?;
    if let Some(peer) = peer {
        inside.arg("--peer").arg(peer);
    }
    if starts {
        inside.arg("--starts");
    }
    crate::base::process::run(&mut inside)
}

fn emulated(machine: Emulated, peer: Option<&Path>, starts: bool) -> Result<()> {
    let assets = machine.prepare()?;
    let mut job = initramfs::inside(INSIDE);
    if peer.is_some() {
        job += " --peer /bin/peer";
    }
    if starts {
        job += " --starts";
    }
    let mut archive = initramfs::with_tender(machine, &assets, &job)?;
    if let Some(peer) = peer {
        archive.copy("bin/peer", peer)?;
    }
    let clock = if machine == Emulated::Virt {
        Clock::Instructions
    } else {
        Clock::Real
    };
    if clock == Clock::Instructions {
        println!("one nanosecond below is one instruction, of guest, kernel and tender together");
    }
    let console = machine.boot_by(clock, &assets, archive)?;
    // A machine has one console for both; progress messages are not part of the table.
    console.follow("the benchmark", LIMIT, |line| {
        if line.starts_with("xtask: ") {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
    })
}
