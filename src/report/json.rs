//! A minimal JSON writer for `inspect`, `--json`, `--stats` and `--log-format`. No crate is worth its size
//! for this.

use std::fmt::{self, Display, Formatter, Write};

use super::text::is_unsafe;

/// A JSON value.
#[derive(Debug)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Number(u64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Value>),
    /// An object, its members in this order.
    Object(Vec<(&'static str, Value)>),
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Value {
        Value::List(values.into_iter().map(T::into).collect())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, T::into)
    }
}

impl Value {
    fn is_leaf(&self) -> bool {
        match self {
            Value::List(values) => values.is_empty(),
            Value::Object(members) => members.is_empty(),
            _ => true,
        }
    }

    /// Formats the value on one line.
    pub fn one_line(&self) -> impl Display {
        OneLine(self)
    }

    /// Writes the value. With a depth, a value that contains containers is spread over lines.
    fn write(&self, f: &mut Formatter<'_>, depth: Option<usize>) -> fmt::Result {
        let inner = depth.map(|depth| depth + 1);
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::Text(text) => write_text(f, text),
            Value::List(values) => {
                let spread = depth.filter(|_| values.iter().any(|value| !value.is_leaf()));
                write_all(f, ['[', ']'], values, spread, |f, value| {
                    value.write(f, inner)
                })
            }
            Value::Object(members) => {
                let spread = depth.filter(|&depth| {
                    depth == 0 || members.iter().any(|(_, value)| !value.is_leaf())
                });
                write_all(f, ['{', '}'], members, spread, |f, (name, value)| {
                    write_text(f, name)?;
                    f.write_str(": ")?;
                    value.write(f, inner)
                })
            }
        }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write(f, Some(0))
    }
}

/// A value on one line.
struct OneLine<'v>(&'v Value);

impl Display for OneLine<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.write(f, None)
    }
}

/// Writes items between two brackets, separated by commas; with a depth, one item per line.
fn write_all<T>(
    f: &mut Formatter<'_>,
    [open, close]: [char; 2],
    items: &[T],
    spread: Option<usize>,
    write: impl Fn(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    let new_line =
        |f: &mut Formatter<'_>, depth: usize| write!(f, "\n{:width$}", "", width = 2 * depth);
    f.write_char(open)?;
    for (index, item) in items.iter().enumerate() {
        match (index, spread) {
            (0, _) => {}
            (_, Some(_)) => f.write_char(',')?,
            (_, None) => f.write_str(", ")?,
        }
        if let Some(depth) = spread {
            new_line(f, depth + 1)?;
        }
        write(f, item)?;
    }
    if let (Some(depth), [_, ..]) = (spread, items) {
        new_line(f, depth)?;
    }
    f.write_char(close)
}

fn write_text(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    Escaped(f).write_str(text)?;
    f.write_char('"')
}

/// Escapes text for a JSON string. All characters that [`is_unsafe`] names are escaped, which is more than JSON
/// requires, so that none reaches a terminal.
pub struct Escaped<'w, W>(pub &'w mut W);

impl<W: Write> Write for Escaped<'_, W> {
    /// Writes each character separately: a buffer that overflows is cut between two characters.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '"' => self.0.write_str("\\\"")?,
                '\\' => self.0.write_str("\\\\")?,
                c if is_unsafe(c) => self.0.write_str(escape(c, &mut [0; 6]))?,
                c => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Returns `\u` and four digits; no control character needs more.
fn escape(c: char, buffer: &mut [u8; 6]) -> &str {
    let digit = |shift: u32| b"0123456789abcdef"[(u32::from(c) >> shift & 0xf) as usize];
    *buffer = [b'\\', b'u', digit(12), digit(8), digit(4), digit(0)];
    std::str::from_utf8(buffer).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_same_content() {
        let inner = Value::Object(vec![("b\n", vec![1_u64, 2].into()), ("c", true.into())]);
        let value = Value::Object(vec![
            ("a", Value::List(vec![inner])),
            ("d", "\u{1b}\u{9b}\"\\é".into()),
        ]);
        let line = value.one_line().to_string();
        assert_eq!(
            line,
            r#"{"a": [{"b\u000a": [1, 2], "c": true}], "d": "\u001b\u009b\"\\é"}"#
        );
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(read(&line), read(&value.to_string()));
    }
}
