//! `cargo xtask replay`: repeats this project's original deployment: a unikernel as a systemd
//! service, on a tap in a bridge, its log in the journal, in a Debian on an emulated board. The
//! result of every step is checked.

mod debian;
mod image;
mod step;
mod steps;
mod transcript;
mod walk;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::base::error::{Result, fail};
use crate::base::options::Options;
use crate::build::arch::Arch;
use crate::dist;
use crate::machines::machine::{Emulated, Machine};
use crate::machines::qemu::{Console, Event};
use step::{Outcome, Step};
use transcript::Transcript;

/// Time limit of a step in the machine, in seconds. Most wait for something to come up, on a host
/// that may be busy.
const STEP_LIMIT: u64 = 180;

pub fn run(options: &mut Options) -> Result<()> {
    let machine = match Machine::option(options)? {
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
    transcript.write(format_args!(
        "Debian with systemd on {}: up after {:.0?}",
        machine.title(),
        start.elapsed()
    ));
    let wrong = follow(&mut console, &steps, &mut transcript);
    transcript.write(format_args!(
        "\nfrom power-on to here: {:.0?}",
        start.elapsed()
    ));
    match &wrong {
        None => transcript.write(format_args!(
            "replay: {} steps, all as expected",
            steps.len()
        )),
        Some(first) => transcript.write(format_args!("replay: {first}")),
    }
    transcript.save()?;
    // Errors were already printed.
    // The machine ends with this scope, which an exit would not do.
    drop(console);
    if wrong.is_none() {
        Ok(())
    } else {
        std::process::exit(1)
    }
}

/// Builds the package of these sources.
fn package() -> Result<PathBuf> {
    let [_, _, deb] = dist::packages(Arch::Aarch64)?;
    Ok(deb)
}

/// Follows the machine through all steps; returns the first error, if any.
fn follow(console: &mut Console, steps: &[Step], transcript: &mut Transcript) -> Option<String> {
    let mut first = None;
    for (number, step) in (1..).zip(steps) {
        transcript.write(format_args!("\n== {number}. {}", step.title));
        for line in step.run.lines() {
            transcript.write(format_args!("# {line}"));
        }
        let start = Instant::now();
        let outcome = match follow_step(console, number, transcript) {
            Ok(outcome) => outcome,
            // Without the machine there are no more steps.
            Err(error) => {
                return Some(first.unwrap_or(format!("step {number} ({}): {error}", step.title)));
            }
        };
        let checked = step.check(&outcome);
        match &checked {
            Ok(()) => transcript.write(format_args!(
                "-- as expected, after {:.1?}",
                start.elapsed()
            )),
            Err(error) => transcript.write(format_args!("-- NOT AS EXPECTED: {error}")),
        }
        // Later steps are still run: their output helps to find the cause.
        first = first.or(checked
            .err()
            .map(|error| format!("step {number} ({}): {error}", step.title)));
    }
    first
}

/// Follows one step to its end.
fn follow_step(
    console: &mut Console,
    number: usize,
    transcript: &mut Transcript,
) -> Result<Outcome> {
    let deadline = Instant::now() + Duration::from_secs(STEP_LIMIT + 60);
    let mut lines: Option<Vec<String>> = None;
    loop {
        match (console.next(deadline)?, &mut lines) {
            (Event::Line(line), Some(lines)) => {
                transcript.write(format_args!("{line}"));
                lines.push(line);
            }
            // Lines of the kernel and of systemd.
            (Event::Line(_), None) => {}
            (Event::Mark(mark), None) if mark == format!("step {number}") => {
                lines = Some(Vec::new())
            }
            (Event::Mark(mark), Some(lines)) => {
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
                    None => return fail(format!("the machine sent '{mark}'")),
                }
            }
            (Event::Mark(mark), None) => return fail(format!("the machine sent '{mark}'")),
        }
    }
}
