//! One report from a thread to the thread that started it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};

/// Creates both sides of a report to this thread.
pub fn report<T>() -> (Reporter<T>, Report<T>) {
    let value = Arc::new(Mutex::new(None));
    (
        Reporter {
            value: Arc::clone(&value),
            reader: thread::current(),
        },
        Report(value),
    )
}

/// The side of the reporting thread.
pub struct Reporter<T> {
    value: Arc<Mutex<Option<T>>>,
    reader: Thread,
}

impl<T> Reporter<T> {
    /// Reports `value`. The only system call is the one that wakes the reader.
    pub fn send(&self, value: T) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        self.reader.unpark();
    }
}

/// The side of the waiting thread.
pub struct Report<T>(Arc<Mutex<Option<T>>>);

impl<T> Report<T> {
    /// Waits for the report and returns it.
    pub fn wait(&self) -> T {
        loop {
            if let Some(value) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return value;
            }
            thread::park();
        }
    }
}
