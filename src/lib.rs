//! tender
pub mod block;
pub mod cli;
pub mod clock;
pub mod console;
pub mod memory;
pub mod net;
