//! The time of a start, to the first output and to the end, of a small and of a large image.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::entry::Trace;
use super::inside::{self, Bench};
use super::sample::{Samples, Subject};
use crate::base::error::{Context, Result, fail};

pub const UNIKERNEL: &str = "hello.hvt";

/// Starts of each kind of each tender; as many again are traced.
const ROUNDS: usize = 25;

/// Memory of the guest, in MiB.
pub const MEMORY: u32 = 64;

/// Options of a start, and suffixes for the names of its results. Only tender has the second.
const STARTED: [(&[&str], &str); 2] = [(&[], ""), (super::WITHOUT_SANDBOX, super::NO_SANDBOX)];

const FIRST_INSTRUCTION: &str = "exec to first guest instruction";

pub fn measure(bench: &Bench) -> Result<()> {
    ends(bench)?;
    // The other results are valid without this one.
    if let Err(reason) = first_instruction(bench, &bench.fixture(UNIKERNEL)) {
        println!("{FIRST_INSTRUCTION}: not measured: {reason}");
    }
    Ok(())
}

/// Measures from the start to the first output and to the end.
pub fn ends(bench: &Bench) -> Result<()> {
    let (small, large) = (bench.fixture(UNIKERNEL), bench.large(UNIKERNEL));
    bench.take_turns("starts", ROUNDS, |samples, subject, tender| {
        for (options, suffix) in started(subject) {
            let command = command(subject, tender, options, &small);
            start(samples, subject, command, suffix)?;
        }
        let command = command(subject, tender, &[], &large);
        start(samples, subject, command, ", large image")
    })
}

/// Returns the kinds of start that a tender has, as in `STARTED`.
fn started(subject: Subject) -> &'static [(&'static [&'static str], &'static str)] {
    if subject.is_ours() {
        &STARTED
    } else {
        &STARTED[..1]
    }
}

/// Returns the command that starts `hello`.
pub fn command(subject: Subject, tender: &Path, options: &[&str], unikernel: &Path) -> Command {
    inside::command(subject, tender, MEMORY, options, unikernel)
}

/// Measures from the start of the tender, by fork and exec, to the first output of its unikernel,
/// and to its end.
fn start(
    samples: &mut Samples,
    subject: Subject,
    mut command: Command,
    suffix: &str,
) -> Result<()> {
    let start = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the tender")?;
    let mut output = child
        .stdout
        .take()
        .map_or_else(|| fail("its output is no pipe"), Ok)?;
    output
        .read_exact(&mut [0])
        .context("the tender ended without output")?;
    let first = start.elapsed();
    output
        .read_to_end(&mut Vec::new())
        .context("cannot read the tender's output")?;
    let status = child.wait().context("cannot wait for the tender")?;
    let end = start.elapsed();
    if !status.success() {
        return fail(format!("{UNIKERNEL} ended with {status}"));
    }
    for (what, time) in [("first output", first), ("end of hello", end)] {
        let name = format!("start to {what}{suffix}");
        samples.add(&name, subject, time.as_nanos() as u64);
    }
    Ok(())
}

/// In separate starts, so that tracing cannot affect the other results.
fn first_instruction(bench: &Bench, unikernel: &Path) -> Result<()> {
    let trace = Trace::begin()?;
    bench.take_turns("traced starts", ROUNDS, |samples, subject, tender| {
        for (options, suffix) in started(subject) {
            let mut command = command(subject, tender, options, unikernel);
            let time = trace.exec_to_guest(command.stdout(Stdio::null()))?;
            samples.add(
                &format!("{FIRST_INSTRUCTION}{suffix}"),
                subject,
                time.as_nanos() as u64,
            );
        }
        Ok(())
    })
}
