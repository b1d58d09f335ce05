//! Errors of the TOML parser, with a hint for strings without quotes.

use toml::de::DeTable;

use super::super::argv::shown;
use super::entries::MOST_ERRORS;
use super::{Fault, Place};

/// Converts the parser's errors, the first of each line.
pub(super) fn syntax_errors(text: &str, errors: &[toml::de::Error]) -> Vec<(Place, Fault)> {
    let mut faults = Vec::new();
    for error in errors {
        let offset = error.span().map_or(0, |span| span.start);
        let fault = match quoted(text, offset) {
            Some(line) => Fault::Unquoted(shown(line.as_bytes())),
            None => Fault::Syntax(shown(error.message().as_bytes())),
        };
        faults.push((Place::of(text.as_bytes(), offset), fault));
        if faults.len() == MOST_ERRORS {
            break;
        }
    }
    faults.sort_by_key(|(place, _)| *place);
    faults.dedup_by_key(|(place, _)| place.line);
    faults
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
