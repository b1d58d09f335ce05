//! `cargo xtask bench`: the cost of a start, a hypercall and a byte of memory, optionally compared
//! with another tender.
//!
//! Machines are noisy, so both tenders take turns within one run, and the result is the ratio of
//! their medians. On `virt` the emulator's clock counts instructions (`-icount`): the results are
//! then instructions of guest, kernel and tender together, and repeat exactly or almost so.

mod engines;
mod entry;
mod fixed;
pub mod fleet;
mod flood;
mod floor;
mod hypercalls;
mod idle;
mod inside;
mod large;
pub mod layout;
mod network;
mod proc;
mod sample;
mod starts;
mod steps;
mod trace;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::base::error::{Result, fail};
use crate::base::options::Options;
use crate::base::process;
use crate::build::arch::Arch;
use crate::dist;
use crate::machines::engine::Engine;
use crate::machines::host;
use crate::machines::initramfs;
use crate::machines::machine::{Emulated, Machine};
use crate::machines::qemu::Clock;
use sample::Subject;

pub use inside::run as inside;

/// The hidden command that measures, in a separate process.
pub const INSIDE: &str = "bench-inside";

/// Its options for the tenders to compare with, for only starts, and for a machine of ours.
const OTHERS: [(&str, Subject); 2] = [(PEER, Subject::Peer), (FLOOR, Subject::Floor)];
const PEER: &str = "--peer";
const FLOOR: &str = "--floor";
const STARTS: &str = "--starts";
const BY_PROCESS: &str = "--engine=process";
/// Its option to trace starts instead: a file with the addresses of all functions.
const CODE: &str = "--code";
const EMULATED: &str = "--emulated";

/// Suffix for the names of a tender's results without its sandbox, and the option for that.
const NO_SANDBOX: &str = ", no sandbox";
const WITHOUT_SANDBOX: &[&str] = &["--sandbox=off"];

/// Longest time without output of an emulated machine.
const LIMIT: Duration = Duration::from_secs(1800);

/// What to measure.
#[derive(Default)]
struct Job {
    /// Files by the option of the hidden command, such as tenders to compare with.
    others: Vec<(&'static str, PathBuf)>,
    /// Flags of the hidden command.
    flags: Vec<&'static str>,
}

pub fn run(options: &mut Options) -> Result<()> {
    let machine = Machine::option(options)?.unwrap_or(Machine::Host);
    let peer = peer(options)?;
    let floor = options.flag(FLOOR);
    let only_starts = options.flag(STARTS);
    let by_process = match Engine::option(options)? {
        Some(Engine::Kvm) => {
            return fail("--engine kvm is the default of bench; omit it, or give --engine process");
        }
        engine => engine.is_some(),
    };
    options.finish()?;
    if by_process && (peer.is_some() || floor || only_starts) {
        return fail(format!(
            "--engine process takes no {PEER}, {FLOOR} or {STARTS}"
        ));
    }
    let mut others: Vec<_> = peer.map(|peer| (PEER, peer)).into_iter().collect();
    if floor {
        let arch = match machine {
            Machine::Host => Arch::host()?,
            Machine::Emulated(machine) => machine.arch(),
        };
        others.push((FLOOR, floor::binary(arch)?));
    }
    let flags = [(only_starts, STARTS), (by_process, BY_PROCESS)];
    let flags = flags
        .into_iter()
        .filter_map(|(given, flag)| given.then_some(flag))
        .collect();
    let job = Job { others, flags };
    match machine {
        Machine::Host => on_host(&job),
        Machine::Emulated(machine) => {
            if clock(machine) == Clock::Instructions {
                println!(
                    "one nanosecond below is one instruction, of guest, kernel and tender together"
                );
            }
            // A machine has one console for both; progress messages are not part of the table.
            emulated(machine, clock(machine), &job, |line| {
                if line.starts_with("xtask: ") {
                    eprintln!("{line}");
                } else {
                    println!("{line}");
                }
            })
        }
    }
}

/// Takes `--peer FILE`, another tender's binary.
fn peer(options: &mut Options) -> Result<Option<PathBuf>> {
    match options.value(PEER)?.map(PathBuf::from) {
        Some(peer) if !peer.is_file() => fail(format!(
            "{PEER} {} is no file; give another tender's binary",
            peer.display()
        )),
        peer => Ok(peer),
    }
}

fn on_host(job: &Job) -> Result<()> {
    process::run(&mut host_command(job)?)
}

fn host_command(job: &Job) -> Result<Command> {
    if !job.flags.contains(&BY_PROCESS) {
        host::kvm()?;
    }
    let mut inside = host::inside(INSIDE, &dist::binary(Arch::host()?)?)?;
    for (option, path) in &job.others {
        inside.arg(option).arg(path);
    }
    inside.args(&job.flags);
    Ok(inside)
}

fn clock(machine: Emulated) -> Clock {
    if machine == Emulated::Virt {
        Clock::Instructions
    } else {
        Clock::Real
    }
}

/// Does the job in an emulated machine, and passes each line of its output to `show`.
fn emulated(machine: Emulated, clock: Clock, job: &Job, show: impl FnMut(String)) -> Result<()> {
    let assets = machine.prepare()?;
    let mut command = format!("{} {EMULATED}", initramfs::inside(INSIDE));
    let place = |option: &str| format!("bin/{}", option.trim_start_matches('-'));
    for (option, _) in &job.others {
        command += &format!(" {option} /{}", place(option));
    }
    for flag in &job.flags {
        command += &format!(" {flag}");
    }
    let mut archive = initramfs::with_tender(machine, &assets, &command)?;
    for (option, path) in &job.others {
        archive.copy(&place(option), path)?;
    }
    let console = machine.boot_by(clock, &assets, archive)?;
    console.follow("the benchmark", LIMIT, show)
}
