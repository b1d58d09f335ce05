//! Samples of one quantity, and the table that they become.

use std::collections::BTreeMap;

/// Whose figures: ours, or those of the tender that we are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Ours,
    Peer,
}

/// All samples, in the order in which quantities were first seen.
#[derive(Default)]
pub struct Samples {
    order: Vec<String>,
    values: BTreeMap<(String, Subject), Vec<u64>>,
}

impl Samples {
    pub fn add(&mut self, name: &str, subject: Subject, value: u64) {
        if !self.order.iter().any(|known| known == name) {
            self.order.push(name.to_string());
        }
        self.values.entry((name.to_string(), subject)).or_default().push(value);
    }

    /// One line a quantity: least, median and most of each subject, and the ratio of the medians.
    pub fn table(mut self) -> String {
        let mut table =
            format!("{:<36}{:>33}{:>33}{:>10}\n", "", "tender min/median/max", "peer min/median/max", "ratio");
        for name in std::mem::take(&mut self.order) {
            let ours = self.summary(&name, Subject::Ours);
            let peer = self.summary(&name, Subject::Peer);
            let ratio = match (&ours, &peer) {
                (Some(ours), Some(peer)) if peer[1] > 0 => format!("{:.3}", ours[1] as f64 / peer[1] as f64),
                _ => String::new(),
            };
            table += &format!("{name:<36}{:>33}{:>33}{ratio:>10}\n", text(ours), text(peer));
        }
        table
    }

    fn summary(&mut self, name: &str, subject: Subject) -> Option<[u64; 3]> {
        let values = self.values.get_mut(&(name.to_string(), subject))?;
        values.sort_unstable();
        Some([*values.first()?, values[values.len() / 2], *values.last()?])
    }
}

fn text(summary: Option<[u64; 3]>) -> String {
    summary.map_or_else(String::new, |[least, median, most]| format!("{least} / {median} / {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_medians_and_their_ratio() {
        let mut samples = Samples::default();
        for value in [30, 10, 20] {
            samples.add("walltime", Subject::Ours, value);
            samples.add("walltime", Subject::Peer, 2 * value);
        }
        let table = samples.table();
        let line: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(line, ["walltime", "10", "/", "20", "/", "30", "20", "/", "40", "/", "60", "0.500"]);
    }

    #[test]
    fn without_a_peer_there_is_no_ratio() {
        let mut samples = Samples::default();
        samples.add("walltime", Subject::Ours, 5);
        assert_eq!(
            samples.table().lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>().join(" "),
            "walltime 5 / 5 / 5"
        );
    }
}
