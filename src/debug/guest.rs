//! A guest as its debugger sees it: registers, memory, and ways to go on. gdbstub speaks gdb's protocol; this answers.
//!
//! Addresses are guest-physical: an hvt guest's tables map each address to itself.

use gdbstub::arch::Arch;
use gdbstub::common::Signal;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::singlethread::{
    SingleThreadBase, SingleThreadResume, SingleThreadResumeOps, SingleThreadSingleStep,
    SingleThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps,
    SwBreakpoint, SwBreakpointOps, WatchKind,
};
use gdbstub::target::{Target, TargetError, TargetResult};

use super::points::Points;
use crate::arch::{self, BREAKPOINT, Debug, Hardware, Vcpu, Watch};
use crate::memory::{GuestAddress, GuestMemory};

/// The processor and its memory.
#[derive(Debug)]
pub struct Guest<'m> {
    /// The processor.
    pub vcpu: Vcpu,
    /// The memory.
    pub memory: &'m GuestMemory,
    /// Where it is to stop; nowhere, without a debugger.
    pub points: Points,
    /// It is to go on by one instruction only.
    step: bool,
    /// Where it stopped at a breakpoint instruction of its own.
    own_breakpoint: Option<u64>,
}

impl<'m> Guest<'m> {
    /// A guest without a debugger.
    pub fn new(vcpu: Vcpu, memory: &'m GuestMemory) -> Guest<'m> {
        Guest {
            vcpu,
            memory,
            points: Points::default(),
            step: false,
            own_breakpoint: None,
        }
    }

    /// Notes that it stopped at a breakpoint instruction, and tells whether that is its own.
    pub fn at_breakpoint(&mut self) -> bool {
        let place = self.vcpu.program_counter().ok();
        self.own_breakpoint = place.filter(|place| !self.points.is_ours(*place));
        self.own_breakpoint.is_some()
    }

    /// Whether it is at a breakpoint instruction of ours: a KVM that emulates instructions fails there.
    pub fn stands_at_breakpoint(&self) -> bool {
        self.vcpu
            .program_counter()
            .is_ok_and(|place| self.points.is_ours(place))
    }

    /// Has it go on as its debugger said last.
    pub fn go_on(&mut self) -> Result<(), arch::Error> {
        let left_at = self.own_breakpoint.take();
        // A debugger may have sent it elsewhere.
        let own_breakpoint = left_at.is_some() && self.vcpu.program_counter().ok() == left_at;
        let debug = Debug {
            step: self.step,
            hardware: &self.points.hardware,
            own_breakpoint,
        };
        self.vcpu.debug(Some(debug))
    }

    /// Has it go on as if there had been no debugger.
    pub fn let_go(&mut self) -> Result<(), arch::Error> {
        for (address, before) in std::mem::take(&mut self.points.instructions) {
            self.put(address, &before);
        }
        self.points.hardware.clear();
        self.step = false;
        self.vcpu.debug(None)
    }

    /// Writes into its memory, wherever that is, code or not.
    fn put(&self, address: u64, bytes: &[u8]) -> bool {
        let placed = self.memory.place(GuestAddress(address), bytes).is_ok();
        if placed {
            arch::instructions_changed(self.memory.host_address() + address, bytes.len() as u64);
        }
        placed
    }
}

/// gdb's idea of this processor.
#[derive(Debug)]
pub enum Architecture {}

impl Arch for Architecture {
    type Usize = u64;
    type Registers = Registers;
    type RegId = ();
    type BreakpointKind = usize;

    fn target_description_xml() -> Option<&'static str> {
        Some(arch::DESCRIPTION)
    }
}

/// All registers, as [`arch::DESCRIPTION`] has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers(Vec<u8>);

impl gdbstub::arch::Registers for Registers {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        let bytes = self
            .0
            .get(arch::PROGRAM_COUNTER..)
            .and_then(|rest| rest.first_chunk());
        bytes.copied().map_or(0, u64::from_le_bytes)
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.0.iter().for_each(|byte| write_byte(Some(*byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0 = bytes.to_vec();
        Ok(())
    }
}

fn refused(error: arch::Error) -> TargetError<arch::Error> {
    log::warn!("gdb request failed: {error}");
    TargetError::NonFatal
}

impl Target for Guest<'_> {
    type Arch = Architecture;
    type Error = arch::Error;

    fn base_ops(&mut self) -> BaseOps<'_, Architecture, arch::Error> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadBase for Guest<'_> {
    fn read_registers(&mut self, registers: &mut Registers) -> TargetResult<(), Self> {
        registers.0 = self.vcpu.debug_registers().map_err(refused)?;
        Ok(())
    }

    fn write_registers(&mut self, registers: &Registers) -> TargetResult<(), Self> {
        if registers.0.len() != self.vcpu.debug_registers().map_err(refused)?.len() {
            return Err(TargetError::NonFatal);
        }
        self.vcpu.set_debug_registers(&registers.0).map_err(refused)
    }

    fn read_addrs(&mut self, address: u64, data: &mut [u8]) -> TargetResult<usize, Self> {
        // As much of it as there is.
        let there = self
            .memory
            .size()
            .saturating_sub(address)
            .min(data.len() as u64);
        let bytes = self
            .memory
            .volatile(GuestAddress(address), there)
            .map_err(|_| TargetError::NonFatal)?;
        if there == 0 {
            return Err(TargetError::NonFatal);
        }
        Ok(bytes.copy_to(data))
    }

    fn write_addrs(&mut self, address: u64, data: &[u8]) -> TargetResult<(), Self> {
        if self.put(address, data) {
            Ok(())
        } else {
            Err(TargetError::NonFatal)
        }
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadResume for Guest<'_> {
    fn resume(&mut self, _: Option<Signal>) -> Result<(), arch::Error> {
        self.step = false;
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Guest<'_> {
    fn step(&mut self, _: Option<Signal>) -> Result<(), arch::Error> {
        self.step = true;
        Ok(())
    }
}

impl Breakpoints for Guest<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Guest<'_> {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        let mut before = [0; BREAKPOINT.len()];
        if self.points.is_ours(address) {
            return Ok(true);
        }
        // Where no instruction can be, one would hold a part of another breakpoint and put that back.
        if address % BREAKPOINT.len() as u64 != 0 {
            return Ok(false);
        }
        if self.read_addrs(address, &mut before)? < before.len()
            || !self.points.add(address, before)
        {
            return Ok(false);
        }
        Ok(self.put(address, BREAKPOINT))
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        let Some(place) = self
            .points
            .instructions
            .iter()
            .position(|(known, _)| *known == address)
        else {
            return Ok(false);
        };
        let (address, before) = self.points.instructions.swap_remove(place);
        Ok(self.put(address, &before))
    }
}

impl HwBreakpoint for Guest<'_> {
    fn add_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.points.watch(execution(address)))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.points.unwatch(execution(address)))
    }
}

impl HwWatchpoint for Guest<'_> {
    fn add_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let point = Hardware {
            address,
            length,
            kind: watch(kind),
        };
        Ok(arch::can_watch(address, length) && self.points.watch(point))
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        Ok(self.points.unwatch(Hardware {
            address,
            length,
            kind: watch(kind),
        }))
    }
}

fn execution(address: u64) -> Hardware {
    Hardware {
        address,
        length: BREAKPOINT.len() as u64,
        kind: Watch::Execute,
    }
}

fn watch(kind: WatchKind) -> Watch {
    match kind {
        WatchKind::Write => Watch::Write,
        WatchKind::Read => Watch::Read,
        WatchKind::ReadWrite => Watch::Access,
    }
}
