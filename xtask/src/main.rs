//! Builds, tests and demonstrates tender.
fn main() {}
