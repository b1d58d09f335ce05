//! Where a debugger wants the guest to stop, and how it is to go on until then.

use crate::arch::{BREAKPOINT, Hardware, Trap, Watch};

/// The breakpoints and watchpoints of a debugger.
#[derive(Debug, Default)]
pub struct Points {
    /// Breakpoint instructions that were put into the guest's memory: the address, and what was there.
    pub instructions: Vec<(u64, [u8; BREAKPOINT.len()])>,
    /// What the processor watches for by itself.
    pub hardware: Vec<Hardware>,
    /// How many of those it can have.
    pub capacity: usize,
}

impl Points {
    /// Whether a breakpoint instruction of ours is there.
    pub fn is_ours(&self, address: u64) -> bool {
        self.instructions.iter().any(|(known, _)| *known == address)
    }

    /// Has the processor watch for one thing more, if it can.
    pub fn watch(&mut self, point: Hardware) -> bool {
        let fits = self.hardware.len() < self.capacity;
        if fits {
            self.hardware.push(point);
        }
        fits
    }

    /// Undoes [`Points::watch`], if that was done.
    pub fn unwatch(&mut self, point: Hardware) -> bool {
        let place = self.hardware.iter().position(|known| *known == point);
        if let Some(place) = place {
            self.hardware.remove(place);
        }
        place.is_some()
    }

    /// The watchpoint that a trap was at; none if it was no watchpoint.
    pub fn watched(&self, trap: Trap) -> Option<Hardware> {
        let point = match trap {
            Trap::Slot(slot) => self.hardware.get(slot),
            Trap::Watched(address) => {
                let holds = |point: &&Hardware| (point.address..point.address + point.length).contains(&address);
                let watches = || self.hardware.iter().filter(|point| point.kind != Watch::Execute);
                // Some processors tell the first byte of a wider access, before what is watched.
                watches().find(holds).or_else(|| watches().next())
            }
            Trap::Step | Trap::Instruction | Trap::Breakpoint => None,
        };
        point.copied().filter(|point| point.kind != Watch::Execute)
    }
}
