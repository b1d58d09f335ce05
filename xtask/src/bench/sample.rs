//! Samples of quantities, and the rows of the table that they become.

use std::time::Duration;

/// The tender that was measured: ours, or the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Ours,
    Peer,
}

impl Subject {
    pub fn name(self) -> &'static str {
        if self == Subject::Ours {
            "tender"
        } else {
            "peer"
        }
    }
}

/// The head of the table.
pub fn header() -> String {
    row("", "tender min/median/max", "peer min/median/max", "ratio")
}

fn row(name: &str, ours: &str, peer: &str, ratio: &str) -> String {
    format!("{name:<44}{ours:>33}{peer:>33}{ratio:>10}")
        .trim_end()
        .to_string()
        + "\n"
}

/// The samples of a group of quantities, in the order of first use.
#[derive(Default)]
pub struct Samples(Vec<Quantity>);

#[derive(Default)]
struct Quantity {
    name: String,
    ours: Cell,
    peer: Cell,
}

/// The samples of one tender.
#[derive(Default)]
struct Cell {
    values: Vec<u64>,
    /// It did not end within this time.
    over: Option<Duration>,
}

impl Samples {
    pub fn add(&mut self, name: &str, subject: Subject, value: u64) {
        self.cell(name, subject).values.push(value);
    }

    /// Records that this tender exceeded `limit`: it has no result for this quantity.
    pub fn give_up(&mut self, name: &str, subject: Subject, limit: Duration) {
        self.cell(name, subject).over = Some(limit);
    }

    /// Whether this tender exceeded a limit, for any quantity.
    pub fn given_up(&self, subject: Subject) -> bool {
        self.0
            .iter()
            .any(|quantity| quantity.of(subject).over.is_some())
    }

    fn cell(&mut self, name: &str, subject: Subject) -> &mut Cell {
        let known = self
            .0
            .iter()
            .position(|quantity| quantity.name == name)
            .unwrap_or_else(|| {
                self.0.push(Quantity {
                    name: name.to_string(),
                    ..Quantity::default()
                });
                self.0.len() - 1
            });
        let quantity = &mut self.0[known];
        match subject {
            Subject::Ours => &mut quantity.ours,
            Subject::Peer => &mut quantity.peer,
        }
    }

    /// One line per quantity: minimum, median and maximum of each subject, and the ratio of the
    /// medians.
    pub fn rows(&self) -> String {
        self.0.iter().map(Quantity::row).collect()
    }
}

impl Quantity {
    fn of(&self, subject: Subject) -> &Cell {
        match subject {
            Subject::Ours => &self.ours,
            Subject::Peer => &self.peer,
        }
    }

    fn row(&self) -> String {
        let ratio = match (self.ours.summary(), self.peer.summary()) {
            (Some(ours), Some(peer)) if peer[1] > 0 => {
                format!("{:.3}", ours[1] as f64 / peer[1] as f64)
            }
            _ => String::new(),
        };
        row(&self.name, &self.ours.text(), &self.peer.text(), &ratio)
    }
}

impl Cell {
    /// Minimum, median and maximum; `None` if not measured to the end.
    fn summary(&self) -> Option<[u64; 3]> {
        let mut values = self.values.clone();
        values.sort_unstable();
        let summary = Some([*values.first()?, values[values.len() / 2], *values.last()?]);
        summary.filter(|_| self.over.is_none())
    }

    fn text(&self) -> String {
        match (self.over, self.summary()) {
            (Some(limit), _) => format!("over {} s", limit.as_secs()),
            (None, Some([least, median, most])) => format!("{least} / {median} / {most}"),
            (None, None) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(samples: &Samples) -> String {
        samples
            .rows()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_line_has_the_medians_and_their_ratio() {
        let mut samples = Samples::default();
        for value in [30, 10, 20] {
            samples.add("walltime", Subject::Ours, value);
            samples.add("walltime", Subject::Peer, 2 * value);
        }
        assert_eq!(args(&samples), "walltime 10 / 20 / 30 20 / 40 / 60 0.500");
    }

    #[test]
    fn without_a_peer_there_is_no_ratio() {
        let mut samples = Samples::default();
        samples.add("walltime", Subject::Ours, 5);
        assert_eq!(args(&samples), "walltime 5 / 5 / 5");
    }

    #[test]
    fn a_tender_that_exceeded_the_limit_has_no_result() {
        let mut samples = Samples::default();
        samples.add("flood", Subject::Ours, 5);
        samples.add("flood", Subject::Peer, 6);
        samples.give_up("flood", Subject::Peer, Duration::from_secs(30));
        assert!(samples.given_up(Subject::Peer) && !samples.given_up(Subject::Ours));
        assert_eq!(args(&samples), "flood 5 / 5 / 5 over 30 s");
    }
}
