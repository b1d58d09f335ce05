//! One step of a replay: what is typed in the machine, and what has to come of it.

use crate::error::{Result, fail};

/// Something done in the machine, as a script of sh's, and what it must and must not show.
pub struct Step {
    pub title: &'static str,
    pub run: String,
    status: i32,
    shows: Vec<&'static str>,
    lacks: Vec<&'static str>,
}

/// What came of a step: the script's exit status, and what it printed.
pub struct Outcome {
    pub status: i32,
    pub output: String,
}

/// timeout(1)'s.
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

    /// Has to end with this status instead of 0.
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

    /// Whether all is as expected; the error says what is not.
    pub fn judge(&self, outcome: &Outcome) -> Result<()> {
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

    fn judged(status: i32, output: &str) -> Result<()> {
        let step = Step::new("a stop", "systemctl status x")
            .status(3)
            .shows(&["inactive"])
            .lacks(&["failed"]);
        step.judge(&Outcome {
            status,
            output: output.into(),
        })
    }

    #[test]
    fn status_and_words_have_to_be_as_expected() {
        judged(3, "inactive (dead)").unwrap();
        let said = |status, output| judged(status, output).unwrap_err().to_string();
        assert_eq!(
            said(0, "inactive (dead)"),
            "it ended with status 0 instead of 3"
        );
        assert_eq!(said(3, "active (running)"), "it does not show 'inactive'");
        assert_eq!(said(3, "inactive (dead), failed"), "it shows 'failed'");
        assert_eq!(
            said(124, "inactive (dead)"),
            "it took too long and was ended"
        );
    }
}
