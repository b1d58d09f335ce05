//! Progress messages for operations that take long.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Prints a message of this program.
pub fn note(message: impl std::fmt::Display) {
    eprintln!("xtask: {message}");
}

/// Runs `work`; after two seconds prints what it waits for, and again every fifteen.
pub fn during<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (done, is_done) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let start = Instant::now();
            let mut pause = Duration::from_secs(2);
            while is_done.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                note(format_args!("{what} ({} s)", start.elapsed().as_secs()));
                pause = Duration::from_secs(15);
            }
        });
        let result = work();
        drop(done);
        result
    })
}
