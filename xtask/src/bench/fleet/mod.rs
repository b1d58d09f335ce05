//! `cargo xtask fleet`: many idle unikernels on one host, each with its own tender, and the cost of
//! each, optionally compared with another tender.
//!
//! The unikernel is the web server, as in real fleets: it has answered once and waits for the next
//! request. All run in one network namespace, with a tap and a network each.

mod member;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::proc::{self, Memory};
use super::sample::{Samples, Subject, Table};
use crate::base::error::{Context, Result, fail};
use crate::base::options::Options;
use crate::base::{process, progress};
use crate::build::arch::Arch;
use crate::build::fixtures;
use crate::dist;
use crate::machines::{host, net};
use member::Member;

const UNIKERNEL: &str = "web.hvt";
const MEMORY: u32 = 32;

/// Each has a separate network 10.HIGH.LOW.0/24.
const MOST: u16 = 4096;

/// Time limit for one of them to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Idle time before a measurement: the host sends frames on a new interface, and frees the memory
/// of one that is gone.
const SETTLE: Duration = Duration::from_secs(3);

/// The kernel's memory, by the names of /proc/meminfo. With most kernels, vmalloc contains the
/// stacks.
const KERNEL: [&str; 5] = [
    "Slab",
    "PageTables",
    "SecPageTables",
    "KernelStack",
    "VmallocUsed",
];

/// What every fleet of this run has in common.
struct Fleet {
    image: PathBuf,
    count: u16,
    idle: Duration,
    metrics: bool,
}

pub fn run(options: &mut Options) -> Result<()> {
    let count = number(options, "--count", 100)?.clamp(1, MOST);
    let seconds = number(options, "--seconds", 10)?.max(1);
    let tender = options.value("--tender")?.map(PathBuf::from);
    let peer = super::peer(options)?;
    let metrics = options.flag("--metrics");
    options.finish()?;
    host::kvm()?;
    let arch = Arch::host()?;
    let fleet = Fleet {
        image: fixtures::directory(arch).join(UNIKERNEL),
        count,
        idle: Duration::from_secs(seconds.into()),
        metrics,
    };
    let tender = tender.map_or_else(|| dist::binary(arch), Ok)?;
    net::enter_namespace()?;
    // Otherwise the host sends unrequested frames on each new interface.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let mut samples = Samples::default();
    let mut table = vec![Subject::Ours];
    fleet.measure(&mut samples, Subject::Ours, &tender)?;
    if let Some(peer) = peer {
        table.push(Subject::Peer);
        progress::note(
            "slabs of the first fleet serve the second; compare kernel memory by separate runs",
        );
        fleet.measure(&mut samples, Subject::Peer, &peer)?;
    }
    let table = Table::of(table);
    println!("{count} unikernels of {MEMORY} MiB, {UNIKERNEL}, idle for {seconds} s; of each:");
    print!("{}{}", table.header(), table.rows(&samples));
    Ok(())
}

fn number(options: &mut Options, name: &str, default: u16) -> Result<u16> {
    let Some(text) = options.value(name)? else {
        return Ok(default);
    };
    text.parse().context(format_args!(
        "{name} {text} is no number up to {}",
        u16::MAX
    ))
}

fn milliseconds(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}

impl Fleet {
    /// Starts all with one tender, measures and ends them.
    fn measure(&self, samples: &mut Samples, subject: Subject, tender: &Path) -> Result<()> {
        progress::note(format_args!("the fleet of the {}", subject.name()));
        // A metrics option is one that only tender has.
        let metrics = self.metrics && subject == Subject::Ours;
        let before = proc::meminfo(KERNEL)?;
        let began = Instant::now();
        let mut members = (0..self.count)
            .map(|index| Member::start(tender, &self.image, index, metrics))
            .collect::<Result<Vec<_>>>()?;
        members.iter_mut().try_for_each(Member::answer)?;
        samples.add("all answer, ms", subject, milliseconds(began));
        std::thread::sleep(SETTLE);
        idle(&members, self.idle, samples, subject)?;
        for (name, (before, after)) in KERNEL.iter().zip(before.iter().zip(proc::meminfo(KERNEL)?))
        {
            let each = after.saturating_sub(*before) / u64::from(self.count);
            samples.add(&format!("kernel memory, {name}, KiB"), subject, each);
        }
        members.iter_mut().try_for_each(Member::answer)?;
        if metrics {
            let sizes = members.iter().map(Member::scrape);
            let bytes = sizes.sum::<Result<usize>>()?;
            println!("metrics of all: {bytes} bytes");
        }
        let began = Instant::now();
        end(members, subject)?;
        samples.add("all ended by SIGTERM, ms", subject, milliseconds(began));
        (0..self.count).try_for_each(|index| net::remove_tap(&member::tap(index)))?;
        std::thread::sleep(SETTLE);
        Ok(())
    }
}

/// Measures idle unikernels: memory, processor time, wake-ups.
fn idle(
    members: &[Member],
    duration: Duration,
    samples: &mut Samples,
    subject: Subject,
) -> Result<()> {
    let pids = || members.iter().map(|member| member.tender.id());
    let used = || {
        pids()
            .map(|pid| Ok([proc::processor_time(pid)? / 1000, proc::sleeps(pid)?]))
            .collect::<Result<Vec<_>>>()
    };
    let before = used()?;
    std::thread::sleep(duration);
    let after = used()?;
    for pid in pids() {
        let memory = Memory::of(pid)?;
        samples.add("own memory, KiB", subject, memory.own);
        samples.add(
            "with its share of others (PSS), KiB",
            subject,
            memory.proportional,
        );
        samples.add("resident (RSS), KiB", subject, memory.resident);
    }
    for (before, after) in before.iter().zip(&after) {
        for (index, name) in ["processor time, us", "wake-ups"].iter().enumerate() {
            samples.add(name, subject, after[index] - before[index]);
            samples.add(&format!("{name}, until then"), subject, before[index]);
        }
    }
    Ok(())
}

/// Sends all the signal together, and waits for their end. Ours must end by it; a peer may end with
/// another status, which is reported.
fn end(mut members: Vec<Member>, subject: Subject) -> Result<()> {
    for member in &members {
        process::terminate(&member.tender);
    }
    let mut others: Vec<ExitStatus> = Vec::new();
    for member in &mut members {
        let status = process::wait(&mut member.tender, PATIENCE)?;
        if status.signal() == Some(libc::SIGTERM) {
            continue;
        }
        if subject == Subject::Ours {
            return fail(format!(
                "the tender of {} ended with {status}, not by SIGTERM",
                member.address
            ));
        }
        others.push(status);
    }
    if let Some(status) = others.first() {
        progress::note(format_args!(
            "on SIGTERM, {} of the {} ended with {status}",
            others.len(),
            subject.name()
        ));
    }
    Ok(())
}
