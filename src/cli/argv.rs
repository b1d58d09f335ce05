//! Splits a command line: options, matched with the table; UNIKERNEL; and the arguments after it,
//! which belong to the guest.

use std::ffi::{OsStr, OsString};
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt;

use super::Error;
use super::options::{self, OptionValue};
use crate::report::text::one_line;

/// A command line, split into its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Argv {
    /// The options, in the order of the command line.
    pub options: Vec<OptionValue>,
    /// The first argument that is no option.
    pub unikernel: Option<OsString>,
    /// All arguments after it, unchanged.
    pub arguments: Vec<OsString>,
    /// Hint for "no unikernel given", after a colon: the option that consumed the last argument as
    /// its value. Empty if no option did, if the option is `--config`, whose error has more to
    /// report, or if there is an argument for the unikernel, even an empty one.
    pub taken: String,
}

/// Splits a command line, without the program's own name. Section 9. Returns all valid options and
/// the first error. `--help` hides later unknown options, but not a missing value.
pub(super) fn split(args: impl Iterator<Item = OsString>) -> (Argv, Result<(), Error>) {
    let mut args = args.peekable();
    let (mut argv, mut result) = (Argv::default(), Ok(()));
    // Whether an error or `--help` decides the outcome.
    let mut is_decided = false;
    while let Some(word) = args.next_if(|word| is_option(word) && word != "--") {
        match argv.add(&word, &mut args) {
            Ok(true) if !is_decided => {
                is_decided = matches!(argv.options.last(), Some(given) if given.name() == "help");
            }
            Ok(false) if !is_decided => {
                (is_decided, result) = (
                    true,
                    Err(options::explain(&word, args.peek().map(|next| &**next))),
                );
            }
            // Reported even after `--help`: without this value, the meaning of later arguments is
            // unknown.
            Err(error) if result.is_ok() => (is_decided, result) = (true, Err(error)),
            _ => {}
        }
    }
    args.next_if_eq("--");
    argv.unikernel = args.next();
    if argv.unikernel.is_some() {
        argv.taken.clear();
    }
    argv.arguments = args.collect();
    (argv, result)
}

impl Argv {
    /// Returns the last occurrence of the option called `name`.
    pub(super) fn last(&self, name: &str) -> Option<&OptionValue> {
        self.options.iter().rfind(|given| given.name() == name)
    }

    /// Adds the option `word`, together with the next argument if that is its value. Returns
    /// whether the table has the option.
    fn add(
        &mut self,
        word: &OsStr,
        args: &mut Peekable<impl Iterator<Item = OsString>>,
    ) -> Result<bool, Error> {
        let Some(long) = word.as_bytes().strip_prefix(b"--") else {
            return Ok(self.add_letters(&word.as_bytes()[1..]));
        };
        let (name, value) = split_at_byte(long, b'=');
        let (name, device) = split_at_byte(name, b':');
        let spec = options::named(name)
            .filter(|spec| device.is_none() || spec.takes_device())
            .filter(|spec| value.is_none() || !spec.is_flag());
        let Some(spec) = spec else {
            return Ok(false);
        };
        let device = device.map(|device| spec.device_name(device)).transpose()?;
        let mut given = spec.given(device, OsStr::from_bytes(value.unwrap_or_default()));
        if value.is_none() && !spec.is_flag() {
            given.value = self.next_value(&given, args)?;
        }
        self.options.push(given);
        Ok(true)
    }

    /// Adds flags by their letters. Returns whether the table has all of them.
    fn add_letters(&mut self, letters: &[u8]) -> bool {
        for &letter in letters {
            let Some(spec) = options::with_letter(letter) else {
                return false;
            };
            self.options.push(spec.given(None, ""));
            if spec.name() == "help" {
                break;
            }
        }
        true
    }

    /// Returns the next argument, which must exist and not look like an option, as the value of
    /// `given`.
    fn next_value(
        &mut self,
        given: &OptionValue,
        args: &mut Peekable<impl Iterator<Item = OsString>>,
    ) -> Result<OsString, Error> {
        let (option, value) = (given.spelling(), given.spec.value.1);
        let Some(word) = args.next_if(|word| !is_option(word)) else {
            return Err(Error::NoValue { option, value });
        };
        self.taken = if given.name() == "config" || is_plain(word.as_bytes(), value) {
            String::new()
        } else {
            let word = shown(word.as_bytes());
            format!(": option '{option}' took '{word}' as its value (write {option}={value})")
        };
        Ok(word)
    }
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

/// Returns whether a value cannot be a unikernel's path: a size, a number, a descriptor, or one of
/// the choices in `value`.
fn is_plain(word: &[u8], value: &str) -> bool {
    word.first()
        .is_none_or(|first| first.is_ascii_digit() || *first == b'@')
        || value.split('|').any(|choice| choice.as_bytes() == word)
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
        split(args.into_iter())
            .0
            .last("log-format")
            .map(|given| given.value.to_str().unwrap().to_owned())
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
