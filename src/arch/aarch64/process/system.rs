//! The state of EL1 that a process lacks, and the instructions on it, emulated.

use super::super::boot::{self, CPACR_FPEN, Register};
use super::instruction::Instruction;
use super::registers::{CONDITIONS, Core, Floating, Registers};

/// PSTATE: the mode, and in it the bit that selects the separate stack pointer.
const MODE: u64 = 0x1f;
const OWN_STACK: u64 = 1;
const EL1: u64 = 0b100;

/// PSTATE: masks of interrupts, which a guest never gets.
const MASKS: u64 = 0xf << 6;

/// PSTATE at the entry of an exception: EL1 with its separate stack pointer; D, A, I and F masked.
const IN_EXCEPTION: u64 = MASKS | EL1 | OWN_STACK;

/// Registers that KVM has in its core, or that are fields of PSTATE.
const SP_EL0: Register = Register::system(3, 0, 4, 1, 0);
const SELECTED_STACK: Register = Register::system(3, 0, 4, 2, 0);
const CURRENT_LEVEL: Register = Register::system(3, 0, 4, 2, 2);
const INTERRUPT_MASKS: Register = Register::system(3, 3, 4, 2, 1);

/// The state of EL1.
#[derive(Clone, Debug)]
pub(super) struct System {
    pub vbar: u64,
    pub elr: u64,
    pub spsr: u64,
    pub esr: u64,
    pub far: u64,
    thread: u64,
    upper_tables: u64,
    tables: u64,
    tables_control: u64,
    memory_types: u64,
    control: u64,
    access_control: u64,
    /// PSTATE without its conditions.
    state: u64,
    /// The stack pointer that is not selected.
    other_stack: u64,
}

impl Default for System {
    fn default() -> System {
        System {
            vbar: 0,
            elr: 0,
            spsr: 0,
            esr: 0,
            far: 0,
            thread: 0,
            upper_tables: 0,
            tables: 0,
            tables_control: 0,
            memory_types: 0,
            control: 0,
            access_control: 0,
            state: IN_EXCEPTION,
            other_stack: 0,
        }
    }
}

impl System {
    /// Returns a system register, and which of its bits a guest cannot change.
    pub(super) fn register(&mut self, encoding: u16) -> Option<(&mut u64, u64)> {
        const ALL: u64 = u64::MAX;
        let registers = [
            (boot::VBAR_EL1, &mut self.vbar, 0),
            (boot::ELR_BY_NUMBER, &mut self.elr, 0),
            (boot::SPSR_BY_NUMBER, &mut self.spsr, 0),
            (boot::ESR_EL1, &mut self.esr, 0),
            (boot::FAR_EL1, &mut self.far, 0),
            (boot::TPIDR_EL1, &mut self.thread, 0),
            // The upper half has no tables.
            (boot::TTBR1_EL1, &mut self.upper_tables, 0),
            (boot::TTBR0_EL1, &mut self.tables, ALL),
            (boot::TCR_EL1, &mut self.tables_control, ALL),
            (boot::MAIR_EL1, &mut self.memory_types, ALL),
            (boot::SCTLR_EL1, &mut self.control, ALL),
            (boot::CPACR_EL1, &mut self.access_control, CPACR_FPEN),
        ];
        let mut registers = registers.into_iter();
        let (_, value, constant) =
            registers.find(|(register, ..)| register.encoding() == encoding)?;
        Some((value, constant))
    }

    /// Returns PSTATE as the guest sees it.
    fn pstate(&self, registers: &Registers) -> u64 {
        registers.pstate & CONDITIONS | self.state
    }

    /// Sets PSTATE. Returns none, and changes nothing, for a mode that is not EL1's.
    fn set_pstate(&mut self, pstate: u64, registers: &mut Registers) -> Option<()> {
        if pstate & MODE & !OWN_STACK != EL1 {
            return None;
        }
        self.select(pstate & OWN_STACK, registers);
        self.state = pstate & (MASKS | MODE);
        registers.pstate = registers.pstate & !CONDITIONS | pstate & CONDITIONS;
        Some(())
    }

    fn select(&mut self, stack: u64, registers: &mut Registers) {
        if self.state & OWN_STACK != stack {
            self.state ^= OWN_STACK;
            std::mem::swap(&mut self.other_stack, &mut registers.sp);
        }
    }

    /// Enters the guest's handler of an exception.
    pub(super) fn enter(&mut self, registers: &mut Registers, syndrome: u64, address: Option<u64>) {
        const VECTORS: u64 = !0x7ff;
        // An exception that EL1 takes from itself, with the stack pointer of EL0 or of EL1.
        let vector = 0x200 * (self.state & OWN_STACK);
        (self.elr, self.spsr, self.esr) = (registers.pc, self.pstate(registers), syndrome);
        self.far = address.unwrap_or(self.far);
        self.select(OWN_STACK, registers);
        self.state = IN_EXCEPTION;
        registers.pc = (self.vbar & VECTORS).wrapping_add(vector);
    }

    /// Returns the registers of a child in the form of KVM.
    pub(super) fn show(&self, child: Registers, floating: Floating) -> Core {
        let stacks = if self.state & OWN_STACK == 0 {
            [child.sp, self.other_stack]
        } else {
            [self.other_stack, child.sp]
        };
        let [sp, sp_el1] = stacks;
        let pstate = self.pstate(&child);
        Core {
            registers: Registers {
                sp,
                pstate,
                ..child
            },
            sp_el1,
            elr: self.elr,
            spsr: [self.spsr, 0, 0, 0, 0],
            padding: 0,
            floating,
        }
    }

    /// Takes over registers in the form of KVM; returns those of the child, if they are valid.
    pub(super) fn take(&mut self, core: &Core, child: &Registers) -> Option<Registers> {
        let mut registers = Registers {
            sp: core.sp_el1,
            pstate: child.pstate,
            ..core.registers
        };
        let mut system = System {
            elr: core.elr,
            spsr: core.spsr[0],
            state: self.state | OWN_STACK,
            other_stack: core.registers.sp,
            ..self.clone()
        };
        system.set_pstate(core.registers.pstate, &mut registers)?;
        *self = system;
        Some(registers)
    }

    /// Emulates an instruction of EL1. Returns none if it is undefined, or would change what a process
    /// cannot change: its tables and modes.
    pub(super) fn emulate(
        &mut self,
        instruction: Instruction,
        registers: &mut Registers,
    ) -> Option<()> {
        let mut next = registers.pc.wrapping_add(4);
        match instruction {
            Instruction::Return => {
                self.set_pstate(self.spsr, registers)?;
                next = self.elr;
            }
            // As KVM answers: there is no such service.
            Instruction::Hypervisor => registers.set_operand(0, u64::MAX),
            Instruction::Read { register, general } => {
                registers.set_operand(general, self.read(register)?);
            }
            Instruction::Write { register, general } => {
                self.write(register, registers.operand(general), registers)?;
            }
            Instruction::Mask { bits, is_set } => {
                self.state = self.state & !bits | if is_set { bits } else { 0 };
            }
            Instruction::SelectStack { is_own } => self.select(u64::from(is_own), registers),
            Instruction::Nothing => {}
        }
        registers.pc = next;
        Some(())
    }

    fn read(&mut self, encoding: u16) -> Option<u64> {
        let is = |register: Register| register.encoding() == encoding;
        if is(SP_EL0) && self.state & OWN_STACK != 0 {
            return Some(self.other_stack);
        }
        let fields = [
            (SELECTED_STACK, OWN_STACK),
            (CURRENT_LEVEL, 0xc),
            (INTERRUPT_MASKS, MASKS),
        ];
        match fields.into_iter().find(|(register, _)| is(*register)) {
            Some((_, bits)) => Some(self.state & bits),
            None => self.register(encoding).map(|(value, _)| *value),
        }
    }

    fn write(&mut self, encoding: u16, value: u64, registers: &mut Registers) -> Option<()> {
        let is = |register: Register| register.encoding() == encoding;
        if is(SP_EL0) && self.state & OWN_STACK != 0 {
            self.other_stack = value;
        } else if is(SELECTED_STACK) {
            self.select(value & OWN_STACK, registers);
        } else if is(INTERRUPT_MASKS) {
            self.state = self.state & !MASKS | value & MASKS;
        } else {
            let (register, constant) = self.register(encoding)?;
            if (*register ^ value) & constant != 0 {
                return None;
            }
            *register = value;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests;
