//! Properties tested with arbitrary bytes: one module per target, each with a `check` that panics
//! on a violation. The fuzzer calls them from `fuzz_targets/`. The tender's `tests/corpus.rs`
//! includes this file and calls them with the inputs in `seeds/`, so that every finding stays
//! fixed.

pub mod cli;
pub mod config;
mod devices;
pub mod hypercall;
pub mod image;
mod input;
mod memory;
pub mod ring;
