//! The frequency of the time-stamp counter, which KVM knows.

use std::arch::x86_64::{__cpuid, _rdtsc};
use std::fs;
use std::time::{Duration, Instant};

/// The guest's counter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counter {
    pub kilohertz: u32,
    /// Whether RDTSC must be emulated: the processor's counter does not run at one rate.
    pub is_emulated: bool,
}

/// Frequency of an emulated counter: nanoseconds.
const NANOSECONDS: u32 = 1_000_000;

/// Time in which the frequency is measured: 10 millionths of it are the error of a reading.
const MEASURE: Duration = Duration::from_millis(5);

impl Counter {
    /// Returns the counter of this host.
    pub(super) fn of_host() -> Counter {
        if !is_stable() {
            return Counter {
                kilohertz: NANOSECONDS,
                is_emulated: true,
            };
        }
        Counter {
            kilohertz: documented().unwrap_or_else(measured),
            is_emulated: false,
        }
    }
}

/// Returns whether the counter runs at one rate, also in deep sleep, or the kernel relies on it.
fn is_stable() -> bool {
    const PATH: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    const INVARIANT: u32 = 1 << 8;
    let [_, _, _, edx] = cpuid(0x8000_0007, 0x8000_0000);
    edx & INVARIANT != 0 || fs::read_to_string(PATH).is_ok_and(|name| name.trim() == "tsc")
}

/// Returns the frequency that the processor or the hypervisor below documents.
fn documented() -> Option<u32> {
    const HYPERVISOR: u32 = 0x4000_0000;
    let [denominator, numerator, crystal, _] = cpuid(0x15, 0);
    let product = u64::from(crystal) * u64::from(numerator);
    if let Some(hertz) = product
        .checked_div(denominator.into())
        .filter(|hertz| *hertz > 0)
    {
        return u32::try_from(hertz / 1000).ok();
    }
    let [kilohertz, ..] = cpuid(HYPERVISOR + 0x10, HYPERVISOR);
    (kilohertz > 0).then_some(kilohertz)
}

/// Returns the registers of a CPUID leaf, in the order of their letters; zeroes if `first`, the
/// first leaf of its kind, says that there is none.
#[allow(
    unused_unsafe,
    reason = "CPUID is a safe function in newer versions of Rust"
)]
fn cpuid(leaf: u32, first: u32) -> [u32; 4] {
    // SAFETY: every x86_64 processor has CPUID.
    let [last, found] = [first, leaf].map(|leaf| unsafe { __cpuid(leaf) });
    if (first..=last.eax).contains(&leaf) {
        [found.eax, found.ebx, found.ecx, found.edx]
    } else {
        [0; 4]
    }
}

/// Measures the frequency by the host's monotonic clock.
fn measured() -> u32 {
    let (start, first) = reading();
    std::thread::sleep(MEASURE);
    let (end, last) = reading();
    let nanoseconds = end.duration_since(start).as_nanos().max(1);
    let cycles = u128::from(last.wrapping_sub(first));
    u32::try_from(cycles * 1_000_000 / nanoseconds).unwrap_or(u32::MAX)
}

/// Returns the time and the counter at the same moment: of a few readings, the one with the least
/// time in between.
fn reading() -> (Instant, u64) {
    let once = || {
        let before = now();
        let time = Instant::now();
        let taken = now().wrapping_sub(before);
        (taken, (time, before + taken / 2))
    };
    let first = once();
    let best = |best: (u64, _), next: (u64, _)| if next.0 < best.0 { next } else { best };
    (0..8).map(|_| once()).fold(first, best).1
}

fn now() -> u64 {
    // SAFETY: every x86_64 processor has RDTSC.
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_near_what_is_documented() {
        let Some(documented) = documented() else {
            return;
        };
        let measured = measured();
        assert!(
            measured.abs_diff(documented) < documented / 100,
            "{measured} {documented}"
        );
    }
}
