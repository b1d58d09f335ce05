//! The findings of a check, as a table: one finding per row, and below a problem its fix.

use std::fmt::Display;

use crate::config::Config;
use crate::report::json::Value;
use crate::report::message::Message;
use crate::report::text::one_line;

/// Version of the JSON format, a contract: see `docs/check.schema.json`. Raise it with every change
/// other than an additional member.
const FORMAT: u64 = 1;

/// Width of the table, in columns.
const WIDTH: usize = 80;

/// The result for one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No problem.
    Fine,
    /// The guest would start, but the operator may want to know.
    Doubtful,
    /// The guest would not start.
    Missing,
}

impl Verdict {
    fn label(self) -> &'static str {
        match self {
            Verdict::Fine => "ok",
            Verdict::Doubtful => "note",
            Verdict::Missing => "missing",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A part of the host, or an option.
    pub subject: String,
    /// The result.
    pub verdict: Verdict,
    /// The finding.
    pub found: String,
    /// How to fix it; may be empty.
    pub fix: String,
}

impl Finding {
    fn to_value(&self) -> Value {
        let fix = self.fix.as_str();
        Value::Object(vec![
            ("subject", self.subject.as_str().into()),
            ("verdict", self.verdict.label().into()),
            ("found", self.found.as_str().into()),
            ("fix", Some(fix).filter(|fix| !fix.is_empty()).into()),
        ])
    }
}

/// All findings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    unikernel: String,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(config: &Config) -> Report {
        Report {
            unikernel: config.unikernel.display().to_string(),
            findings: Vec::new(),
        }
    }

    /// Returns the findings in order.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Returns whether the guest would start.
    pub fn would_start(&self) -> bool {
        self.missing_count() == 0
    }

    fn missing_count(&self) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.verdict == Verdict::Missing)
            .count()
    }

    fn add(&mut self, subject: &str, verdict: Verdict, found: impl Display, fix: &str) {
        self.findings.push(Finding {
            subject: subject.to_owned(),
            verdict,
            found: found.to_string(),
            fix: fix.to_owned(),
        });
    }

    pub(super) fn fine(&mut self, subject: &str, text: impl Display) {
        self.add(subject, Verdict::Fine, text, "");
    }

    pub(super) fn doubtful(&mut self, subject: &str, found: impl Display, fix: &str) {
        self.add(subject, Verdict::Doubtful, found, fix);
    }

    /// Records an error.
    pub(super) fn missing(&mut self, subject: &str, error: impl Into<Message>) {
        let Message { problem, fix } = error.into();
        self.add(subject, Verdict::Missing, problem, &fix.unwrap_or_default());
    }

    /// Returns the result of a step; records its error.
    pub(super) fn needs<T>(
        &mut self,
        subject: &str,
        step: Result<T, impl Into<Message>>,
    ) -> Option<T> {
        step.map_err(|error| self.missing(subject, error)).ok()
    }

    /// Returns the result of a step; records its error, or the `text` about its result.
    pub(super) fn passes<T, D: Display>(
        &mut self,
        subject: &str,
        step: Result<T, impl Into<Message>>,
        text: impl FnOnce(&T) -> D,
    ) -> Option<T> {
        let result = self.needs(subject, step)?;
        self.fine(subject, text(&result));
        Some(result)
    }

    /// Formats the table, with a summary as its last line.
    pub fn to_text(&self) -> String {
        let subjects = self
            .findings
            .iter()
            .map(|finding| finding.subject.chars().count());
        let subject_width = subjects.max().unwrap_or_default();
        let indent = 9 + subject_width + 2;
        let mut text = String::new();
        for finding in &self.findings {
            let (subject, verdict) = (one_line(&finding.subject), finding.verdict);
            let fix = match finding.fix.as_str() {
                "" => String::new(),
                fix => format!("-> {fix}"),
            };
            let mut lines = wrapped(&finding.found, indent).chain(wrapped(&fix, indent));
            let first = lines.next().unwrap_or_default();
            text.push_str(&format!(
                "{:<9}{subject:<subject_width$}  {first}\n",
                verdict.label()
            ));
            lines.for_each(|line| text.push_str(&format!("{:indent$}{line}\n", "")));
        }
        text.push_str(&format!("\n{}\n", self.conclusion()));
        text
    }

    /// Formats the findings as one JSON object, with a newline at its end.
    pub fn to_json(&self) -> String {
        let findings = self.findings.iter().map(Finding::to_value);
        let document = Value::Object(vec![
            ("type", "tender.check".into()),
            ("format", FORMAT.into()),
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("unikernel", self.unikernel.as_str().into()),
            ("would_start", self.would_start().into()),
            ("findings", Value::List(findings.collect())),
        ]);
        format!("{document}\n")
    }

    fn conclusion(&self) -> String {
        let unikernel = one_line(&self.unikernel);
        match self.missing_count() {
            0 => format!("{unikernel} would start"),
            1 => format!("{unikernel} would not start: 1 problem"),
            count => format!("{unikernel} would not start: {count} problems"),
        }
    }
}

/// Wraps `text` into lines that fit next to `indent` columns; long words are not broken.
fn wrapped(text: &str, indent: usize) -> impl Iterator<Item = String> {
    let room = WIDTH.saturating_sub(indent).max(30);
    let mut lines: Vec<String> = Vec::new();
    for word in one_line(text).split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Error;
    use crate::guest::manifest::{Device, Kind};
    use crate::host::files::Shared;

    fn message(problem: &str, fix: &str) -> Message {
        Message {
            problem: problem.to_owned(),
            fix: Some(fix.to_owned()),
        }
    }

    fn report(unikernel: &str) -> Report {
        Report::new(&Config {
            unikernel: unikernel.into(),
            ..Config::default()
        })
    }

    #[test]
    fn a_table_is_aligned() {
        let mut report = report("app.hvt");
        report.fine("unikernel", "x86_64, ABI version 2");
        assert!(report.would_start());
        assert_eq!(
            report.to_text(),
            "ok       unikernel  x86_64, ABI version 2\n\napp.hvt would start\n"
        );
        report.doubtful(
            "memory",
            "512 MiB, but only 3 MiB are available",
            "free some",
        );
        assert!(report.would_start());
        report.missing(
            "net:a",
            message(
                "interface 'tap0' is down",
                "'ip link set tap0 up' brings it up",
            ),
        );
        report.missing("net:bb\n", Message::problem("there is no interface 'tap1'"));
        assert!(!report.would_start());
        assert_eq!(
            report.to_text(),
            "ok       unikernel  x86_64, ABI version 2\n\
             note     memory     512 MiB, but only 3 MiB are available\n\
             \u{20}                   -> free some\n\
             missing  net:a      interface 'tap0' is down\n\
             \u{20}                   -> 'ip link set tap0 up' brings it up\n\
             missing  net:bb\\n   there is no interface 'tap1'\n\
             \n\
             app.hvt would not start: 2 problems\n"
        );
    }

    #[test]
    fn json_has_the_fix_of_each_problem() {
        let mut report = report("a\".hvt");
        report.fine("memory", "4 MiB; all");
        report.missing("net:a", message("is down", "'ip link set a up'; or so"));
        report.doubtful("sandbox", "off", "");
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["unikernel"], "a\".hvt");
        assert_eq!(json["would_start"], false);
        let fixes = json["findings"].as_array().unwrap().iter();
        let fixes: Vec<_> = fixes
            .map(|finding| {
                [&finding["verdict"], &finding["found"], &finding["fix"]].map(|text| text.as_str())
            })
            .collect();
        assert_eq!(
            fixes,
            [
                [Some("ok"), Some("4 MiB; all"), None],
                [
                    Some("missing"),
                    Some("is down"),
                    Some("'ip link set a up'; or so")
                ],
                [Some("note"), Some("off"), None],
            ]
        );
    }

    #[test]
    fn a_name_that_looks_like_a_fix_stays_in_the_problem() {
        let name = "a; reboot now #.hvt".to_owned();
        let mut report = report(&name);
        let device = Device {
            handle: 1,
            kind: Kind::Block,
            name: "; mkfs".to_owned(),
        };
        report.missing("devices", Error::NotAttached(device));
        let shared = Shared::Disks {
            device: "a".to_owned(),
            path: name.clone(),
        };
        report.missing("block:a", shared);
        report.missing("unikernel", message("is empty", "copy it").about(name));
        let findings = report.findings().iter();
        let findings: Vec<_> = findings
            .map(|finding| [&*finding.found, &*finding.fix])
            .collect();
        assert_eq!(
            findings,
            [
                [
                    "device '; mkfs' (BLOCK_BASIC) is declared but not attached",
                    "add --block=PATH"
                ],
                [
                    "'a; reboot now #.hvt' is given to two block devices",
                    "give each its own image"
                ],
                ["a; reboot now #.hvt: is empty", "copy it"],
            ]
        );
    }

    #[test]
    fn lines_fit_a_terminal_unless_a_word_is_longer() {
        let mut report = report("app.hvt");
        report.missing("memory", message(&"word ".repeat(40), &"x".repeat(100)));
        let text = report.to_text();
        let (long, short): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.len() > WIDTH);
        assert_eq!(
            long.iter()
                .map(|line| line.trim_start())
                .collect::<Vec<_>>(),
            ["x".repeat(100)]
        );
        assert!(short.iter().any(|line| line.trim() == "->"), "{text}");
        assert_eq!(
            short
                .iter()
                .flat_map(|line| line.split_whitespace())
                .filter(|word| *word == "word")
                .count(),
            40
        );
    }
}
