//! What a start consists of, and how long each part took.

use std::time::{Duration, Instant};

use crate::report::counters::Counter;
use crate::report::timestamp::Timestamp;

/// A part of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The file is examined, and everything else that needs no KVM.
    Image,
    /// The virtual machine is made.
    Machine,
    /// Devices are attached.
    Devices,
    /// The image is loaded, and the processor put at its first instruction.
    Load,
    /// The sandbox is entered.
    Sandbox,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Phase; 5] = [
        Phase::Image,
        Phase::Machine,
        Phase::Devices,
        Phase::Load,
        Phase::Sandbox,
    ];

    /// Its name, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Image => "image",
            Phase::Machine => "machine",
            Phase::Devices => "devices",
            Phase::Load => "load",
            Phase::Sandbox => "sandbox",
        }
    }
}

/// The phases of one start.
#[derive(Debug)]
pub struct Phases {
    began: Instant,
    /// The same, by the host's clock.
    date: Timestamp,
    /// When each ended, in nanoseconds from the beginning; 0 before that.
    ends: [Counter; Phase::ALL.len()],
}

impl Phases {
    /// The first begins.
    pub fn begin() -> Phases {
        Phases {
            began: Instant::now(),
            date: Timestamp::now(),
            ends: Default::default(),
        }
    }

    /// `phase` ends, and the next begins.
    pub fn end(&self, phase: Phase) {
        self.ends[phase as usize].add(self.began.elapsed().as_nanos() as u64);
    }

    /// When it all began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// When it all began, by the host's clock.
    pub fn date(&self) -> Timestamp {
        self.date
    }

    /// How long each took; nothing for those that have not ended.
    pub fn durations(&self) -> impl Iterator<Item = (Phase, Duration)> {
        let ends = self.ends.each_ref().map(Counter::get);
        Phase::ALL.into_iter().map(move |phase| {
            let before = (phase as usize)
                .checked_sub(1)
                .map_or(0, |before| ends[before]);
            (
                phase,
                Duration::from_nanos(ends[phase as usize].saturating_sub(before)),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other() {
        let phases = Phases::begin();
        phases.end(Phase::Image);
        std::thread::sleep(Duration::from_millis(2));
        phases.end(Phase::Machine);
        let durations: Vec<_> = phases.durations().collect();
        assert_eq!(
            durations
                .iter()
                .map(|(phase, _)| *phase)
                .collect::<Vec<_>>(),
            Phase::ALL
        );
        assert!(durations[1].1 >= Duration::from_millis(2));
        assert_eq!(
            durations[2..]
                .iter()
                .map(|(_, duration)| *duration)
                .sum::<Duration>(),
            Duration::ZERO
        );
        assert!(
            durations
                .iter()
                .map(|(_, duration)| *duration)
                .sum::<Duration>()
                <= phases.began().elapsed()
        );
    }
}
