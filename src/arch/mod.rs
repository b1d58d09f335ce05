//! Both architectures behind one set of names. Page tables, registers and the hypercall transport
//! differ and are in `aarch64` and `x86_64`. This module re-exports the one that is built; no other
//! module depends on the architecture.
//!
//! Both provide: `MACHINE`, `create_vm`, `deny_registers`, `build_tables`, `Vcpu` (`new`, `boot`,
//! `run`, `exit`, `settle`, `interrupt_flag`, `registers`, `fault_registers`, `general_registers`,
//! `floating_registers`, `counter_frequency`, `debug_registers`, `set_debug_registers`,
//! `program_counter`, `debug`, `AsRawFd`), `return_to_trap`, `poll_limit`, `hardware_points`,
//! `can_watch`, `instructions_changed`, `BREAKPOINT`, `DESCRIPTION`, `PROGRAM_COUNTER`,
//! `REPORT_REQUESTS`, `CORE_REQUESTS`, `DEBUG_REQUESTS` and `OLD_CALLS`.

mod debug;
mod fields;
mod paging;
mod vcpu;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
pub use aarch64::*;

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;

pub use debug::{Debug, Hardware, Trap, Watch};
use fields::Fields;
pub use paging::TablesFull;
pub use vcpu::{Boot, Call, Error, Exit, KVM_RUN, Stop, uninterrupted};
