//! A strict parser of Prometheus's text format, version 0.0.4: every family has its help and its
//! type, once, before its samples. Samples of one family are adjacent and have different labels.

use std::collections::BTreeMap;

type Labels = BTreeMap<String, String>;

/// A family: its type, and its samples.
type Family = (String, Vec<(Labels, f64)>);

/// All families of one scrape.
pub struct Scrape(BTreeMap<String, Family>);

impl Scrape {
    #[track_caller]
    pub fn parse(text: &str) -> Scrape {
        assert!(text.ends_with('\n'), "the last line ends too");
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let (mut helped, mut current) = (String::new(), String::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest
                    .split_once(' ')
                    .unwrap_or_else(|| panic!("no help: {line}"));
                assert!(
                    is_name(name) && !help.is_empty() && !families.contains_key(name),
                    "{line}"
                );
                helped = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest
                    .split_once(' ')
                    .unwrap_or_else(|| panic!("no type: {line}"));
                assert!(
                    name == helped && ["counter", "gauge"].contains(&kind),
                    "{line}"
                );
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                assert!(
                    families
                        .insert(name.to_owned(), (kind.to_owned(), Vec::new()))
                        .is_none(),
                    "{line}"
                );
                current = name.to_owned();
            } else {
                let (name, labels, value) = sample(line);
                assert_eq!(name, current, "a sample outside its family: {line}");
                let samples = &mut families.get_mut(&current).expect("it has a type").1;
                assert!(
                    samples.iter().all(|(others, _)| *others != labels),
                    "twice: {line}"
                );
                samples.push((labels, value));
            }
        }
        Scrape(families)
    }

    /// Returns the value of the one sample that has all of these labels.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let (_, samples) = self.0.get(name).unwrap_or_else(|| panic!("no {name}"));
        let has = |sample: &Labels| {
            labels
                .iter()
                .all(|(label, value)| sample.get(*label).is_some_and(|v| v == value))
        };
        let found: Vec<_> = samples.iter().filter(|(sample, _)| has(sample)).collect();
        let [(_, value)] = found[..] else {
            panic!("{name} {labels:?}: {found:?}")
        };
        *value
    }

    /// Returns the labels of the one sample of a family.
    #[track_caller]
    pub fn labels(&self, name: &str) -> &Labels {
        let [(labels, _)] = &self.0[name].1[..] else {
            panic!("{name}")
        };
        labels
    }

    /// Returns the names of all families.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Checks that no counter has decreased.
    #[track_caller]
    pub fn is_no_less_than(&self, before: &Scrape) {
        for (name, (kind, samples)) in before.0.iter().filter(|(_, (kind, _))| kind == "counter") {
            for (labels, value) in samples {
                let now = self.0[name]
                    .1
                    .iter()
                    .find(|(others, _)| others == labels)
                    .expect("it stays");
                assert!(
                    now.1 >= *value,
                    "{kind} {name} {labels:?}: {value}, then {}",
                    now.1
                );
            }
        }
    }
}

fn is_name(name: &str) -> bool {
    let first = name
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Parses `name{label="value",…} number`.
#[track_caller]
fn sample(line: &str) -> (String, Labels, f64) {
    let (name, rest) = line.split_at(
        line.find(['{', ' '])
            .unwrap_or_else(|| panic!("no sample: {line}")),
    );
    let (labels, value) = match rest.strip_prefix('{') {
        None => (Labels::new(), rest),
        Some(rest) => labels(rest),
    };
    let value = value
        .strip_prefix(' ')
        .unwrap_or_else(|| panic!("no value: {line}"));
    assert!(is_name(name) && !value.contains(' '), "{line}");
    (
        name.to_owned(),
        labels,
        value
            .parse()
            .unwrap_or_else(|_| panic!("no number: {line}")),
    )
}

/// Parses labels; returns them and the text after the closing brace.
#[track_caller]
fn labels(mut rest: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    loop {
        let (label, after) = rest.split_once("=\"").expect("a label");
        assert!(is_name(label), "{label}");
        let (mut value, mut end, mut chars) = (String::new(), None, after.char_indices());
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = Some(at);
                    break;
                }
                '\\' => value.push(match chars.next().expect("an escape").1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    other => panic!("\\{other}"),
                }),
                c => value.push(c),
            }
        }
        assert!(
            labels.insert(label.to_owned(), value).is_none(),
            "{label} twice"
        );
        rest = &after[end.expect("a quote") + 1..];
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return (labels, rest.strip_prefix('}').expect("a brace")),
        }
    }
}
