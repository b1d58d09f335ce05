//! Frames sent as fast as they go, by the shared ring where a tender offers it. What counts is the time and the
//! processor time for one frame.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::sample::{Samples, Subject};
use crate::error::{Context, Result, fail};
use crate::process;

/// Frames of one flood.
const FRAMES: u64 = 4000;

/// Lengths of the frames.
const SIZES: [usize; 2] = [60, 1514];

/// Runs every flood once.
pub fn run(samples: &mut Samples, subject: Subject, tender: &Path, unikernel: &Path, tap: &str) -> Result<()> {
    for size in SIZES {
        let mut command = Command::new(tender);
        command.arg("--mem=16").arg(format!("--net:service={tap}")).arg("--").arg(unikernel);
        command.arg(format!("writes={FRAMES}")).arg(format!("size={size}"));
        let before = cpu_time();
        let said = process::output(&mut command)?;
        samples.add(&format!("flood, {size} B: time"), subject, took(&said)? / FRAMES);
        samples.add(&format!("flood, {size} B: CPU time"), subject, (cpu_time() - before).as_nanos() as u64 / FRAMES);
    }
    Ok(())
}

/// What the unikernel says it took, in nanoseconds.
fn took(said: &str) -> Result<u64> {
    let line = said.lines().find_map(|line| line.strip_prefix("ring: took ")?.strip_suffix(" ns"));
    line.map_or_else(|| fail("the unikernel did not say how long it took"), |n| n.parse().context("a time is a number"))
}

/// Processor time of the children that have ended.
fn cpu_time() -> Duration {
    // SAFETY: the structure is plain numbers for the kernel to fill in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let time = |value: libc::timeval| Duration::new(value.tv_sec as u64, value.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}
