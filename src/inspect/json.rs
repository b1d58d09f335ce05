//! A writer of JSON, as much of it as reports need: no more than this, so that no crate is worth its size for it.

use std::fmt::{self, Display, Formatter, Write};

/// A JSON value.
#[derive(Debug)]
pub enum Value {
    /// `null`.
    Null,
    /// A whole number.
    Number(u64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Value>),
    /// An object, its members in this order.
    Object(Vec<(&'static str, Value)>),
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

    /// Writes the value; one that holds others is spread over lines, unless those hold none.
    fn write(&self, f: &mut Formatter<'_>, depth: usize) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Number(number) => write!(f, "{number}"),
            Value::Text(text) => write_text(f, text),
            Value::List(values) => {
                let spread = values.iter().any(|value| !value.is_leaf());
                write_all(f, ['[', ']'], values, spread, depth, |f, value| value.write(f, depth + 1))
            }
            Value::Object(members) => {
                let spread = depth == 0 || members.iter().any(|(_, value)| !value.is_leaf());
                write_all(f, ['{', '}'], members, spread, depth, |f, (name, value)| {
                    write_text(f, name)?;
                    f.write_str(": ")?;
                    value.write(f, depth + 1)
                })
            }
        }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

/// Writes what is between two brackets, with a comma between any two.
fn write_all<T>(
    f: &mut Formatter<'_>,
    [open, close]: [char; 2],
    items: &[T],
    spread: bool,
    depth: usize,
    write: impl Fn(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    let new_line = |f: &mut Formatter<'_>, depth: usize| write!(f, "\n{:width$}", "", width = 2 * depth);
    f.write_char(open)?;
    for (index, item) in items.iter().enumerate() {
        match (index, spread) {
            (0, _) => {}
            (_, true) => f.write_char(',')?,
            (_, false) => f.write_str(", ")?,
        }
        if spread {
            new_line(f, depth + 1)?;
        }
        write(f, item)?;
    }
    if spread && !items.is_empty() {
        new_line(f, depth)?;
    }
    f.write_char(close)
}

/// Writes a string. All control characters are escaped, more than JSON asks for: none reaches a terminal.
fn write_text(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}
