//! Debugging requests to a vCPU and its debug events, for both architectures.

/// How a vCPU runs under a debugger.
#[derive(Clone, Copy, Debug, Default)]
pub struct Debug<'p> {
    /// Stop after one instruction.
    pub step: bool,
    /// Hardware breakpoints and watchpoints. There must be no more than
    /// [`super::Debugging::hardware_points`].
    pub hardware: &'p [Hardware],
    /// Deliver the breakpoint instruction at the program counter to the guest as an exception.
    pub own_breakpoint: bool,
}

/// A hardware breakpoint or watchpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// Guest-virtual address of the first byte.
    pub address: u64,
    /// Bytes: the size of an instruction, or of the watched memory.
    pub length: u64,
    /// The accesses that stop the guest.
    pub kind: Watch,
}

/// Kind of access that a hardware point watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Execution of the instruction.
    Execute,
    /// Writes.
    Write,
    /// Reads.
    Read,
    /// Reads and writes.
    Access,
}

/// Why the vCPU stopped for the debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// It executed one instruction.
    Step,
    /// It reached a breakpoint instruction of the debugger or of the guest.
    Instruction,
    /// It reached a hardware breakpoint.
    Breakpoint,
    /// It accessed this watched address.
    Watched(u64),
    /// It hit the point with this index in [`Debug::hardware`].
    Slot(usize),
}
