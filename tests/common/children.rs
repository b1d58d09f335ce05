//! From its fork to its exec, a child has copies of all descriptors that its test program has open then, those of other
//! tests too: a tap that was let go is still held, a copy of the tender still written. What must not meet such a child
//! is done while none begins.

use std::io;
use std::process::{Child, Command};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

/// Held by each who starts a child, for as long as that takes, and alone by whoever wants none.
static BEGINNING: RwLock<()> = RwLock::new(());

/// Starts a child. It has begun its own program when this returns.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let _shared = BEGINNING.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// No child begins until this is dropped.
pub fn none_begins() -> RwLockWriteGuard<'static, ()> {
    BEGINNING.write().unwrap_or_else(PoisonError::into_inner)
}
