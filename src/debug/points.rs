//! gdb's breakpoints and watchpoints.

use crate::arch::{Debugging, Hardware, Trap, Vcpu, Watch};

/// The breakpoint instruction.
pub(super) const BREAKPOINT: &[u8] = Vcpu::BREAKPOINT;

/// Maximum number of breakpoint instructions. Room for them is reserved early, because the sandbox
/// forbids growing a large heap block.
pub(super) const MOST_BREAKPOINTS: usize = 4096;

/// Breakpoints and watchpoints set by gdb.
#[derive(Debug, Default)]
pub(crate) struct Points {
    /// Breakpoint instructions in guest memory: the address, and the bytes that were there.
    pub instructions: Vec<(u64, [u8; BREAKPOINT.len()])>,
    /// Hardware breakpoints and watchpoints.
    pub hardware: Vec<Hardware>,
    /// Maximum number of hardware points.
    pub capacity: usize,
}

impl Points {
    /// Reserves room for all points that gdb may set, on a processor with `capacity` hardware
    /// points.
    pub(crate) fn with_capacity(capacity: usize) -> Points {
        Points {
            instructions: Vec::with_capacity(MOST_BREAKPOINTS),
            hardware: Vec::with_capacity(capacity),
            capacity,
        }
    }

    /// Records a breakpoint instruction and the bytes it replaces; returns false if there are too
    /// many.
    pub(crate) fn add(&mut self, address: u64, before: [u8; BREAKPOINT.len()]) -> bool {
        let fits = self.instructions.len() < MOST_BREAKPOINTS;
        if fits {
            self.instructions.push((address, before));
        }
        fits
    }

    /// Removes a breakpoint instruction; returns the bytes it replaced, if it was set.
    pub(crate) fn remove(&mut self, address: u64) -> Option<[u8; BREAKPOINT.len()]> {
        let mut known = self.instructions.iter();
        let place = known.position(|(known, _)| *known == address)?;
        Some(self.instructions.swap_remove(place).1)
    }

    /// Returns whether gdb has set a breakpoint instruction at `address`.
    pub(crate) fn is_ours(&self, address: u64) -> bool {
        self.instructions.iter().any(|(known, _)| *known == address)
    }

    /// Adds a hardware point; returns false if there are too many.
    pub(crate) fn watch(&mut self, point: Hardware) -> bool {
        let fits = self.hardware.len() < self.capacity;
        if fits {
            self.hardware.push(point);
        }
        fits
    }

    /// Removes a hardware point; returns false if it was not set.
    pub(crate) fn unwatch(&mut self, point: Hardware) -> bool {
        let place = self.hardware.iter().position(|known| *known == point);
        if let Some(place) = place {
            self.hardware.remove(place);
        }
        place.is_some()
    }

    /// Returns the watchpoint of a trap; none if it was no watchpoint.
    pub(crate) fn watched(&self, trap: Trap) -> Option<Hardware> {
        let point = match trap {
            Trap::Slot(slot) => self.hardware.get(slot),
            Trap::Watched(address) => {
                let holds = |point: &&Hardware| address.wrapping_sub(point.address) < point.length;
                let watches = |point: &&Hardware| point.kind != Watch::Execute;
                let mut points = self.hardware.iter().filter(watches);
                // Some processors report the first byte of a wider access, which is before the
                // watched range.
                let first = points.clone().next();
                points.find(holds).or(first)
            }
            Trap::Step | Trap::Instruction | Trap::Breakpoint => None,
        };
        point.copied().filter(|point| point.kind != Watch::Execute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WATCHED: Hardware = Hardware {
        address: u64::MAX - 7,
        length: 8,
        kind: Watch::Write,
    };
    const EXECUTED: Hardware = Hardware {
        address: 0x10_0000,
        length: 4,
        kind: Watch::Execute,
    };

    #[test]
    fn hardware_points_are_limited() {
        let mut points = Points {
            capacity: 2,
            ..Points::default()
        };
        assert!(points.watch(EXECUTED) && points.watch(EXECUTED) && !points.watch(EXECUTED));
        assert!(points.unwatch(EXECUTED) && points.watch(WATCHED));
        assert!(points.unwatch(EXECUTED) && !points.unwatch(EXECUTED));
    }

    #[test]
    fn a_trap_has_its_watchpoint() {
        let other = Hardware {
            address: 0x20_0000,
            ..WATCHED
        };
        let mut points = Points {
            capacity: 3,
            ..Points::default()
        };
        assert!(points.watch(EXECUTED) && points.watch(other) && points.watch(WATCHED));
        assert_eq!(points.watched(Trap::Watched(u64::MAX)), Some(WATCHED));
        assert_eq!(points.watched(Trap::Watched(0x20_0007)), Some(other));
        assert_eq!(
            points.watched(Trap::Watched(0x20_0008)),
            Some(other),
            "a wider access"
        );
        assert_eq!(points.watched(Trap::Slot(2)), Some(WATCHED));
        for trap in [
            Trap::Slot(0),
            Trap::Slot(3),
            Trap::Step,
            Trap::Instruction,
            Trap::Breakpoint,
        ] {
            assert_eq!(points.watched(trap), None, "{trap:?}");
        }
    }
}
