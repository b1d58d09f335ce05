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
use std::process::Command;
use std::time::{Duration, Instant};

use crate::base::error::{Context, Result, fail};
use crate::base::options::Options;
use crate::build::arch::Arch;
use crate::demo;
use crate::dist;
use crate::machines::host;
use crate::machines::initramfs;
use crate::machines::machine::{Clock, Emulated, Event, Machine};

pub use inside::run as inside;

/// The hidden command that measures, in a separate process.
pub const INSIDE: &str = "bench-inside";

/// Time limit of an emulated machine.
const LIMIT: Duration = Duration::from_secs(1800);

pub fn run(options: &mut Options) -> Result<()> {
    let machine = options
        .value("--machine")?
        .map_or(Ok(Machine::Host), |name| Machine::parse(&name))?;
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
    host::kvm()?;
    let arch = Arch::host()?;
    let tender = dist::binary(arch)?;
    let myself = std::env::current_exe().context("cannot find this program's own file")?;
    let mut inside = Command::new(myself);
    inside
        .arg(INSIDE)
        .arg("--tender")
        .arg(tender)
        .arg("--fixtures")
        .arg(host::fixtures(arch));
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
    let mut job = format!("xtask {INSIDE} --tender /bin/tender --fixtures /fixtures");
    if peer.is_some() {
        job += " --peer /bin/peer";
    }
    if starts {
        job += " --starts";
    }
    let mut archive = initramfs::base(machine, &assets, &format!("{job}\n"))?;
    archive.copy("bin/tender", &dist::binary(machine.arch())?)?;
    archive.copy("bin/xtask", &demo::own_binary(machine.arch())?)?;
    if let Some(peer) = peer {
        archive.copy("bin/peer", peer)?;
    }
    host::pack_fixtures(&mut archive, machine.arch())?;
    let clock = if machine == Emulated::Virt {
        Clock::Instructions
    } else {
        Clock::Real
    };
    if clock == Clock::Instructions {
        println!("one nanosecond below is one instruction, of guest, kernel and tender together");
    }
    let mut console = machine.boot_by(clock, &assets, archive)?;
    let deadline = Instant::now() + LIMIT;
    loop {
        match console.next(deadline)? {
            // A machine has one console for both; progress messages are not part of the table.
            Event::Line(line) if line.starts_with("xtask: ") => eprintln!("{line}"),
            Event::Line(line) => println!("{line}"),
            Event::Mark(mark) if mark == "done 0" => return Ok(()),
            Event::Mark(mark) => {
                return fail(format!(
                    "the benchmark failed inside {} ({mark})",
                    machine.title()
                ));
            }
        }
    }
}
