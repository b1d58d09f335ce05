//! `cargo xtask replay`: the deployment that this project began with, once more: a unikernel as a service of systemd, on a
//! tap in a bridge, its log in the journal, in a Debian on an emulated board. Every step is held against what it must show.

mod debian;
mod image;
mod step;
mod steps;
mod transcript;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::arch::Arch;
use crate::dist;
use crate::error::{Result, fail};
use crate::machine::{Console, Emulated, Machine, Said};
use crate::options::Options;
use step::{Outcome, Step};
use transcript::Transcript;

/// What a step may take in the machine, in seconds. Most of them wait for something to come up, on a host that may be busy.
const STEP_LIMIT: u64 = 180;

pub fn run(options: &mut Options) -> Result<()> {
    let machine = match options
        .value("--machine")?
        .map(|name| Machine::parse(&name))
        .transpose()?
    {
        None => Emulated::Pi3,
        Some(Machine::Emulated(machine)) if machine.arch() == Arch::Aarch64 => machine,
        Some(_) => return fail("the replay is of an ARM64 board: --machine pi3 or virt"),
    };
    let deb = options.value("--deb")?.map(PathBuf::from);
    options.finish()?;
    let assets = machine.prepare()?;
    let root = debian::root()?;
    let deb = deb.map_or_else(package, Ok)?;
    let steps = steps::all(machine);
    let archive = image::pack(machine, &assets, &root, &deb, &steps)?;
    let mut transcript = Transcript::begin(machine);
    let start = Instant::now();
    let mut console = machine.boot(&assets, archive)?;
    transcript.say(format_args!(
        "Debian with systemd on {}: up after {:.0?}",
        machine.title(),
        start.elapsed()
    ));
    let wrong = follow(&mut console, &steps, &mut transcript);
    transcript.say(format_args!(
        "\nfrom power-on to here: {:.0?}",
        start.elapsed()
    ));
    match &wrong {
        None => transcript.say(format_args!(
            "replay: {} steps, all as expected",
            steps.len()
        )),
        Some(first) => transcript.say(format_args!("replay: {first}")),
    }
    transcript.save()?;
    // What went wrong has been said.
    // The machine ends with it, which an exit would not see to.
    drop(console);
    if wrong.is_none() {
        Ok(())
    } else {
        std::process::exit(1)
    }
}

/// The package of these sources.
fn package() -> Result<PathBuf> {
    let [_, _, deb] = dist::packages(Arch::Aarch64)?;
    Ok(deb)
}

/// Hears the machine go through all the steps; gives the first one that went wrong, if any did.
fn follow(console: &mut Console, steps: &[Step], transcript: &mut Transcript) -> Option<String> {
    let mut first = None;
    for (number, step) in (1..).zip(steps) {
        transcript.say(format_args!("\n== {number}. {}", step.title));
        for line in step.run.lines() {
            transcript.say(format_args!("# {line}"));
        }
        let start = Instant::now();
        let outcome = match hear(console, number, transcript) {
            Ok(outcome) => outcome,
            // No machine, no more steps.
            Err(error) => {
                return Some(first.unwrap_or(format!("step {number} ({}): {error}", step.title)));
            }
        };
        let judged = step.judge(&outcome);
        match &judged {
            Ok(()) => transcript.say(format_args!(
                "-- as expected, after {:.1?}",
                start.elapsed()
            )),
            Err(error) => transcript.say(format_args!("-- NOT AS EXPECTED: {error}")),
        }
        // Those that come after it are gone through all the same: what they show helps to understand it.
        first = first.or(judged
            .err()
            .map(|error| format!("step {number} ({}): {error}", step.title)));
    }
    first
}

/// Hears one step to its end.
fn hear(console: &mut Console, number: usize, transcript: &mut Transcript) -> Result<Outcome> {
    let deadline = Instant::now() + Duration::from_secs(STEP_LIMIT + 60);
    let mut lines: Option<Vec<String>> = None;
    loop {
        match (console.next(deadline)?, &mut lines) {
            (Said::Line(line), Some(lines)) => {
                transcript.say(format_args!("{line}"));
                lines.push(line);
            }
            // The kernel's and systemd's own.
            (Said::Line(_), None) => {}
            (Said::Mark(mark), None) if mark == format!("step {number}") => {
                lines = Some(Vec::new())
            }
            (Said::Mark(mark), Some(lines)) => {
                match mark
                    .strip_prefix("exit ")
                    .and_then(|status| status.parse().ok())
                {
                    Some(status) => {
                        return Ok(Outcome {
                            status,
                            output: lines.join("\n"),
                        });
                    }
                    None => return fail(format!("the machine said '{mark}'")),
                }
            }
            (Said::Mark(mark), None) => return fail(format!("the machine said '{mark}'")),
        }
    }
}
