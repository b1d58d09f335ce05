//! Costs that do not vary: system calls, resident memory, size of the binary.

use std::ops::Range;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::inside::{self, Bench};
use super::sample::Subject;
use super::{hypercalls, starts, trace};
use crate::base::error::{Context, Result};
use crate::base::{process, progress};

/// Time limit for the end of a killed tender.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn measure(bench: &Bench) -> Result<()> {
    for (subject, tender) in bench.tenders() {
        let whose = subject.name();
        progress::note(format_args!("counting system calls of the {whose}"));
        let mut hello = starts::command(subject, tender, &[], &bench.fixture(starts::UNIKERNEL));
        let calls = trace::count(&mut hello)?.start;
        println!("{whose}: system calls from exec to the guest's first instruction: {calls}");
        for workload in hypercalls::common() {
            let (calls, counted) = (
                workload.calls,
                workload.system_calls(bench, subject, tender)?,
            );
            println!(
                "{whose}: system calls in addition to KVM_RUN for one each of {calls}: {counted}"
            );
        }
        println!(
            "{whose}: memory without the guest's, resident: {} KiB",
            resident(bench, subject, tender)?
        );
        let size = std::fs::metadata(tender)
            .context("cannot look at the tender's binary")?
            .len();
        println!("{whose}: size of the binary: {size} bytes");
    }
    Ok(())
}

/// Returns resident memory of the tender while a guest runs, without the guest's own, in KiB.
fn resident(bench: &Bench, subject: Subject, tender: &Path) -> Result<u64> {
    const GUEST_MIB: u32 = 66;
    let unikernel = bench.fixture("hypercalls.hvt");
    let mut command = inside::command(subject, tender, GUEST_MIB, &[], &unikernel);
    let mut child = command
        .arg("spin")
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
        u64::from(GUEST_MIB) * 1024,
    ))
}

/// Sums `Rss` over the mappings of a process, except those of the guest's memory of `guest` KiB,
/// which may consist of several: the largest is the last of them.
fn resident_without(smaps: &str, guest: u64) -> u64 {
    let mut mappings: Vec<(Range<u64>, u64)> = Vec::new();
    for line in smaps.lines() {
        if let Some(addresses) = addresses(line) {
            mappings.push((addresses, 0));
        } else if let (Some(rss), Some((_, sum))) = (line.strip_prefix("Rss:"), mappings.last_mut())
        {
            let number = rss.split_whitespace().next();
            *sum = number.and_then(|number| number.parse().ok()).unwrap_or(0);
        }
    }
    let sizes = mappings.iter().map(|(range, _)| range);
    let end = sizes
        .max_by_key(|range| range.end - range.start)
        .map_or(0, |range| range.end);
    let memory = end.saturating_sub(guest * 1024)..end;
    let outside = |range: &Range<u64>| range.start < memory.start || range.end > memory.end;
    let others = mappings.iter().filter(|(range, _)| outside(range));
    others.map(|(_, rss)| rss).sum()
}

/// Parses the first line of a mapping.
fn addresses(line: &str) -> Option<Range<u64>> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(number(start)?..number(end)?)
}

#[cfg(test)]
mod tests {
    use super::resident_without;

    #[test]
    fn the_guests_memory_does_not_count_in_one_mapping_or_several() {
        let before = "1000-9000 r-xp 0 0:1 2 /bin/tender\nSize: 32 kB\nRss: 20 kB\n";
        let after = "7ff000-800000 rw-p 0 0:0 0\nSize: 4 kB\nRss: 4 kB\n";
        let one = "100000-140000 rw-p 0 0:0 0\nSize: 256 kB\nRss: 200 kB\n";
        let image = "100000-102000 rw-p 1000 0:1 3 app.hvt\nSize: 8 kB\nRss: 8 kB\n";
        let rest = "102000-140000 rw-p 0 0:0 0\nSize: 248 kB\nRss: 100 kB\n";
        for guest in [one.to_string(), image.to_string() + rest] {
            let maps = format!("{before}{guest}{after}");
            assert_eq!(resident_without(&maps, 256), 24, "{maps}");
        }
    }
}
