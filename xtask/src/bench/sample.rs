//! Samples of quantities, and the rows of the table that they become.

use std::time::Duration;

/// The tender that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Ours,
    /// Another tender with the same command line.
    Peer,
    /// The least tender, as a limit.
    Floor,
    /// Ours, with the guest in a process.
    Process,
    /// Ours, with the guest in a KVM machine, next to the former.
    Kvm,
    /// No tender: the same code in a native process.
    Native,
}

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Subject::Ours => "tender",
            Subject::Peer => "peer",
            Subject::Floor => "floor",
            Subject::Process => "process",
            Subject::Kvm => "kvm",
            Subject::Native => "native",
        }
    }

    /// Whether it is our tender, with options that no other has.
    pub fn is_ours(self) -> bool {
        matches!(self, Subject::Ours | Subject::Process | Subject::Kvm)
    }
}

/// The table: a column for each tender, then the ratio of the first to each of the others.
pub struct Table(Vec<Subject>);

impl Table {
    /// A table of these tenders.
    pub fn of(subjects: impl IntoIterator<Item = Subject>) -> Table {
        Table(subjects.into_iter().collect())
    }

    pub fn header(&self) -> String {
        let column = |subject: &Subject| format!("{} min/median/max", subject.name());
        let ratio = |subject: &Subject| format!("/ {}", subject.name());
        self.line("", column, ratio)
    }

    /// One line per quantity: minimum, median and maximum of each tender, and the ratios of the
    /// medians.
    pub fn rows(&self, samples: &Samples) -> String {
        let row = |quantity: &Quantity| {
            let column = |subject: &Subject| quantity.of(*subject).text();
            let ratio = |subject: &Subject| quantity.ratio(self.0[0], *subject);
            self.line(&quantity.name, column, ratio)
        };
        samples.0.iter().map(row).collect()
    }

    fn line(
        &self,
        name: &str,
        column: impl Fn(&Subject) -> String,
        ratio: impl Fn(&Subject) -> String,
    ) -> String {
        let columns = self
            .0
            .iter()
            .map(|subject| format!("{:>33}", column(subject)));
        let ratios = self.0.iter().skip(1);
        let ratios = ratios.map(|subject| format!("{:>9}", ratio(subject)));
        let line = format!("{name:<44}{}", columns.chain(ratios).collect::<String>());
        line.trim_end().to_string() + "\n"
    }
}

/// The samples of a group of quantities, in the order of first use.
#[derive(Default)]
pub struct Samples(Vec<Quantity>);

#[derive(Default)]
struct Quantity {
    name: String,
    /// In the order of [`Subject`].
    cells: [Cell; 6],
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
        &mut self.0[known].cells[subject as usize]
    }
}

impl Quantity {
    fn of(&self, subject: Subject) -> &Cell {
        &self.cells[subject as usize]
    }

    /// The ratio of the median of `first` to that of `other`.
    fn ratio(&self, first: Subject, other: Subject) -> String {
        match (self.of(first).summary(), self.of(other).summary()) {
            (Some(first), Some(other)) if other[1] > 0 => {
                format!("{:.3}", first[1] as f64 / other[1] as f64)
            }
            _ => String::new(),
        }
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
            (None, Some([only, ..])) if self.values.len() == 1 => only.to_string(),
            (None, Some([least, median, most])) => format!("{least} / {median} / {most}"),
            (None, None) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(subjects: &[Subject], samples: &Samples) -> String {
        let rows = Table::of(subjects.iter().copied()).rows(samples);
        rows.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    const BOTH: [Subject; 2] = [Subject::Ours, Subject::Peer];

    #[test]
    fn a_line_has_the_medians_and_their_ratios() {
        let mut samples = Samples::default();
        for value in [30, 10, 20] {
            samples.add("walltime", Subject::Ours, value);
            samples.add("walltime", Subject::Peer, 2 * value);
            samples.add("walltime", Subject::Floor, value / 2);
        }
        let all = [Subject::Ours, Subject::Peer, Subject::Floor];
        assert_eq!(
            args(&all, &samples),
            "walltime 10 / 20 / 30 20 / 40 / 60 5 / 10 / 15 0.500 2.000"
        );
        assert_eq!(
            args(&BOTH, &samples),
            "walltime 10 / 20 / 30 20 / 40 / 60 0.500"
        );
    }

    #[test]
    fn the_header_names_the_tenders_of_the_table() {
        let header = Table::of([Subject::Ours, Subject::Floor]).header();
        assert!(header.contains("floor min/median/max") && header.ends_with("/ floor\n"));
        assert!(!header.contains("peer"));
    }

    #[test]
    fn without_a_peer_there_is_no_ratio() {
        let mut samples = Samples::default();
        samples.add("walltime", Subject::Ours, 5);
        assert_eq!(args(&BOTH, &samples), "walltime 5");
    }

    #[test]
    fn a_tender_that_exceeded_the_limit_has_no_result() {
        let mut samples = Samples::default();
        samples.add("flood", Subject::Ours, 5);
        samples.add("flood", Subject::Peer, 6);
        samples.give_up("flood", Subject::Peer, Duration::from_secs(30));
        assert!(samples.given_up(Subject::Peer) && !samples.given_up(Subject::Ours));
        assert_eq!(args(&BOTH, &samples), "flood 5 over 30 s");
    }
}
