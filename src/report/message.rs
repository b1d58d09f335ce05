//! Messages for the operator: a problem and its fix.

use std::fmt;

use miette::Diagnostic;

/// A problem, with its fix if one is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The problem.
    pub problem: String,
    /// The fix.
    pub fix: Option<String>,
}

impl Message {
    /// Returns the message of an error.
    #[cold]
    pub fn of(error: &dyn Diagnostic) -> Message {
        Message {
            problem: error.to_string(),
            fix: error.help().map(|fix| fix.to_string()),
        }
    }

    /// Returns the message of a problem without a known fix.
    pub fn problem(problem: impl fmt::Display) -> Message {
        Message {
            problem: problem.to_string(),
            fix: None,
        }
    }

    /// Puts the subject of the problem before it.
    #[must_use]
    pub fn about(mut self, subject: impl fmt::Display) -> Message {
        self.problem = format!("{subject}: {}", self.problem);
        self
    }
}

impl<E: Diagnostic> From<E> for Message {
    #[cold]
    fn from(error: E) -> Message {
        Message::of(&error)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)?;
        self.fix.as_ref().map_or(Ok(()), |fix| write!(f, "; {fix}"))
    }
}
