//! Errors of the TOML parser, with a hint for strings without quotes.

use toml::de::DeTable;

use super::super::argv::shown;
use super::entries::MOST_ERRORS;
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
        let fault = match quoted(text, offset) {
            Some(line) => Fault::Unquoted(shown(line.as_bytes())),
            None => Fault::Syntax(shown(error.message().as_bytes())),
        };
        (Place::of(text.as_bytes(), offset), fault)
    };
    errors
        .into_iter()
        .take(MOST_ERRORS + 1)
        .map(fault)
        .collect()
}

/// Returns the line at `offset` with its value in quotes, if the line lacks only these.
fn quoted(text: &str, offset: usize) -> Option<String> {
    let start = text.get(..offset)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text[start..].lines().next()?;
    let (key, value) = line.split_once('=')?;
    let value = value.split(" #").next()?.trim();
    let items = value
        .strip_prefix('[')
        .and_then(|list| list.strip_suffix(']'));
    let value = match items {
        Some(items) => {
            let items = items.split(',').map(|item| format!("\"{}\"", item.trim()));
            format!("[{}]", items.collect::<Vec<_>>().join(", "))
        }
        None if value.is_empty() || value.starts_with(['=', '{', '[', '"', '\'']) => return None,
        None => format!("\"{value}\""),
    };
    let corrected = format!("{} = {value}", key.trim());
    let is_valid = |line| DeTable::parse(line).is_ok();
    (!is_valid(line) && is_valid(&corrected)).then_some(corrected)
}
