//! What is tried with bytes that somebody made up: one module a target, each with a `check` that panics when a promise
//! is broken. The fuzzer calls them from `fuzz_targets/`; the tender's own `tests/corpus.rs` includes this file and
//! calls them with the inputs in `seeds/`, so that what was found once stays fixed.

pub mod cli;
pub mod config;
mod devices;
pub mod hypercall;
pub mod image;
mod input;
pub mod ring;
