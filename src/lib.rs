//! tender
pub mod memory;
