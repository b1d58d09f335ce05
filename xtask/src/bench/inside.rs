//! The measurements, made in a network namespace on this machine or inside an emulated one.

use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::entry::Trace;
use super::flood::{FLOODS, Setting};
use super::sample::{self, Samples, Subject};
use super::trace;
use crate::base::error::{Context, Result, fail};
use crate::base::options::Options;
use crate::base::{process, progress};
use crate::machines::host;
use crate::machines::net;

/// Turns of the tenders, and hypercalls of each kind in one turn.
const ROUNDS: usize = 7;
const CALLS: u64 = 2000;

/// Floods of each kind of each tender.
const FLOOD_ROUNDS: usize = 3;

/// Starts of each tender; as many again are traced.
const STARTS: usize = 25;

/// Time limit of a run.
const PATIENCE: Duration = Duration::from_secs(120);

/// Interval of progress messages.
const QUIET: Duration = Duration::from_secs(10);

const TAP: &str = "tap100";
const DISK_SIZE: u64 = 1 << 20;

/// A unikernel that measures hypercalls.
struct Workload {
    unikernel: &'static str,
    /// Suffix for the names of its results.
    suffix: &'static str,
    /// One of each hypercall that it measures.
    calls: &'static str,
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
                suffix: NO_SANDBOX,
                ours: true,
                options: WITHOUT_SANDBOX,
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

/// Suffix for the names of a tender's results without its sandbox.
const NO_SANDBOX: &str = ", no sandbox";

/// The option that turns tender's sandbox off.
const WITHOUT_SANDBOX: &[&str] = &["--sandbox=off"];

/// Options of a start, and suffixes for the names of its results. Only tender has the second.
const STARTED: [(&[&str], &str); 2] = [(&[], ""), (WITHOUT_SANDBOX, NO_SANDBOX)];

const FIRST_INSTRUCTION: &str = "exec to first guest instruction";

/// The subjects and the tools of the measurement.
struct Bench {
    subjects: Vec<(Subject, PathBuf)>,
    fixtures: PathBuf,
    disk: PathBuf,
}

pub fn run(options: &mut Options) -> Result<()> {
    let tender = options.required(host::TENDER)?;
    let fixtures = options.required(host::FIXTURES)?;
    let mut subjects = vec![(Subject::Ours, tender)];
    if let Some(peer) = options.value("--peer")? {
        subjects.push((Subject::Peer, PathBuf::from(peer)));
    }
    let starts = options.flag("--starts");
    options.finish()?;
    net::enter_namespace()?;
    net::make_tap(TAP, Ipv4Addr::new(10, 0, 0, 1))?;
    let disk = std::env::temp_dir().join(format!("tender-bench-{}.img", std::process::id()));
    let image = File::create(&disk).context(format_args!("cannot create {}", disk.display()))?;
    image
        .set_len(DISK_SIZE)
        .context("cannot size the disk image")?;
    let bench = Bench {
        subjects,
        fixtures,
        disk,
    };
    let measured = bench.measure(starts);
    let _ = std::fs::remove_file(&bench.disk);
    measured
}

impl Subject {
    /// Returns its kinds of start, as in `STARTED`.
    fn started(self) -> &'static [(&'static [&'static str], &'static str)] {
        if self == Subject::Ours {
            &STARTED
        } else {
            &STARTED[..1]
        }
    }
}

impl Bench {
    fn measure(&self, only_starts: bool) -> Result<()> {
        println!(
            "nanoseconds; {ROUNDS} rounds of {CALLS} hypercalls of each kind, {STARTS} starts"
        );
        print!("{}", sample::header());
        if !only_starts {
            self.work()?;
        }
        self.take_turns("starts", STARTS, |samples, subject, tender| {
            self.starts(samples, subject, tender)
        })?;
        // The other results are valid without this one.
        if let Err(reason) = self.first_instruction() {
            println!("{FIRST_INSTRUCTION}: not measured: {reason}");
        }
        for (subject, tender) in &self.subjects {
            self.fixed_costs(*subject, tender)?;
        }
        Ok(())
    }

    /// Measures hypercalls and floods.
    fn work(&self) -> Result<()> {
        for (what, workloads) in WORKLOADS {
            self.take_turns(what, ROUNDS, |samples, subject, tender| {
                let mut known = workloads
                    .iter()
                    .filter(|workload| subject == Subject::Ours || !workload.ours);
                known.try_for_each(|workload| self.hypercalls(samples, subject, tender, workload))
            })?;
        }
        let unikernel = &self.fixture("ring.hvt");
        for flood in FLOODS {
            self.take_turns(&flood.name(), FLOOD_ROUNDS, |samples, subject, tender| {
                flood.run(
                    samples,
                    subject,
                    &Setting {
                        tender,
                        unikernel,
                        tap: TAP,
                    },
                )
            })?;
        }
        Ok(())
    }

    /// Alternates the tenders, then prints the rows. Progress messages come between two turns, so
    /// they disturb none.
    fn take_turns(
        &self,
        what: &str,
        rounds: usize,
        mut turn: impl FnMut(&mut Samples, Subject, &Path) -> Result<()>,
    ) -> Result<()> {
        progress::note(format_args!("measuring {what}"));
        let (mut samples, mut last_note) = (Samples::default(), Instant::now());
        for round in 1..=rounds {
            for (subject, tender) in &self.subjects {
                if last_note.elapsed() >= QUIET {
                    progress::note(format_args!(
                        "measuring {what}: round {round} of {rounds}, {}",
                        subject.name()
                    ));
                    last_note = Instant::now();
                }
                turn(&mut samples, *subject, tender)?;
            }
        }
        print!("{}", samples.rows());
        Ok(())
    }

    fn fixture(&self, name: &str) -> PathBuf {
        self.fixtures.join(name)
    }

    /// A unikernel that measures, with the devices that it needs.
    fn command(&self, tender: &Path, workload: &Workload, calls: u64) -> Command {
        let mut command = Command::new(tender);
        // A bare number of MiB, which every tender accepts.
        command.arg("--mem=8").args(workload.options);
        if workload.net {
            command.arg(format!("--net:service={TAP}"));
        }
        if workload.block {
            command.arg(format!("--block:storage={}", self.disk.display()));
        }
        command
            .arg("--")
            .arg(self.fixture(workload.unikernel))
            .arg(format!("n={calls}"));
        command
    }

    fn hypercalls(
        &self,
        samples: &mut Samples,
        subject: Subject,
        tender: &Path,
        workload: &Workload,
    ) -> Result<()> {
        let text = process::output(&mut self.command(tender, workload, CALLS))?;
        for line in text.lines() {
            let arguments: Vec<&str> = line.split_whitespace().collect();
            let ["bench", name, _calls, _ticks, nanoseconds] = arguments[..] else {
                continue;
            };
            let value = nanoseconds
                .parse()
                .context(format_args!("the unikernel printed '{line}'"))?;
            samples.add(&format!("{name}{}", workload.suffix), subject, value);
        }
        Ok(())
    }

    fn hello(&self, tender: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(tender);
        command
            .arg("--mem=64")
            .args(options)
            .arg("--")
            .arg(self.fixture("hello.hvt"));
        command
    }

    /// Measures from the start of the tender, by fork and exec, to the first output of `hello`, and
    /// to its end.
    fn starts(&self, samples: &mut Samples, subject: Subject, tender: &Path) -> Result<()> {
        for (options, suffix) in subject.started() {
            let mut command = self.hello(tender, options);
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
                return fail(format!("hello ended with {status}"));
            }
            samples.add(
                &format!("start to first output{suffix}"),
                subject,
                first.as_nanos() as u64,
            );
            samples.add(
                &format!("start to end of hello{suffix}"),
                subject,
                end.as_nanos() as u64,
            );
        }
        Ok(())
    }

    /// In separate starts, so that tracing cannot affect the other results.
    fn first_instruction(&self) -> Result<()> {
        let trace = Trace::begin()?;
        self.take_turns("traced starts", STARTS, |samples, subject, tender| {
            for (options, suffix) in subject.started() {
                let time =
                    trace.exec_to_guest(self.hello(tender, options).stdout(Stdio::null()))?;
                samples.add(
                    &format!("{FIRST_INSTRUCTION}{suffix}"),
                    subject,
                    time.as_nanos() as u64,
                );
            }
            Ok(())
        })
    }

    /// Measures what does not vary: system calls, memory, size.
    fn fixed_costs(&self, subject: Subject, tender: &Path) -> Result<()> {
        let whose = subject.name();
        progress::note(format_args!("counting system calls of the {whose}"));
        let calls = trace::count(&mut self.hello(tender, &[]))?.start;
        println!("{whose}: system calls from exec to the guest's first instruction: {calls}");
        let workloads = WORKLOADS.iter().flat_map(|(_, workloads)| *workloads);
        for workload in workloads.filter(|workload| !workload.ours) {
            let (calls, counted) = (workload.calls, self.calls(tender, workload)?);
            println!(
                "{whose}: system calls in addition to KVM_RUN for one each of {calls}: {counted}"
            );
        }
        println!(
            "{whose}: memory without the guest's, resident: {} KiB",
            self.resident(tender)?
        );
        let size = std::fs::metadata(tender)
            .context("cannot look at the tender's binary")?
            .len();
        println!("{whose}: size of the binary: {size} bytes");
        Ok(())
    }

    /// Returns the system calls of one hypercall of each kind: the difference of two runs.
    fn calls(&self, tender: &Path, workload: &Workload) -> Result<String> {
        const FEW: u64 = 100;
        let few = trace::count(&mut self.command(tender, workload, FEW))?;
        let many = trace::count(&mut self.command(tender, workload, 2 * FEW))?;
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

    /// Returns resident memory of the tender while a guest runs, without the guest's own, in KiB.
    fn resident(&self, tender: &Path) -> Result<u64> {
        const GUEST_MIB: u64 = 66;
        let mut command = Command::new(tender);
        command
            .arg(format!("--mem={GUEST_MIB}"))
            .arg("--")
            .arg(self.fixture("hypercalls.hvt"))
            .arg("spin");
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the tender")?;
        std::thread::sleep(Duration::from_millis(500));
        let maps = std::fs::read_to_string(format!("/proc/{}/smaps", child.id()));
        let _ = child.kill();
        process::wait(&mut child, PATIENCE)?;
        Ok(resident_without(
            &maps.context("cannot look at the tender's memory")?,
            GUEST_MIB * 1024,
        ))
    }
}

/// Sums `Rss` over the mappings of a process, except those of at least `guest` KiB: they are the
/// guest's memory.
fn resident_without(smaps: &str, guest: u64) -> u64 {
    let number = |line: &str| {
        line.split_whitespace()
            .nth(1)
            .and_then(|word| word.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let (mut sum, mut size) = (0, 0);
    for line in smaps.lines() {
        if line.starts_with("Size:") {
            size = number(line);
        } else if line.starts_with("Rss:") && size < guest {
            sum += number(line);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::resident_without;

    #[test]
    fn the_guests_memory_does_not_count() {
        let maps = "a\nSize: 100 kB\nRss: 60 kB\nb\nSize: 65536 kB\nRss: 2000 kB\nc\nSize: 4 kB\nRss: 4 kB\n";
        assert_eq!(resident_without(maps, 65536), 64);
    }
}
