//! Starting of children. Between fork and exec, a child has copies of all descriptors of its test
//! program, also those of other tests: it holds a released tap, or keeps a copy of `tender` open
//! for writing. Code that must not meet such a child runs while none is between the two.

use std::io;
use std::process::{Child, Command};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

/// Read lock: held while a child is started. Write lock: held while none may be started.
static STARTING: RwLock<()> = RwLock::new(());

/// Starts a child. Its exec is done when this returns.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let _shared = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// Keeps all children from starting until the guard is dropped.
pub fn hold_back() -> RwLockWriteGuard<'static, ()> {
    STARTING.write().unwrap_or_else(PoisonError::into_inner)
}
