//! The table of messages is complete: each message of `src/` has a row, and each row a message.

use std::fs::{self};
use std::path::PathBuf;

use libtest_mimic::Trial;

use crate::common::Need::Repository;
use crate::docs::repository;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(every_message_is_listed, Repository),
        trial!(every_row_is_a_message, Repository),
    ]
}

/// Returns the text of every Rust file below `directory`, with lines that `\` continues joined.
fn sources(directory: PathBuf) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if entry.is_dir() {
            text += &sources(entry);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let mut parts = fs::read_to_string(entry).unwrap();
            while let Some((start, rest)) = parts.split_once("\\\n") {
                parts = format!("{start}{}", rest.trim_start());
            }
            text += &parts;
        }
    }
    text
}

/// Returns a message as the table has it: `…` for the variable parts.
fn folded(message: &str) -> String {
    let mut folded = String::new();
    for (index, part) in message.split('{').enumerate() {
        let rest = if index == 0 {
            part
        } else {
            part.split_once('}').map_or(part, |(_, rest)| rest)
        };
        folded += if index == 0 { "" } else { "…" };
        folded += rest;
    }
    while folded.contains("……") {
        folded = folded.replace("……", "…");
    }
    folded
}

/// What precedes the problem of an error in the sources.
const ERROR: &str = "#[error(";

/// What precedes its fix, in the next attribute.
const FIX: &str = "#[diagnostic(help(";

/// What precedes the text of a warning, or of another error.
const PREFIXES: [&str; 3] = [
    "log::warn!(",
    "fail(format_args!(",
    "Level::Warn, format_args!(",
];

/// The texts of `outcome::Error`, which cannot derive them.
fn outcomes() -> Vec<String> {
    let text = fs::read_to_string(repository().join("src/outcome.rs")).unwrap();
    let display = text.split_once("impl fmt::Display for Error").unwrap().1;
    let after = |before: &str| {
        let starts = display.split(before).skip(1);
        let literals = starts.map(|rest| folded(rest.split('"').next().unwrap()));
        literals.collect::<Vec<_>>()
    };
    [after("write!(f, \""), after("f.write_str(\"")].concat()
}

/// Returns the string that `rest` begins with.
fn literal(rest: &str) -> Option<&str> {
    rest.trim_start().strip_prefix('"')?.split('"').next()
}

/// Returns the problem of the error whose attribute `rest` begins with, and its fix.
fn error(rest: &str) -> Option<String> {
    let problem = literal(rest)?;
    let next = rest.split_once(")]\n").map_or("", |(_, next)| next);
    let fix = next.trim_start().strip_prefix(FIX).and_then(literal);
    Some(fix.map_or(problem.to_owned(), |fix| format!("{problem}; {fix}")))
}

/// Returns the text of the warning whose arguments `rest` begins with.
fn warning(rest: &str) -> Option<String> {
    let rest = rest.trim_start();
    // Keys precede the text.
    let has_keys = ["device = ", "cause = "]
        .iter()
        .any(|key| rest.starts_with(key));
    let text = if has_keys {
        rest.split_once(';')?.1
    } else {
        rest
    };
    literal(text).map(str::to_owned)
}

fn messages() -> Vec<String> {
    let text = sources(repository().join("src")).replace("\\\"", "\u{1}");
    assert!(
        !text.contains("log::error!("),
        "errors end the run, and are printed by `fail`"
    );
    let starts = PREFIXES
        .iter()
        .flat_map(|before| text.split(before).skip(1));
    let errors = text.split(ERROR).skip(1).filter_map(error);
    let messages = errors.chain(starts.filter_map(warning));
    let messages = messages.map(|message| folded(&message).replace('\u{1}', "\""));
    let messages = messages.chain(outcomes());
    // A format that only prepends the device to another message has no row.
    messages
        .filter(|message| has_text(message) && message != "device '…': …")
        .collect()
}

/// Whether a message has fixed text: three letters in a row.
fn has_text(message: &str) -> bool {
    message
        .split(|c: char| !c.is_alphabetic())
        .any(|word| word.chars().count() >= 3)
}

/// Returns the first column of the tables.
fn rows() -> Vec<String> {
    let text = fs::read_to_string(repository().join("docs/troubleshooting.md"))
        .expect("the table of messages is here");
    let cells = text.lines().filter_map(|line| {
        line.strip_prefix("| `")?
            .split_once("` |")
            .map(|(cell, _)| cell)
    });
    // Within a table, Markdown ends a cell at a bar, even in code.
    cells.map(|cell| cell.replace("\\|", "|")).collect()
}

/// A row omits the file or the interface that a message begins with.
fn is_row(message: &str, row: &str) -> bool {
    let about = message.strip_prefix("…: ");
    row == message || about == Some(row) || row.strip_prefix("device '…': ") == Some(message)
}

fn every_message_is_listed() {
    let (rows, messages) = (rows(), messages());
    assert!(!messages.is_empty());
    let missing: Vec<_> = messages
        .iter()
        .filter(|message| !rows.iter().any(|row| is_row(message, row)))
        .collect();
    assert!(
        missing.is_empty(),
        "not in docs/troubleshooting.md: {missing:#?}"
    );
}

fn every_row_is_a_message() {
    let (messages, text) = (
        messages(),
        sources(repository().join("src")).replace("\\\"", "\""),
    );
    let rows = rows();
    assert!(!rows.is_empty());
    let others = rows
        .iter()
        .filter(|row| !messages.iter().any(|message| is_row(message, row)));
    let unknown: Vec<_> = others
        .filter(|row| !row.split('…').all(|part| text.contains(part)))
        .collect();
    assert!(
        unknown.is_empty(),
        "no message in src/ matches: {unknown:#?}"
    );
}
