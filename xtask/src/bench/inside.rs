//! The measurements, made in a network namespace on this machine or inside an emulated one.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::flood::{self, FLOODS, Setting};
use super::sample::{Samples, Subject, Table};
use super::{engines, fixed, hypercalls, idle, large, layout, network, starts};
use crate::base::error::{Context, Result};
use crate::base::options::Options;
use crate::base::progress;
use crate::machines::engine::Engine;
use crate::machines::{host, net};

/// Interval of progress messages.
const QUIET: Duration = Duration::from_secs(10);

/// The tap of every guest with a network, and the address of its end.
pub const TAP: &str = "tap100";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

const DISK_SIZE: u64 = 1 << 20;

/// The tenders and the tools of the measurement.
pub struct Bench {
    tenders: Vec<(Subject, PathBuf)>,
    table: Table,
    fixtures: PathBuf,
    /// Directory of the files that the measurement makes.
    scratch: PathBuf,
    /// The machine is one of ours, whose settings may be changed.
    pub emulated: bool,
}

pub fn run(options: &mut Options) -> Result<()> {
    let tender = options.required(host::TENDER)?;
    let by_process = Engine::option(options)? == Some(Engine::Process);
    let subjects: &[Subject] = match (by_process, host::kvm()) {
        (false, _) => &[Subject::Ours],
        (true, Ok(())) => &[Subject::Process, Subject::Kvm],
        (true, Err(_)) => &[Subject::Process],
    };
    let subjects = subjects.iter().copied();
    let mut tenders: Vec<_> = subjects.map(|subject| (subject, tender.clone())).collect();
    let fixtures = options.required(host::FIXTURES)?;
    for (option, subject) in super::OTHERS {
        let path = options.value(option)?.map(PathBuf::from);
        tenders.extend(path.map(|path| (subject, path)));
    }
    let only_starts = options.flag(super::STARTS);
    let code = options.value(super::CODE)?.map(PathBuf::from);
    let emulated = options.flag(super::EMULATED);
    options.finish()?;
    net::enter_namespace()?;
    net::make_tap(TAP, ADDRESS)?;
    let scratch = std::env::temp_dir().join(format!("tender-bench-{}", std::process::id()));
    fs::create_dir(&scratch).context(format_args!("cannot make {}", scratch.display()))?;
    let columns = tenders.iter().map(|(subject, _)| *subject);
    let bench = Bench {
        table: Table::of(columns.chain(by_process.then_some(Subject::Native))),
        tenders,
        fixtures,
        scratch,
        emulated,
    };
    let measured = match code {
        Some(code) => bench
            .make_files()
            .and_then(|()| layout::trace(&bench, &code)),
        None if by_process => bench.compare_engines(),
        None => bench.measure(only_starts),
    };
    let _ = fs::remove_dir_all(&bench.scratch);
    measured
}

impl Bench {
    fn measure(&self, only_starts: bool) -> Result<()> {
        self.make_files()?;
        println!("nanoseconds, unless the row names a unit");
        print!("{}", self.table.header());
        if !only_starts {
            hypercalls::measure(self)?;
            self.floods()?;
            network::measure(self)?;
            idle::measure(self)?;
        }
        starts::measure(self)?;
        fixed::measure(self)
    }

    fn compare_engines(&self) -> Result<()> {
        self.make_files()?;
        println!("nanoseconds, unless the row names another quantity");
        print!("{}", self.table.header());
        engines::measure(self)
    }

    fn make_files(&self) -> Result<()> {
        let disk = self.disk();
        let image =
            File::create(&disk).context(format_args!("cannot create {}", disk.display()))?;
        image
            .set_len(DISK_SIZE)
            .context("cannot size the disk image")?;
        for name in [starts::UNIKERNEL, idle::UNIKERNEL] {
            large::make(&self.fixture(name), &self.large(name))?;
        }
        Ok(())
    }

    fn floods(&self) -> Result<()> {
        let unikernel = &self.fixture("ring.hvt");
        for flood in FLOODS {
            self.take_turns(&flood.name(), flood::ROUNDS, |samples, subject, tender| {
                let setting = Setting {
                    tender,
                    unikernel,
                    tap: TAP,
                };
                flood.run(samples, subject, &setting)
            })?;
        }
        Ok(())
    }

    /// Alternates the tenders, then prints the rows. Progress messages come between two turns, so
    /// they disturb none.
    pub fn take_turns(
        &self,
        what: &str,
        rounds: usize,
        mut turn: impl FnMut(&mut Samples, Subject, &Path) -> Result<()>,
    ) -> Result<()> {
        progress::note(format_args!("measuring {what}"));
        let (mut samples, mut last_note) = (Samples::default(), Instant::now());
        for round in 1..=rounds {
            for (subject, tender) in &self.tenders {
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
        print!("{}", self.table.rows(&samples));
        Ok(())
    }

    pub fn tenders(&self) -> impl Iterator<Item = (Subject, &Path)> {
        self.tenders
            .iter()
            .map(|(subject, path)| (*subject, path.as_path()))
    }

    pub fn fixture(&self, name: &str) -> PathBuf {
        self.fixtures.join(name)
    }

    /// The unikernel `name` with some MiB of data.
    pub fn large(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    pub fn disk(&self) -> PathBuf {
        self.scratch.join("disk.img")
    }
}

/// Returns the command that runs `unikernel` with `memory` MiB; its arguments can be added.
pub fn command(
    subject: Subject,
    tender: &Path,
    memory: u32,
    options: &[&str],
    unikernel: &Path,
) -> Command {
    let mut command = Command::new(tender);
    if subject == Subject::Process {
        command.arg(Engine::Process.as_option());
    }
    // A bare number of MiB, which every tender accepts.
    command.arg(format!("--mem={memory}")).args(options);
    command.arg("--").arg(unikernel);
    command
}
