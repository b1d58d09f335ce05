//! What a debugger asks of a processor, whatever it is, and what that tells it.

/// How the guest is to go on under a debugger.
#[derive(Clone, Copy, Debug, Default)]
pub struct Debug<'p> {
    /// By one instruction only.
    pub step: bool,
    /// Where the processor itself stops it. [`super::Vcpu::debug`] wants no more than it was found to have.
    pub hardware: &'p [Hardware],
    /// The breakpoint instruction that it stopped at is the guest's own: it gets its exception.
    pub own_breakpoint: bool,
}

/// A breakpoint or watchpoint of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// The first byte, by the guest's own address.
    pub address: u64,
    /// Bytes: the size of an instruction, or what is watched.
    pub length: u64,
    /// What is watched for.
    pub kind: Watch,
}

/// What the processor watches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// The instruction is about to be executed.
    Execute,
    /// The memory is written.
    Write,
    /// The memory is read.
    Read,
    /// Both.
    Access,
}

/// Why the processor has stopped the guest for the debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// It went on by one instruction.
    Step,
    /// It came to a breakpoint instruction, a debugger's or its own.
    Instruction,
    /// It came to a breakpoint of the processor.
    Breakpoint,
    /// It touched this address, which is watched.
    Watched(u64),
    /// The breakpoint or watchpoint with this place in [`Debug::hardware`].
    Slot(usize),
}
