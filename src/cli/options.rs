//! The options: one table for splitting, parsing and the help text.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, value_parser};

use super::Error;
use super::argv::shown;
use crate::config::Verbosity;

mod table;

pub(super) use table::Valued;
use table::{HIDDEN, VALUED};

const USAGE: &str =
    "tender [OPTIONS] [--] UNIKERNEL [ARGS]...\n       tender inspect [--json] [--] UNIKERNEL";

const AFTER: &str = "\
A value follows its option after '=' or as the next argument. NAME is that of a
device in the unikernel's manifest; if there is only one, omit it:
--net=IFACE, --net-mac=MAC, --block=PATH (or --disk=PATH).
FD is the number of an open descriptor, or its name in LISTEN_FDNAMES.
Options end at UNIKERNEL: all arguments after it are passed to the guest.
'tender inspect' reports what a unikernel is and needs, without running it.
'inspect' must be the first argument; a unikernel of that name is run by
'tender -- inspect' or 'tender ./inspect'.

Examples:
  tender hello.hvt Hello, world
  tender --net=tap100 --mem=64M -- web.hvt --ipv4=10.0.0.2/24
  tender --net:lan=tap1 --net:wan=@3 --block:data=/var/lib/app.img -v router.hvt

Exit status:
  That of the guest, 255 if it aborted; 1 for every error of tender itself.";

/// Returns the option written `word`, dashes included, if it exists and takes a value.
pub(super) fn with_value(word: &[u8]) -> Option<&'static Valued> {
    let name = word.strip_prefix(b"--")?;
    VALUED.iter().find(|valued| valued.name.as_bytes() == name)
}

/// The kind of an option as a key of a configuration file.
#[derive(Debug)]
pub(super) enum Key {
    /// An option with a value.
    Valued(&'static Valued),
    /// A flag.
    Flag,
    /// A flag that may be repeated.
    Count,
}

/// Returns every option that a configuration file may contain, by its name without dashes. Options
/// about the command line itself are excluded.
pub(super) fn keys() -> Vec<(String, Key)> {
    const NOT_IN_FILES: [&str; 4] = ["config", "check", "help", "version"];
    let valued = VALUED
        .iter()
        .map(|valued| (valued.name.to_owned(), Key::Valued(valued)));
    let command = command();
    let flags = command
        .get_arguments()
        .filter_map(|arg| match arg.get_action() {
            ArgAction::SetTrue => Some((arg.get_id().to_string(), Key::Flag)),
            ArgAction::Count => Some((arg.get_id().to_string(), Key::Count)),
            _ => None,
        });
    valued
        .chain(flags)
        .filter(|(name, _)| !NOT_IN_FILES.contains(&name.as_str()))
        .collect()
}

impl Valued {
    fn args(&'static self) -> impl Iterator<Item = Arg> {
        let plain = self
            .arg(self.name)
            .hide(self.named.is_some() || self.name == HIDDEN);
        let named = self.named.map(|name| self.arg(name));
        [Some(plain), named].into_iter().flatten()
    }

    fn arg(&'static self, name: &'static str) -> Arg {
        Arg::new(name)
            .long(name)
            .value_name(self.value)
            .value_parser(value_parser!(OsString))
            .action(ArgAction::Append)
            .require_equals(true)
            .help(self.help)
            .help_heading(self.heading)
    }
}

/// Returns the options for clap, manual pages and completions. Options for devices appear as
/// `--net:NAME`, and hidden without the name. clap never sees UNIKERNEL and the arguments after it.
pub fn command() -> clap::Command {
    let flag = |name: &'static str, short| {
        Arg::new(name)
            .long(name)
            .short(short)
            .help_heading("Output")
    };
    clap::Command::new("tender")
        .about("Runs a Solo5 hvt unikernel as a KVM guest, with the devices that it declares.")
        .override_usage(USAGE)
        .after_help(AFTER)
        .disable_help_flag(true)
        .args(VALUED.iter().flat_map(Valued::args))
        .arg(
            Arg::new("lock-memory")
                .long("lock-memory")
                .action(ArgAction::SetTrue)
                .overrides_with("lock-memory")
                .help_heading("Limits")
                .help("Allocate all guest memory at the start and lock it in RAM"),
        )
        .arg(
            Arg::new("gdb")
                .long("gdb")
                .action(ArgAction::SetTrue)
                .overrides_with("gdb")
                .help_heading("Debugging")
                .help("Hold the guest at its first instruction until gdb connects"),
        )
        .arg(
            Arg::new("console-timestamps")
                .long("console-timestamps")
                .action(ArgAction::SetTrue)
                .overrides_with("console-timestamps")
                .help_heading("Output")
                .help("Prefix each line of the guest's console with the time"),
        )
        .arg(
            Arg::new("check")
                .long("check")
                .action(ArgAction::SetTrue)
                .overrides_with("check")
                .help_heading("Configuration")
                .help("Report whether it would start and what is missing; start nothing"),
        )
        .arg(
            flag("verbose", 'v')
                .action(ArgAction::Count)
                .help("Log more on stderr; -vv and -vvv log still more"),
        )
        .arg(
            flag("quiet", 'q')
                .action(ArgAction::SetTrue)
                .overrides_with("quiet")
                .help("Log nothing on stderr but errors"),
        )
        .arg(
            Arg::new("no-net-ring")
                .long("no-net-ring")
                .action(ArgAction::SetTrue)
                .overrides_with("no-net-ring")
                .hide(true),
        )
        .arg(
            flag("help", 'h')
                .action(ArgAction::Help)
                .help("Print this text and exit"),
        )
        .arg(
            flag("version", 'V')
                .action(ArgAction::SetTrue)
                .overrides_with("version")
                .help("Print the version and exit"),
        )
}

/// The result of parsing the options.
pub(super) enum Outcome {
    /// `--help`.
    Help(String),
    /// `--version`.
    Version,
    /// The parsed options.
    Options(Parsed),
}

/// Options by name: values in the order of the arguments, and flags.
#[derive(Default)]
pub(super) struct Parsed {
    values: Vec<(&'static str, OsString)>,
    flags: Vec<&'static str>,
}

/// One occurrence of an option.
#[derive(Debug)]
pub(super) struct OptionValue {
    /// Its name as written, with dashes and device, without its value.
    pub option: String,
    /// Its name without dashes and device.
    pub name: &'static str,
    /// The device it names.
    pub device: Option<String>,
    /// Its value.
    pub value: OsString,
}

/// Parses options in the form that [`super::argv::split`] returns. A valid command line is matched
/// with the table; clap, which costs a tenth of a start, sees only what the table does not have.
pub(super) fn parse(options: Vec<OsString>) -> Result<Outcome, Error> {
    match Parsed::from_table(&options) {
        Some(parsed) => Ok(Outcome::Options(parsed)),
        None => explain(options),
    }
}

/// Returns help, version or an error, by clap.
#[cold]
fn explain(options: Vec<OsString>) -> Result<Outcome, Error> {
    let args = std::iter::once("tender".into()).chain(options);
    match command().try_get_matches_from(args) {
        Ok(matches) if matches.get_flag("version") => Ok(Outcome::Version),
        Ok(_) => Err(Error::Other("invalid options; see 'tender --help'".into())),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            Ok(Outcome::Help(format!("{}\n", error.to_string().trim_end())))
        }
        Err(error) => Err(refusal(&error)),
    }
}

/// Converts clap's error.
fn refusal(error: &clap::Error) -> Error {
    let option = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) => word
            .split(['=', ' '])
            .next()
            .unwrap_or_default()
            .trim_end_matches("..."),
        _ => "",
    };
    let option = shown(option.as_bytes());
    match error.kind() {
        ErrorKind::UnknownArgument | ErrorKind::InvalidUtf8 => Error::unknown(option),
        ErrorKind::TooManyValues => Error::UnexpectedValue { option },
        _ => Error::Other(
            error
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .replacen("error: ", "", 1),
        ),
    }
}

/// Flags, with the letters of those that have one.
const FLAGS: [(&str, Option<u8>); 7] = [
    ("lock-memory", None),
    ("gdb", None),
    ("console-timestamps", None),
    ("check", None),
    ("verbose", Some(b'v')),
    ("quiet", Some(b'q')),
    ("no-net-ring", None),
];

impl Parsed {
    /// Returns the options if all are in the table and complete.
    fn from_table(options: &[OsString]) -> Option<Parsed> {
        let mut parsed = Parsed::default();
        for option in options {
            match option.as_bytes() {
                [b'-', b'-', long @ ..] => parsed.add_long(long)?,
                [b'-', letters @ ..] => {
                    for letter in letters {
                        let is_it = |(_, short): &&(_, Option<u8>)| *short == Some(*letter);
                        parsed.flags.push(FLAGS.iter().find(is_it)?.0);
                    }
                }
                _ => return None,
            }
        }
        Some(parsed)
    }

    /// Adds an option without its dashes.
    fn add_long(&mut self, long: &[u8]) -> Option<()> {
        let ids = VALUED
            .iter()
            .flat_map(|valued| [Some(valued.name), valued.named]);
        let value = |id: &'static str| {
            let value = long.strip_prefix(id.as_bytes())?.strip_prefix(b"=")?;
            Some((id, OsStr::from_bytes(value).to_owned()))
        };
        match ids.flatten().find_map(value) {
            Some(found) => self.values.push(found),
            None => {
                let flag = FLAGS.iter().find(|(name, _)| name.as_bytes() == long)?;
                self.flags.push(flag.0);
            }
        }
        Some(())
    }

    /// Returns every occurrence of the option called `name`, those with a device last.
    pub fn all(&self, name: &str) -> Vec<OptionValue> {
        let Some(valued) = VALUED.iter().find(|valued| valued.name == name) else {
            return Vec::new();
        };
        let plain = self
            .values(name)
            .map(|value| occurrence(valued.name, None, value));
        let named = valued
            .named
            .into_iter()
            .flat_map(|id| self.values(id))
            .map(|word| {
                let (device, value) = split_device(word);
                occurrence(valued.name, Some(device), value)
            });
        plain.chain(named).collect()
    }

    fn values<'p>(&'p self, id: &'p str) -> impl Iterator<Item = &'p OsString> {
        let values = self.values.iter();
        values.filter_map(move |(known, value)| (*known == id).then_some(value))
    }

    /// Returns whether the option called `name` is given, for `device` if it names devices.
    pub fn gives(&self, name: &str, device: Option<&str>) -> bool {
        let mut all = self.all(name).into_iter();
        self.flag(name) || all.any(|given| given.device.as_deref() == device)
    }

    /// Returns whether the flag called `name` is given.
    pub fn flag(&self, name: &str) -> bool {
        self.flags.contains(&name)
    }

    /// Returns the verbosity that `-v` and `-q` select.
    pub fn verbosity(&self) -> Result<Verbosity, Error> {
        let verbose = self.flags.iter().filter(|name| **name == "verbose").count();
        match (verbose, self.flag("quiet")) {
            (0, true) => Ok(Verbosity::Quiet),
            (_, true) => Err(Error::VerboseAndQuiet),
            (0, false) => Ok(Verbosity::Normal),
            (1, false) => Ok(Verbosity::Verbose),
            (2, false) => Ok(Verbosity::Debug),
            (_, false) => Ok(Verbosity::Trace),
        }
    }
}

fn occurrence(name: &'static str, device: Option<String>, value: &OsStr) -> OptionValue {
    let option = match &device {
        None => format!("--{name}"),
        Some(device) => format!("--{name}:{device}"),
    };
    OptionValue {
        option,
        name,
        device,
        value: value.to_owned(),
    }
}

/// Splits `device=value`; a device name contains no `=`.
fn split_device(word: &OsStr) -> (String, &OsStr) {
    let bytes = word.as_bytes();
    let at = bytes
        .iter()
        .position(|&byte| byte == b'=')
        .unwrap_or(bytes.len());
    let value = bytes.get(at + 1..).unwrap_or_default();
    (
        String::from_utf8_lossy(&bytes[..at]).into_owned(),
        OsStr::from_bytes(value),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn flags_are_those_of_the_help_text() {
        let command = command();
        let flags = command.get_arguments().filter(|arg| {
            matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::Count)
                && arg.get_id() != "version"
        });
        let flags: Vec<_> = flags
            .map(|arg| {
                (
                    arg.get_id().as_str(),
                    arg.get_short().map(|short| short as u8),
                )
            })
            .collect();
        assert_eq!(flags, FLAGS);
    }

    /// Options right and wrong.
    const OPTIONS: [&str; 24] = [
        "--mem=1",
        "--mem=",
        "--mem",
        "--net=a",
        "--net:NAME=a=b",
        "--net:NAME",
        "--disk=x=y",
        "-v",
        "-vq",
        "-q",
        "-qv=1",
        "--gdb",
        "--gdb=1",
        "--gdb=",
        "-h",
        "-Vv",
        "-V",
        "-x",
        "-",
        "--check",
        "--version",
        "--no-net-ring",
        "--nope",
        "--",
    ];

    proptest! {
        #[test]
        fn the_table_accepts_what_clap_accepts(
            options in prop::collection::vec(prop::sample::select(&OPTIONS[..]), 0..6),
        ) {
            let args = std::iter::once("tender").chain(options.iter().copied());
            let by_clap = command().try_get_matches_from(args).ok();
            let by_clap = by_clap.filter(|matches| !matches.get_flag("version"));
            let options: Vec<OsString> = options.iter().map(OsString::from).collect();
            // Never passed on by `argv::split`, and clap ends the options there.
            prop_assume!(!options.iter().any(|option| option == "--" || option == "-"));
            let parsed = Parsed::from_table(&options);
            prop_assert_eq!(parsed.is_some(), by_clap.is_some());
            if let (Some(parsed), Some(matches)) = (parsed, by_clap) {
                for id in VALUED.iter().flat_map(|valued| [Some(valued.name), valued.named]).flatten() {
                    let values = matches.get_many::<OsString>(id).into_iter().flatten();
                    prop_assert!(parsed.values(id).eq(values), "{}", id);
                }
                prop_assert_eq!(parsed.flag("gdb"), matches.get_flag("gdb"));
                let verbose = parsed.flags.iter().filter(|flag| **flag == "verbose").count();
                prop_assert_eq!(verbose, usize::from(matches.get_count("verbose")));
            }
        }
    }
}
