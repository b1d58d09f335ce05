//! The explanation of each option, from `pages/options.txt`: a paragraph per option, in which
//! backquotes mark names, and indented lines are examples. The names, placeholders and groups come
//! from tender's table of options.

use std::io::{Error, Result};

use clap::{Arg, Command};
use tender::cli::Key;

const TEXTS: &str = include_str!("../pages/options.txt");

/// Returns the options with one heading per group, in the order of `tender --help`.
pub fn options(command: &Command) -> Result<String> {
    let (mut text, mut group) = (String::new(), None);
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let heading = arg.get_help_heading();
        if heading != group {
            text += &format!(".SS {}\n", heading.unwrap_or_default());
            group = heading;
        }
        let name = arg.get_long().unwrap_or_default();
        text += &format!(".TP\n{}\n{}", spelling(arg), roff(explanation(name)?, true));
    }
    Ok(text)
}

/// Returns the keys of a configuration file, each with the type of its value.
pub fn keys() -> Result<String> {
    let mut text = String::new();
    for key in tender::cli::keys() {
        let place = key.property.map_or(String::new(), |(table, property)| {
            format!(
                ", or {} in {}",
                bold(property),
                bold(&format!("[{table}.NAME]"))
            )
        });
        let tag = format!("{}{place} ({}{})", bold(key.name), key.accepts, form(&key));
        text += &format!(".TP\n{tag}\n{}", roff(explanation(key.option)?, false));
    }
    Ok(text)
}

/// Returns the form of a key's value, if it has one.
fn form(key: &Key) -> String {
    match key.value {
        "" => String::new(),
        value => format!(": {}", italic(value)),
    }
}

/// Formats an option: `-v, --verbose`, `--mem=SIZE`.
fn spelling(arg: &Arg) -> String {
    let short = arg
        .get_short()
        .map(|letter| bold(&format!("-{letter}")) + ", ");
    let long = bold(&format!("--{}", arg.get_long().unwrap_or_default()));
    let value = arg.get_value_names().and_then(|names| names.first());
    let value = value.map(|value| format!("={}", italic(value)));
    short.unwrap_or_default() + &long + &value.unwrap_or_default()
}

/// Returns the lines about the option called `name`.
fn explanation(name: &str) -> Result<&'static str> {
    let mut sections = TEXTS.split("## ").skip(1);
    let found = sections.find_map(|section| {
        let (title, text) = section.split_once('\n')?;
        (title == name).then_some(text)
    });
    found.ok_or_else(|| Error::other(format!("pages/options.txt does not explain '{name}'")))
}

/// Formats the lines of an explanation, with its examples or without.
fn roff(text: &str, examples: bool) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let mut page = String::new();
    for lines in lines.chunk_by(|a, b| a.starts_with(' ') == b.starts_with(' ')) {
        if lines[0].starts_with(' ') && !examples {
            continue;
        }
        let is_example = lines[0].starts_with(' ');
        // A line that introduces an example goes with it.
        let lines = lines.iter().filter(|line| examples || !line.ends_with(':'));
        let lines = lines.map(|line| marked(line.trim_start()) + "\n");
        let lines = lines.collect::<String>();
        page += &if is_example {
            format!(".IP\n.EX\n{lines}.EE\n")
        } else {
            lines
        };
    }
    page
}

/// Formats a line: what is between backquotes is bold.
fn marked(line: &str) -> String {
    let parts = line.split('`').enumerate();
    let line: String = parts
        .map(|(index, part)| {
            if index % 2 == 1 {
                bold(part)
            } else {
                escaped(part)
            }
        })
        .collect();
    // A line that begins with one of these is a request.
    if line.starts_with(['.', '\'']) {
        format!("\\&{line}")
    } else {
        line
    }
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escaped(text))
}

fn italic(text: &str) -> String {
    format!("\\fI{}\\fR", escaped(text))
}

/// Escapes what roff would interpret.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn exactly_the_options_are_explained() {
        let command = tender::cli::command();
        let options = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let options: BTreeSet<_> = options.filter_map(Arg::get_long).collect();
        let titles = TEXTS
            .split("## ")
            .skip(1)
            .filter_map(|text| text.lines().next());
        assert_eq!(titles.collect::<BTreeSet<_>>(), options);
    }

    /// Every option that has a value, and every flag of a run, names its default.
    #[test]
    fn every_default_is_explained() {
        let command = tender::cli::command();
        let others = ["check", "quiet", "json", "help", "version"];
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            let name = arg.get_long().unwrap();
            let text = explanation(name).unwrap();
            assert!(
                others.contains(&name) || text.contains("default"),
                "{name}: {text}"
            );
            // Every value of a choice has its sentence.
            let value = arg.get_value_names().map_or("", |names| names[0].as_str());
            if value.contains('|') && !value.contains(|c: char| c.is_ascii_uppercase()) {
                for choice in value.split('|') {
                    assert!(text.contains(&format!("`{choice}`")), "{name}: {choice}");
                }
            }
        }
    }

    #[test]
    fn lines_and_examples_are_formatted() {
        let text = "A `--b`-c.\n.d \\\n\n    x -y\n    z\n";
        let plain = "A \\fB\\-\\-b\\fR\\-c.\n\\&.d \\e\n";
        assert_eq!(roff(text, false), plain);
        assert_eq!(roff("A.\nIn b:\n    c\n", false), "A.\n");
        assert_eq!(
            roff(text, true),
            format!("{plain}.IP\n.EX\nx \\-y\nz\n.EE\n")
        );
    }
}
