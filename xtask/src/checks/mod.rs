//! What a change must pass: tests, fuzzing, the oldest supported Rust, phrases, the book.

pub mod book;
mod corpus;
pub mod fuzz;
pub mod msrv;
mod tally;
pub mod test;
pub mod words;
