//! Errors of the TOML parser, with a hint for strings without quotes.

use std::path::Path;

use toml::de::DeTable;

use super::super::argv::shown;
use super::entries::{Content, MOST_ERRORS};
use super::{Fault, Place};

/// Converts the parser's errors, the first of each line; one more than are printed, if there
/// are more.
pub(super) fn syntax_errors(text: &str, errors: &[toml::de::Error]) -> Vec<(Place, Fault)> {
    let offset = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
    let mut errors: Vec<_> = errors.iter().map(|error| (offset(error), error)).collect();
    errors.sort_by_key(|(offset, _)| *offset);
    let mut last = None;
    errors.retain(|(offset, _)| {
        let between = last.replace(*offset).map(|last| text.get(last..*offset));
        between.is_none_or(|skipped| skipped.is_some_and(|text| text.contains('\n')))
    });
    let fault = |(offset, error): (usize, &toml::de::Error)| {
        let fault = corrected(text, offset)
            .unwrap_or_else(|| Fault::Syntax(shown(error.message().as_bytes())));
        (Place::of(text.as_bytes(), offset), fault)
    };
    errors
        .into_iter()
        .take(MOST_ERRORS + 1)
        .map(fault)
        .collect()
}

/// Most bytes of a suggested line.
const LONGEST_LINE: usize = 120;

/// Returns the line at `offset` with its value in quotes, or as the flag that it sets, if the line
/// lacks only these.
fn corrected(text: &str, offset: usize) -> Option<Fault> {
    let start = text.get(..offset)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text[start..].lines().next()?;
    if line.len() > LONGEST_LINE || DeTable::parse(line).is_ok() {
        return None;
    }
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.split(" #").next()?.trim());
    let table = |line: &&str| line.starts_with('[') && line.len() <= LONGEST_LINE;
    let table = text[..start].lines().rev().find(table).unwrap_or_default();
    // A suggestion must not lead to another error, such as that of a string for a list.
    let is_valid = |line: &String| {
        let text = format!("{table}\n{line}");
        line.len() <= LONGEST_LINE
            && DeTable::parse(&text).is_ok()
            && Content::read(text.as_bytes(), Path::new("")).is_ok()
    };
    let string = quoted(value).map(|value| format!("{key} = {value}"));
    if let Some(line) = string.filter(is_valid) {
        return Some(Fault::Unquoted(shown(line.as_bytes())));
    }
    let is_word = !value.is_empty() && value.chars().all(char::is_alphanumeric);
    let is_set = !["no", "off", "false"].contains(&&*value.to_ascii_lowercase());
    let flag = is_word
        .then(|| format!("{key} = {is_set}"))
        .filter(is_valid)?;
    Some(Fault::NotBoolean(shown(flag.as_bytes())))
}

/// Returns `value` as a string, or as a list of strings; items that have quotes keep them.
fn quoted(value: &str) -> Option<String> {
    let list = value.strip_prefix('[');
    let Some(items) = list.and_then(|list| list.strip_suffix(']')) else {
        let is_other = value.is_empty() || value.starts_with(['=', '{', '[', '"', '\'']);
        return (!is_other).then(|| format!("\"{value}\""));
    };
    let items = items.split(',').map(|item| match item.trim() {
        item if item.starts_with(['"', '\'']) => item.to_owned(),
        item => format!("\"{item}\""),
    });
    Some(format!("[{}]", items.collect::<Vec<_>>().join(", ")))
}
