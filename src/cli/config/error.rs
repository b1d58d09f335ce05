//! Errors of a configuration file.

use std::fmt;

use super::super::Error;

/// A place in a file; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Place {
    /// Returns the place of the byte `offset` in `text`.
    pub(super) fn of(text: &[u8], offset: usize) -> Place {
        let before = &text[..offset.min(text.len())];
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let start = before
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |newline| newline + 1);
        // Editors neither show nor count a byte order mark.
        let before = before[start..]
            .strip_prefix("\u{feff}".as_bytes())
            .unwrap_or(&before[start..]);
        Place {
            line,
            column: String::from_utf8_lossy(before).chars().count() + 1,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// An error at a place of a configuration file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    /// It is not UTF-8.
    #[error("not UTF-8; save the file as UTF-8")]
    Encoding,
    /// It is not TOML.
    #[error("not TOML: {0}")]
    Syntax(String),
    /// There is no such key.
    #[error("unknown key '{key}'; {hint}")]
    UnknownKey {
        /// The key, with its tables.
        key: String,
        /// The most similar key, or other help.
        hint: String,
    },
    /// An option for the command line only.
    #[error("'{key}' is for the command line only; write 'tender --{key}' there")]
    NotInFiles {
        /// The option's name.
        key: String,
    },
    /// A value of the wrong type.
    #[error("'{key}' is {found}; expected {expected}")]
    Type {
        /// The key, with its tables.
        key: String,
        /// The type that was found.
        found: &'static str,
        /// The type that was expected.
        expected: String,
    },
    /// A value with a NUL character.
    #[error("'{key}' contains a NUL character; remove it")]
    Nul {
        /// The key, with its tables.
        key: String,
    },
    /// The unikernel's path is empty.
    #[error("the unikernel's path is empty; give the path of an hvt unikernel")]
    NoUnikernel,
    /// The option of this key rejects the value.
    #[error("{0}")]
    Option(Box<Error>),
    /// The directory of a file to be created does not exist.
    #[error("'{key}' is '{path}', whose directory does not exist; create it first")]
    NoDirectory {
        /// As in `Missing`.
        key: String,
        /// The file's.
        path: String,
    },
    /// A path does not exist.
    #[error("'{key}' is '{path}', which does not exist{hint}")]
    Missing {
        /// The key, with its tables.
        key: String,
        /// The path.
        path: String,
        /// A similar name after a semicolon; or empty.
        hint: String,
    },
}
