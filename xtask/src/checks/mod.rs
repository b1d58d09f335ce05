//! What a change must pass: tests, fuzzing, the oldest supported Rust, phrases.

mod corpus;
pub mod fuzz;
pub mod msrv;
mod tally;
pub mod test;
pub mod words;
