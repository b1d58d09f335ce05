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
        let before = String::from_utf8_lossy(&text[..offset.min(text.len())]);
        let line = before.rsplit('\n').next().unwrap_or_default();
        // Editors neither show nor count a byte order mark.
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        Place {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// An error at a place of a configuration file.
#[derive(Debug, miette::Diagnostic, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Fault {
    #[error("not UTF-8")]
    #[diagnostic(help("save the file as UTF-8"))]
    Encoding,
    #[error("not TOML: {0}")]
    Syntax(String),
    #[error("not TOML")]
    #[diagnostic(help("put strings in quotes: {0}"))]
    Unquoted(String),
    #[error("not TOML")]
    #[diagnostic(help("write true or false: {0}"))]
    NotBoolean(String),
    #[error("unknown key '{key}'")]
    #[diagnostic(help("{hint}"))]
    UnknownKey { key: String, hint: String },
    #[error("'{key}' names no device")]
    #[diagnostic(help("write it in [{table}.NAME]"))]
    NoDevice { key: String, table: &'static str },
    #[error("'{key}' is for the command line only")]
    #[diagnostic(help("write 'tender --{key}' there"))]
    NotInFiles { key: String },
    #[error("'{key}' is {found}")]
    #[diagnostic(help("expected {expected}"))]
    Type {
        key: String,
        found: &'static str,
        expected: String,
    },
    #[error("'{key}' contains a NUL character")]
    #[diagnostic(help("remove it"))]
    Nul { key: String },
    #[error("the unikernel's path is empty")]
    #[diagnostic(help("give the path of an hvt unikernel"))]
    NoUnikernel,
    #[error(transparent)]
    #[diagnostic(transparent)]
    Option(Box<Error>),
    #[error("'{key}' is '{path}', whose directory does not exist")]
    #[diagnostic(help("create it first"))]
    NoDirectory { key: String, path: String },
    #[error("'{key}' is '{path}', which does not exist")]
    Missing {
        key: String,
        path: String,
        #[help]
        meant: Option<String>,
    },
}
