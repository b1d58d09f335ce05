//! The two processors behind one set of names. What differs between ARM64 and x86_64 — tables, registers, the way a
//! hypercall leaves the guest — lies in `aarch64` and `x86_64`; this module re-exports the one that is built, and no
//! other module asks which.
//!
//! Both provide: `MACHINE`, `create_vm`, `deny_registers`, `build_tables`, `Vcpu` (`new`, `boot`, `run`, `exit`,
//! `settle`, `interrupt_flag`, `registers`, `fault_registers`, `counter_frequency`, `AsRawFd`), `answer_system_call`,
//! `poll_limit`, `REPORT_REQUESTS` and `OLD_CALLS`.

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

pub use paging::TablesFull;
pub use vcpu::{Boot, Call, Error, Exit, KVM_RUN, Stop};
