//! The outcome of a run, or why it could not start. Each message follows the unikernel's name.

use std::fmt;

use guest_abi::hypercall::STATUS_ABORT;
use miette::Diagnostic;

use crate::report::message::Message;

/// The regular end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest halted with this exit status.
    Halted(u8),
    /// This signal ended the run.
    Signal(i32),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Halted(STATUS_ABORT) => write!(f, "the guest aborted (status {STATUS_ABORT})"),
            Outcome::Halted(status) => write!(f, "the guest halted with status {status}"),
            Outcome::Signal(number) => write!(f, "signal {number} ended the run"),
        }
    }
}

/// Why a run did not start, or was ended early.
#[allow(missing_docs, reason = "the registers are those of the guest, as text")]
pub enum Error {
    /// The run could not start, perhaps because of a device.
    Start {
        cause: Box<Message>,
        device: Option<String>,
    },
    /// The guest violated its contract.
    Violation {
        cause: Box<Message>,
        registers: String,
    },
    /// The host cannot run the guest any longer.
    Host {
        cause: Box<Message>,
        registers: String,
    },
    /// The time limit was reached.
    Timeout { seconds: u32, registers: String },
    /// gdb killed the guest.
    Killed,
}

impl Error {
    /// Returns the cause in one word, for programs.
    pub fn cause(&self) -> &'static str {
        match self {
            Error::Start { .. } => "start",
            Error::Violation { .. } => "guest",
            Error::Host { .. } => "host",
            Error::Timeout { .. } => "timeout",
            Error::Killed => "gdb",
        }
    }

    /// Returns the device that prevented the start.
    pub fn device(&self) -> Option<&str> {
        match self {
            Error::Start { device, .. } => device.as_deref(),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Start { cause, .. } => cause.fmt(f),
            Error::Violation { cause, registers } | Error::Host { cause, registers } => {
                write!(f, "{cause} ({registers})")
            }
            Error::Timeout { seconds, registers } => {
                write!(f, "timed out after {seconds} s (--timeout) ({registers})")
            }
            Error::Killed => f.write_str("killed by gdb"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Converts every module's error into a start error. For this reason, `Error` itself does not
/// implement [`std::error::Error`].
impl<E: Diagnostic> From<E> for Error {
    // Not inlined: a start converts errors in many places.
    #[cold]
    #[inline(never)]
    fn from(error: E) -> Error {
        Error::Start {
            cause: Box::new(Message::of(&error)),
            device: None,
        }
    }
}

impl From<Error> for Message {
    fn from(error: Error) -> Message {
        match error {
            Error::Start { cause, .. } => *cause,
            ended => Message::problem(ended),
        }
    }
}
