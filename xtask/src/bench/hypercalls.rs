//! The time of each hypercall, measured by the guest, and its system calls.

use std::path::Path;
use std::process::Command;

use super::inside::{self, Bench, TAP};
use super::sample::{Samples, Subject};
use super::trace;
use crate::base::error::{Context, Result};
use crate::base::process;

/// Turns of the tenders, and hypercalls of each kind in one turn.
const ROUNDS: usize = 7;
const CALLS: u64 = 2000;

/// Memory of the guest, in MiB.
pub const MEMORY: u32 = 8;

/// A unikernel that measures hypercalls.
pub struct Workload {
    unikernel: &'static str,
    /// Suffix for the names of its results.
    suffix: &'static str,
    /// One of each hypercall that it measures.
    pub calls: &'static str,
    net: bool,
    block: bool,
    /// Options that only tender has, or an era that only tender runs.
    ours: bool,
    options: &'static [&'static str],
}

const SIMPLE: Workload = Workload {
    unikernel: "bench.hvt",
    suffix: "",
    calls: "walltime, poll0, puts0",
    net: false,
    block: false,
    ours: false,
    options: &[],
};

/// Every workload, in groups. All workloads of a group run in each round, as their results are
/// compared.
const WORKLOADS: [(&str, &[Workload]); 3] = [
    (
        "hypercalls",
        &[
            SIMPLE,
            Workload {
                suffix: super::NO_SANDBOX,
                ours: true,
                options: super::WITHOUT_SANDBOX,
                ..SIMPLE
            },
            Workload {
                unikernel: "bench-abi1.hvt",
                suffix: ", ABI 1",
                ours: true,
                ..SIMPLE
            },
            Workload {
                unikernel: "bench-e1.hvt",
                suffix: ", Solo5 0.4",
                ours: true,
                ..SIMPLE
            },
        ],
    ),
    (
        "hypercalls of devices",
        &[Workload {
            unikernel: "bench-io.hvt",
            suffix: ", I/O",
            calls: "poll0, block write and read, 2 net writes, net read",
            net: true,
            block: true,
            ..SIMPLE
        }],
    ),
    (
        "the shared ring",
        &[Workload {
            unikernel: "bench-ring.hvt",
            calls: "2 ring writes, ring read",
            net: true,
            ..SIMPLE
        }],
    ),
];

pub fn measure(bench: &Bench) -> Result<()> {
    for (what, workloads) in WORKLOADS {
        bench.take_turns(what, ROUNDS, |samples, subject, tender| {
            let mut known = workloads
                .iter()
                .filter(|workload| subject.is_ours() || !workload.ours);
            known.try_for_each(|workload| workload.run(bench, samples, subject, tender))
        })?;
    }
    Ok(())
}

/// Returns the workloads that every tender runs.
pub fn common() -> impl Iterator<Item = &'static Workload> {
    let all = WORKLOADS.iter().flat_map(|(_, workloads)| *workloads);
    all.filter(|workload| !workload.ours)
}

/// Adds the lines that the unikernel has printed to the samples, with `suffix` after their names.
pub fn add(samples: &mut Samples, subject: Subject, suffix: &str, text: &str) -> Result<()> {
    for line in text.lines() {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let ["bench", name, _calls, _ticks, nanoseconds] = arguments[..] else {
            continue;
        };
        let value = nanoseconds
            .parse()
            .context(format_args!("the unikernel printed '{line}'"))?;
        samples.add(&format!("{name}{suffix}"), subject, value);
    }
    Ok(())
}

impl Workload {
    /// Whether it has an interface and a disk.
    pub fn has_devices(&self) -> bool {
        self.net && self.block
    }

    /// The unikernel, with the devices that it needs.
    pub fn command(&self, bench: &Bench, subject: Subject, tender: &Path, calls: u64) -> Command {
        let (tap, disk) = (
            format!("--net:service={TAP}"),
            format!("--block:storage={}", bench.disk().display()),
        );
        let devices = [(self.net, &tap), (self.block, &disk)];
        let devices = devices.iter().filter(|(needed, _)| *needed);
        let devices = devices.map(|(_, option)| option.as_str());
        let options: Vec<&str> = self.options.iter().copied().chain(devices).collect();
        let unikernel = bench.fixture(self.unikernel);
        let mut command = inside::command(subject, tender, MEMORY, &options, &unikernel);
        command.arg(format!("n={calls}"));
        command
    }

    fn run(
        &self,
        bench: &Bench,
        samples: &mut Samples,
        subject: Subject,
        tender: &Path,
    ) -> Result<()> {
        let text = process::output(&mut self.command(bench, subject, tender, CALLS))?;
        add(samples, subject, self.suffix, &text)
    }

    /// Returns the system calls of one hypercall of each kind: the difference of two runs.
    pub fn system_calls(&self, bench: &Bench, subject: Subject, tender: &Path) -> Result<String> {
        const FEW: u64 = 100;
        let few = trace::count(&mut self.command(bench, subject, tender, FEW))?;
        let many = trace::count(&mut self.command(bench, subject, tender, 2 * FEW))?;
        let mut list = Vec::new();
        for (number, count) in &many.later {
            let more = count.saturating_sub(few.later.get(number).copied().unwrap_or(0));
            if more > 0 {
                list.push(format!(
                    "{} {:.2}",
                    trace::name(*number),
                    more as f64 / FEW as f64
                ));
            }
        }
        Ok(if list.is_empty() {
            "none".to_string()
        } else {
            list.join(", ")
        })
    }
}
