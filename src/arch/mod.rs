//! Both architectures behind one contract, the traits of `processor`. Page tables, registers and
//! the hypercall transport differ and are in `aarch64` and `x86_64`; no other module depends on the
//! architecture.

mod debug;
mod engine;
mod fields;
mod paging;
mod process;
mod processor;
mod vcpu;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use debug::{Debug, Hardware, Trap, Watch};
use fields::Fields;
pub use paging::TablesFull;
pub use process::{Error as ProcessError, PTRACE_REQUESTS, writable_code};
pub use processor::{Architecture, CoreRegisters, Debugging, Processor};
pub use vcpu::{Boot, Call, Error, Exit, KVM_RUN, Stop, Vcpu, uninterrupted};

/// The architecture of this tender and its guests.
#[derive(Debug)]
pub enum Native {}
