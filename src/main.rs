//! tender
fn main() {}
