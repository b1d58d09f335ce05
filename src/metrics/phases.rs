//! The phases of a start, and their durations.

use std::time::{Duration, Instant};

use crate::report::counters::Counter;
use crate::report::timestamp::Timestamp;

/// A phase of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Examines the file, and does everything else that needs no KVM.
    Image,
    /// Creates the virtual machine.
    Machine,
    /// Attaches devices.
    Devices,
    /// Loads the image and sets the vCPU to its first instruction.
    Load,
    /// Enters the sandbox.
    Sandbox,
}

impl Phase {
    /// All of them, in order.
    pub(crate) const ALL: [Phase; 5] = [
        Phase::Image,
        Phase::Machine,
        Phase::Devices,
        Phase::Load,
        Phase::Sandbox,
    ];

    /// Returns its name, for programs.
    pub(crate) fn name(self) -> &'static str {
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
pub(crate) struct Phases {
    began: Instant,
    /// The start, by the host's clock.
    date: Timestamp,
    /// End of each phase, in nanoseconds from the start; 0 before that.
    ends: [Counter; Phase::ALL.len()],
}

impl Phases {
    /// Starts the first phase.
    pub(crate) fn begin() -> Phases {
        Phases {
            began: Instant::now(),
            date: Timestamp::now(),
            ends: Default::default(),
        }
    }

    /// Ends `phase` and starts the next.
    pub(crate) fn end(&self, phase: Phase) {
        self.ends[phase as usize].add(self.began.elapsed().as_nanos() as u64);
    }

    /// Returns the time of the start.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Returns the time of the start by the host's clock.
    pub(crate) fn date(&self) -> Timestamp {
        self.date
    }

    /// Returns the duration of each phase; zero for phases that have not ended.
    pub(crate) fn durations(&self) -> impl Iterator<Item = (Phase, Duration)> {
        let ends = self.ends.each_ref().map(Counter::get);
        let mut before = 0;
        Phase::ALL.into_iter().zip(ends).map(move |(phase, end)| {
            let took = end.saturating_sub(std::mem::replace(&mut before, end));
            (phase, Duration::from_nanos(took))
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
