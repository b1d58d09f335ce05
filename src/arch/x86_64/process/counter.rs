//! The frequency of the time-stamp counter, which KVM knows.

use std::arch::x86_64::{__cpuid, _rdtsc};
use std::fs;

use crate::report::clock;

/// The guest's counter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counter {
    pub kilohertz: u32,
    /// Whether RDTSC must be emulated: the processor's counter does not run at one rate.
    pub is_emulated: bool,
}

/// Frequency of an emulated counter: nanoseconds.
const NANOSECONDS: u32 = 1_000_000;

/// Nanoseconds in which the frequency is measured, and the number of readings.
const MEASURE: u64 = 200_000;
const LEAST_READINGS: usize = 64;
const MOST_READINGS: usize = 8192;

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
/// first leaf of its kind, shows that there is none.
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

/// Measures the frequency by the host's monotonic clock; 0 if that cannot be read. Single readings
/// are inexact by the time that they take; the line through thousands of them is not. On a busy
/// host it takes longer.
fn measured() -> u32 {
    const TRIES: u32 = 6;
    if clock() == 0 {
        return 0;
    }
    // Allocated once: every start makes the same system calls, however often it measures.
    let [mut all, mut usual] = [(); 2].map(|()| Vec::with_capacity(MOST_READINGS));
    for nanoseconds in (0..TRIES).map(|doubled| MEASURE << doubled) {
        read(&mut all, nanoseconds);
        usual.clear();
        usual.extend(uninterrupted(&all));
        if usual.len() >= LEAST_READINGS && span(&usual) >= span(&all) / 2.0 {
            return kilohertz(&usual);
        }
    }
    kilohertz(&all)
}

fn kilohertz(readings: &[Reading]) -> u32 {
    (slope(readings) * 1e6).round() as u32
}

/// Replaces `readings` by those of both clocks for this time, at most [`MOST_READINGS`].
fn read(readings: &mut Vec<Reading>, nanoseconds: u64) {
    readings.clear();
    let (start, before) = (clock(), now());
    while readings.len() < MOST_READINGS {
        let (first, time, last) = (now(), clock(), now());
        readings.push(Reading {
            // Halved, so that small differences stay exact in a float.
            cycles: (first.wrapping_sub(before) + last.wrapping_sub(before)) as f64 / 2.0,
            nanoseconds: time.saturating_sub(start) as f64,
            width: last.wrapping_sub(first),
        });
        if readings.len() >= LEAST_READINGS && time.saturating_sub(start) > nanoseconds {
            break;
        }
    }
}

/// Returns the readings that took about as long as the shortest.
fn uninterrupted(readings: &[Reading]) -> impl Iterator<Item = Reading> {
    let shortest = readings.iter().map(|reading| reading.width).min();
    let usual = shortest.unwrap_or(0).saturating_mul(2);
    let readings = readings.iter().copied();
    readings.filter(move |reading| reading.width <= usual)
}

/// Returns the nanoseconds between the first reading and the last.
fn span(readings: &[Reading]) -> f64 {
    let ends = readings.first().zip(readings.last());
    ends.map_or(0.0, |(first, last)| last.nanoseconds - first.nanoseconds)
}

/// A reading of both clocks.
#[derive(Clone, Copy)]
struct Reading {
    cycles: f64,
    nanoseconds: f64,
    /// Cycles that it took.
    width: u64,
}

/// Returns the slope of the line with the least squares, in cycles per nanosecond.
fn slope(readings: &[Reading]) -> f64 {
    let mean = |of: fn(&Reading) -> f64| {
        readings.iter().map(of).sum::<f64>() / readings.len().max(1) as f64
    };
    let (cycles, time) = (
        mean(|reading| reading.cycles),
        mean(|reading| reading.nanoseconds),
    );
    let (mut above, mut below) = (0.0, 0.0);
    for reading in readings {
        let distance = reading.nanoseconds - time;
        above += distance * (reading.cycles - cycles);
        below += distance * distance;
    }
    above / below
}

/// Returns the monotonic time in nanoseconds.
fn clock() -> u64 {
    clock::since_zero(libc::CLOCK_MONOTONIC).as_nanos() as u64
}

fn now() -> u64 {
    // SAFETY: every x86_64 processor has RDTSC.
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_line() {
        let reading = |nanoseconds: f64, error: f64| Reading {
            cycles: 2.5 * nanoseconds + 100.0 + error,
            nanoseconds,
            width: 0,
        };
        let readings: Vec<_> = (0..1000)
            .map(|n| reading(f64::from(n) * 300.0, f64::from(n % 7) * 10.0))
            .collect();
        assert!(
            (slope(&readings) - 2.5).abs() < 1e-5,
            "{}",
            slope(&readings)
        );
    }

    #[test]
    fn two_measurements_agree() {
        let (first, second) = (measured(), measured());
        assert!(first.abs_diff(second) < first / 1000, "{first} {second}");
        assert!(documented().is_none_or(|known| known.abs_diff(first) < first / 1000));
    }
}
