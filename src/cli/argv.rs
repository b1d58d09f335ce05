//! Splits a command line before clap sees it: finds where the options end, and rewrites options
//! whose name contains a device name.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::Error;
use super::options;
use crate::guest::manifest::is_valid_name;
use crate::report::text::one_line;

/// A command line, split into its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Argv {
    /// One element per option, `--name=value`; with a device name, `--name:NAME=device=value`.
    pub options: Vec<OsString>,
    /// The first argument that is no option.
    pub unikernel: Option<OsString>,
    /// All arguments after it, unchanged.
    pub arguments: Vec<OsString>,
    /// Hint for "no unikernel given", after a colon: the option that consumed the last argument as
    /// its value. Empty if no option did, if the option is `--config`, whose error has more to
    /// report, or if there is an argument for the unikernel, even an empty one.
    pub taken: String,
}

/// Splits a command line, without the program's own name. Section 9.
pub(super) fn split(mut args: impl Iterator<Item = OsString>) -> Result<Argv, Error> {
    let (mut options, mut taken) = (Vec::new(), String::new());
    let unikernel = loop {
        match args.next() {
            Some(word) if word == "--" => break args.next(),
            Some(word) if is_option(&word) => options.push(complete(word, &mut args, &mut taken)?),
            other => break other,
        }
    };
    if unikernel.is_some() {
        taken.clear();
    }
    Ok(Argv {
        options,
        unikernel,
        arguments: args.collect(),
        taken,
    })
}

/// Returns the last value of the option `name`, even if the command line is invalid otherwise.
pub(super) fn last_value(args: &[OsString], name: &str) -> Option<OsString> {
    let (mut args, mut found) = (args.iter().cloned(), None);
    while let Some(word) = args.next().filter(|word| is_option(word) && word != "--") {
        let after = args.clone();
        let Ok(whole) = complete(word, &mut args, &mut String::new()) else {
            // Its value is missing: the next argument is an option.
            args = after;
            continue;
        };
        let (option, value) = split_at_byte(whole.as_bytes(), b'=');
        if option.strip_prefix(b"--") == Some(name.as_bytes()) {
            found = value.map(|value| OsStr::from_bytes(value).to_owned());
        }
    }
    found
}

/// Returns whether an argument is an option; a lone `-` is a file of that name.
pub(super) fn is_option(argument: &OsStr) -> bool {
    argument.len() > 1 && argument.as_bytes()[0] == b'-'
}

/// Splits at the first `separator`.
fn split_at_byte(bytes: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|&byte| byte == separator) {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    }
}

/// Rewrites an option to the form that clap gets, together with the next argument if that is its
/// value; notes that in `taken`.
fn complete(
    argument: OsString,
    args: &mut impl Iterator<Item = OsString>,
    taken: &mut String,
) -> Result<OsString, Error> {
    let (option, value) = split_at_byte(argument.as_bytes(), b'=');
    let (base, device) = split_at_byte(option, b':');
    let Some(known) = options::with_value(base) else {
        return Ok(argument);
    };
    let form = match device {
        None => base.to_vec(),
        Some(device) => {
            let Some(named) = known.named else {
                return Ok(argument);
            };
            check_name(option, device)?;
            [b"--", named.as_bytes(), b"=", device].concat()
        }
    };
    let value = match value {
        Some(value) => Cow::Borrowed(value),
        None => {
            let next = next_value(option, known.value, args)?;
            *taken = if known.name == "config" || is_plain(&next, known.value) {
                String::new()
            } else {
                took(option, &next, known.value)
            };
            Cow::Owned(next)
        }
    };
    Ok(OsString::from_vec([&form, &b"="[..], &value].concat()))
}

/// Returns the next argument, which must exist and not look like an option.
fn next_value(
    option: &[u8],
    value: &'static str,
    args: &mut impl Iterator<Item = OsString>,
) -> Result<Vec<u8>, Error> {
    match args.next() {
        Some(word) if !is_option(&word) => Ok(word.into_vec()),
        _ => Err(Error::NoValue {
            option: shown(option),
            value,
        }),
    }
}

/// Returns whether a value cannot be a unikernel's path: a size, a number, a descriptor, or one of
/// the choices in `value`.
fn is_plain(word: &[u8], value: &str) -> bool {
    word.first()
        .is_none_or(|first| first.is_ascii_digit() || *first == b'@')
        || value.split('|').any(|choice| choice.as_bytes() == word)
}

/// Returns the hint that `option` consumed an argument that may have been the unikernel.
fn took(option: &[u8], word: &[u8], value: &str) -> String {
    let (option, word) = (shown(option), shown(word));
    format!(": option '{option}' took '{word}' as its value (write {option}={value})")
}

/// Rejects an invalid device name.
pub(super) fn check_name(option: &[u8], name: &[u8]) -> Result<(), Error> {
    if std::str::from_utf8(name).is_ok_and(is_valid_name) {
        return Ok(());
    }
    Err(Error::Name {
        option: shown(option),
        name: shown(name),
    })
}

/// Makes an argument printable, for a message of one line.
pub(super) fn shown(bytes: &[u8]) -> String {
    one_line(&String::from_utf8_lossy(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(args: &[&str]) -> Option<String> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        last_value(&args, "log-format").map(|value| value.into_string().unwrap())
    }

    #[test]
    fn the_last_value_counts_despite_other_errors() {
        let json = Some("json".to_owned());
        for args in [
            &["--log-format=json", "app"][..],
            &["--log-format", "json", "app", "--log-format=text"],
            &["--log-format=text", "--log-format=json"],
            &[
                "--frobnicate",
                "-x",
                "--net:a-b=x",
                "--mem=lots",
                "--log-format=json",
                "app",
            ],
            &["--log-format=json", "--mem"],
            &["--mem", "--log-format=json", "app"],
            &["--net:a", "--mem", "--log-format", "json", "app"],
            &["--log-format", "--log-format=json", "app"],
        ] {
            assert_eq!(last(args), json, "{args:?}");
        }
    }

    #[test]
    fn other_arguments_give_no_value() {
        for args in [
            &[][..],
            &["app", "--log-format=json"],
            &["--", "--log-format=json"],
            &["--mem", "--", "--log-format=json"],
            &["--log-format"],
            &["--log-format:a=json"],
            &["--disk", "app", "x", "--log-format=json"],
        ] {
            assert_eq!(last(args), None, "{args:?}");
        }
    }
}
