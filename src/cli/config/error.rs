//! What can be wrong with a configuration file, in words.

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
    /// The place of the byte `offset` in `text`.
    pub(super) fn of(text: &[u8], offset: usize) -> Place {
        let before = &text[..offset.min(text.len())];
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let start = before
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |newline| newline + 1);
        // Editors show no byte order mark, and count none.
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

/// What is wrong at a place of a configuration file.
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
        /// With the tables that it is in.
        key: String,
        /// What may be meant.
        hint: String,
    },
    /// An option that is about the command line itself.
    #[error("'{key}' is for the command line only; write 'tender --{key}' there")]
    NotInFiles {
        /// The option's name.
        key: String,
    },
    /// A value of another kind than the key takes.
    #[error("'{key}' is {found}; expected {expected}")]
    Type {
        /// With the tables that it is in.
        key: String,
        /// What is there.
        found: &'static str,
        /// What is to be there.
        expected: String,
    },
    /// A value that no word of a command line can have.
    #[error("'{key}' contains a NUL character; remove it")]
    Nul {
        /// With the tables that it is in.
        key: String,
    },
    /// No unikernel at all.
    #[error("the unikernel's path is empty; give the path of an hvt unikernel")]
    NoUnikernel,
    /// What the option that the key stands for says of its value.
    #[error("{0}")]
    Option(Box<Error>),
    /// A file that is to be made has no place to be in.
    #[error("'{key}' is '{path}', whose directory does not exist; create it first")]
    NoDirectory {
        /// As in `Missing`.
        key: String,
        /// The file's.
        path: String,
    },
    /// A path leads nowhere.
    #[error("'{key}' is '{path}', which does not exist{hint}")]
    Missing {
        /// With the tables that it is in.
        key: String,
        /// The path.
        path: String,
        /// What may be meant, with a semicolon before it; or nothing.
        hint: String,
    },
}
