//! The guest as gdb sees it: registers, memory, resume and step. gdbstub implements gdb's protocol
//! and calls these.
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

use super::points::{BREAKPOINT, Points};
use crate::arch::{self, Debug, Debugging, Hardware, Vcpu, Watch};
use crate::memory::{GuestAddress, GuestMemory};
use crate::report::message::Message;

/// The vCPU and its memory.
#[derive(Debug)]
pub(crate) struct Guest<'m> {
    /// The vCPU.
    pub vcpu: Vcpu,
    /// The memory.
    pub memory: &'m GuestMemory,
    /// Breakpoints and watchpoints; empty without gdb.
    pub points: Points,
    /// Whether to run one instruction only.
    step: bool,
    /// Address of the guest's own breakpoint instruction at which it stopped.
    own_breakpoint: Option<u64>,
}

impl<'m> Guest<'m> {
    /// Makes a guest without gdb.
    pub(crate) fn new(vcpu: Vcpu, memory: &'m GuestMemory) -> Guest<'m> {
        Guest {
            vcpu,
            memory,
            points: Points::default(),
            step: false,
            own_breakpoint: None,
        }
    }

    /// Records a stop at a breakpoint instruction, and returns whether the instruction is the
    /// guest's own.
    pub(crate) fn at_breakpoint(&mut self) -> bool {
        let place = self.vcpu.program_counter().ok();
        self.own_breakpoint = place.filter(|place| !self.points.is_ours(*place));
        self.own_breakpoint.is_some()
    }

    /// Returns whether the guest is at one of gdb's breakpoint instructions: a KVM that emulates
    /// instructions fails there.
    pub(crate) fn is_at_debugger_breakpoint(&self) -> bool {
        self.vcpu
            .program_counter()
            .is_ok_and(|place| self.points.is_ours(place))
    }

    /// Applies gdb's last resume request to the vCPU.
    pub(crate) fn apply_resume(&mut self) -> Result<(), arch::Error> {
        let left_at = self.own_breakpoint.take();
        // gdb may have changed the program counter.
        let own_breakpoint = left_at.is_some() && self.vcpu.program_counter().ok() == left_at;
        let debug = Debug {
            step: self.step,
            hardware: &self.points.hardware,
            own_breakpoint,
        };
        self.vcpu.debug(Some(debug))
    }

    /// Removes all of gdb's points, so that the guest continues without gdb.
    pub(crate) fn detach(&mut self) -> Result<(), arch::Error> {
        for (address, before) in std::mem::take(&mut self.points.instructions) {
            self.put(address, &before);
        }
        self.points.hardware.clear();
        self.step = false;
        self.vcpu.debug(None)
    }

    /// Writes to guest memory at any address, code or not.
    fn put(&self, address: u64, bytes: &[u8]) -> bool {
        let placed = self.memory.place(GuestAddress(address), bytes).is_ok();
        if placed {
            Vcpu::instructions_changed(self.memory.host_address() + address, bytes.len() as u64);
        }
        placed
    }
}

/// gdb's description of this architecture.
#[derive(Debug)]
pub(crate) enum Architecture {}

impl Arch for Architecture {
    type Usize = u64;
    type Registers = Registers;
    type RegId = ();
    type BreakpointKind = usize;

    fn target_description_xml() -> Option<&'static str> {
        Some(Vcpu::DESCRIPTION)
    }
}

/// All registers, in the layout of [`Debugging::DESCRIPTION`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers(Vec<u8>);

impl gdbstub::arch::Registers for Registers {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        let bytes = self
            .0
            .get(Vcpu::PROGRAM_COUNTER..)
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
    log::warn!("gdb request failed: {}", Message::of(&error));
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
        // Reads as much of the range as exists.
        let there = self.memory.size().saturating_sub(address);
        let there = there.min(data.len() as u64);
        if there == 0 {
            return Err(TargetError::NonFatal);
        }
        let bytes = self.memory.volatile(GuestAddress(address), there);
        let bytes = bytes.map_err(|_| TargetError::NonFatal)?;
        Ok(bytes.copy_to(data))
    }

    fn write_addrs(&mut self, address: u64, data: &[u8]) -> TargetResult<(), Self> {
        let is_written = self.put(address, data);
        is_written.then_some(()).ok_or(TargetError::NonFatal)
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
        // A misaligned breakpoint could overlap another one, and would restore part of that.
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
        let before = self.points.remove(address);
        Ok(before.is_some_and(|before| self.put(address, &before)))
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
        let point = watchpoint(address, length, kind);
        Ok(Vcpu::can_watch(address, length) && self.points.watch(point))
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        Ok(self.points.unwatch(watchpoint(address, length, kind)))
    }
}

fn execution(address: u64) -> Hardware {
    Hardware {
        address,
        length: BREAKPOINT.len() as u64,
        kind: Watch::Execute,
    }
}

fn watchpoint(address: u64, length: u64, kind: WatchKind) -> Hardware {
    Hardware {
        address,
        length,
        kind: match kind {
            WatchKind::Write => Watch::Write,
            WatchKind::Read => Watch::Read,
            WatchKind::ReadWrite => Watch::Access,
        },
    }
}
