//! A guest in a process next to one in a KVM machine, and next to a native process.

use std::time::{Duration, Instant};

use super::idle::{self, Guest};
use super::inside::{self, Bench};
use super::proc;
use super::sample::{Samples, Subject};
use super::{hypercalls, starts};
use crate::base::error::Result;
use crate::base::process;

/// The code of the test unikernel.
#[path = "../../../fixtures/programs/src/work.rs"]
mod work;

/// Turns, and calls of the work in one turn: with KVM fewer, as in software it takes some
/// microseconds for an instruction.
const ROUNDS: usize = 7;
const CALLS: u64 = 2000;
const CALLS_BY_KVM: u64 = 20;

/// Suffix for the name of the work.
const WORK: &str = ", 10,000 rounds";

/// Time that an idle guest is watched.
const IDLE: Duration = Duration::from_secs(2);

pub fn measure(bench: &Bench) -> Result<()> {
    hypercalls::measure(bench)?;
    starts::ends(bench)?;
    bench.take_turns(
        "work of the processor alone",
        ROUNDS,
        |samples, subject, tender| {
            let unikernel = bench.fixture("bench.hvt");
            let mut command = inside::command(subject, tender, hypercalls::MEMORY, &[], &unikernel);
            let calls = if subject == Subject::Kvm {
                CALLS_BY_KVM
            } else {
                CALLS
            };
            command.arg("cpu=1").arg(format!("n={calls}"));
            hypercalls::add(samples, subject, WORK, &process::output(&mut command)?)?;
            native(samples, subject);
            Ok(())
        },
    )?;
    bench.take_turns("an idle guest", 1, |samples, subject, tender| {
        let guest = Guest::start(subject, tender, &bench.fixture(idle::UNIKERNEL))?;
        std::thread::sleep(idle::SETTLE);
        let before = used(guest.id())?;
        std::thread::sleep(IDLE);
        let after = used(guest.id())?;
        for (at, what) in ["processor time", "wake-ups"].into_iter().enumerate() {
            let name = format!("idle for {} s: {what}", IDLE.as_secs());
            samples.add(&name, subject, after[at] - before[at]);
        }
        Ok(())
    })
}

/// The same work in this process, once for each turn of the first tender.
fn native(samples: &mut Samples, subject: Subject) {
    if subject != Subject::Process {
        return;
    }
    let start = Instant::now();
    for call in 0..CALLS {
        std::hint::black_box(work::work(call));
    }
    let each = start.elapsed().as_nanos() as u64 / CALLS;
    samples.add(&format!("cpu{WORK}"), Subject::Native, each);
}

/// Returns nanoseconds of processor time, and the number of wake-ups, of a process and its children.
fn used(pid: u32) -> Result<[u64; 2]> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    let mut sum = [0, 0];
    for pid in [pid].into_iter().chain(children) {
        sum[0] += proc::processor_time(pid)?;
        sum[1] += proc::sleeps(pid)?;
    }
    Ok(sum)
}
