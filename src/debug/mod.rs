//! Debugging support for unikernel developers: a gdb stub for the running guest, and core files of
//! guests that crashed. Both are off by default, and the sandbox stays active.

pub(crate) mod core;
mod guest;
mod listener;
mod points;
mod session;
mod wire;

pub(crate) use guest::Guest;
pub(crate) use listener::Listener;
pub(crate) use session::{Next, Session, Stopped};
