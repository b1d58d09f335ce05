//! Debugging support for unikernel developers: a gdb stub for the running guest, and core files of
//! guests that crashed. Both are off by default, and the sandbox stays active.

pub mod core;
mod guest;
mod listener;
mod points;
mod session;
mod wire;

pub use guest::Guest;
pub use listener::{Error, Listener};
pub use session::{Next, Session, Stopped};
