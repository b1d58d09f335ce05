//! One step of a replay: the commands typed in the machine, and the expected result.

use crate::base::error::{Result, fail};

/// A shell script for the machine, and what its output must and must not contain.
pub struct Step {
    pub title: &'static str,
    pub run: String,
    status: i32,
    shows: Vec<&'static str>,
    lacks: Vec<&'static str>,
}

/// The result of a step: the script's exit status and its output.
pub struct Outcome {
    pub status: i32,
    pub output: String,
}

/// The status of timeout(1).
const TOOK_TOO_LONG: i32 = 124;

impl Step {
    pub fn new(title: &'static str, run: impl Into<String>) -> Self {
        Step {
            title,
            run: run.into(),
            status: 0,
            shows: Vec::new(),
            lacks: Vec::new(),
        }
    }

    /// Expects this status instead of 0.
    pub fn status(self, status: i32) -> Self {
        Step { status, ..self }
    }

    pub fn shows(mut self, what: &[&'static str]) -> Self {
        self.shows.extend(what);
        self
    }

    pub fn lacks(mut self, what: &[&'static str]) -> Self {
        self.lacks.extend(what);
        self
    }

    /// Checks the outcome; the error names the difference.
    pub fn check(&self, outcome: &Outcome) -> Result<()> {
        if outcome.status == TOOK_TOO_LONG {
            return fail("it took too long and was ended");
        }
        if outcome.status != self.status {
            return fail(format!(
                "it ended with status {} instead of {}",
                outcome.status, self.status
            ));
        }
        if let Some(missing) = self
            .shows
            .iter()
            .find(|what| !outcome.output.contains(**what))
        {
            return fail(format!("it does not show '{}'", missing.escape_debug()));
        }
        match self
            .lacks
            .iter()
            .find(|what| outcome.output.contains(**what))
        {
            Some(there) => fail(format!("it shows '{}'", there.escape_debug())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(status: i32, output: &str) -> Result<()> {
        let step = Step::new("a stop", "systemctl status x")
            .status(3)
            .shows(&["inactive"])
            .lacks(&["failed"]);
        step.check(&Outcome {
            status,
            output: output.into(),
        })
    }

    #[test]
    fn status_and_output_must_be_as_expected() {
        checked(3, "inactive (dead)").unwrap();
        let error = |status, output| checked(status, output).unwrap_err().to_string();
        assert_eq!(
            error(0, "inactive (dead)"),
            "it ended with status 0 instead of 3"
        );
        assert_eq!(error(3, "active (running)"), "it does not show 'inactive'");
        assert_eq!(error(3, "inactive (dead), failed"), "it shows 'failed'");
        assert_eq!(
            error(124, "inactive (dead)"),
            "it took too long and was ended"
        );
    }
}
