//! To find out why a guest does what it does: gdb beside it while it runs, and what is left of one that came to a bad
//! end. For the developers of unikernels; nothing of it is there unless it is asked for, and the sandbox is in force all
//! the same.

pub mod core;
mod guest;
mod listener;
mod points;
mod session;
mod wire;

pub use guest::Guest;
pub use listener::{Error, Listener};
pub use session::{Next, Session, Stopped};
