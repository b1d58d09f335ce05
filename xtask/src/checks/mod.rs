//! What a change must pass: tests, fuzzing, the oldest supported Rust, phrases, the book, the
//! tutorial.

pub mod book;
mod corpus;
pub mod fuzz;
pub mod msrv;
mod tally;
pub mod test;
pub mod tutorial;
pub mod words;
