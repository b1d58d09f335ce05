//! The options: one table for matching, the configuration file, the help text and suggestions.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, value_parser};

use super::argv::shown;
use super::{Error, Rule};
use crate::config::Config;
use crate::guest::manifest::is_valid_name;

mod table;

pub(super) use table::{Kind, OPTIONS, Spec};

const USAGE: &str = "tender [OPTIONS] [--] UNIKERNEL [ARGS]...\n       tender inspect [--json|--toml|--oci] [--] UNIKERNEL";

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
  tender --net=tap100 --mem=64M -- web.hvt --ipv4=10.100.0.2/24
  tender --net:lan=tap1 --net:wan=@3 --block:data=/var/lib/app.img -v router.hvt

Exit status:
  That of the guest, 255 if it aborted; 1 for every error of tender itself.";

/// Returns the option called `name`, without dashes.
pub(super) fn named(name: &[u8]) -> Option<&'static Spec> {
    OPTIONS.iter().find(|spec| spec.name().as_bytes() == name)
}

/// Returns the flag with this letter.
pub(super) fn with_letter(letter: u8) -> Option<&'static Spec> {
    OPTIONS
        .iter()
        .find(|spec| spec.short == Some(char::from(letter)))
}

/// Returns the options for clap, which formats the help text, manual pages and completions, and
/// explains invalid options. Options for devices appear as `--net:NAME`, and hidden without the
/// name.
pub fn command() -> clap::Command {
    clap::Command::new("tender")
        .about("Runs a Solo5 hvt unikernel as a KVM guest, with the devices that it declares.")
        .override_usage(USAGE)
        .after_help(AFTER)
        .disable_help_flag(true)
        .args(OPTIONS.iter().flat_map(Spec::args))
}

/// A key of a configuration file, for the manual.
#[derive(Debug)]
#[allow(
    missing_docs,
    reason = "the other fields are named after those of an option"
)]
pub struct Key {
    /// Its name: that of the option, without dashes and device.
    pub name: &'static str,
    /// The option, as in the table.
    pub option: &'static str,
    /// The types of its value.
    pub accepts: &'static str,
    /// The placeholder of its value; empty for a flag.
    pub value: &'static str,
    pub property: Option<(&'static str, &'static str)>,
}

/// Returns the keys of a configuration file, in the order of the help text.
pub fn keys() -> impl Iterator<Item = Key> {
    let specs = OPTIONS
        .iter()
        .filter(|spec| spec.in_files && !spec.is_hidden);
    specs.map(|spec| Key {
        name: spec.name(),
        option: spec.long,
        accepts: match spec.value.0 {
            Kind::Flag => "true or false",
            Kind::Count => "true, false, or 0 to 3",
            Kind::Number | Kind::Port => "integer or string",
            _ => "string",
        },
        value: spec.value.1,
        property: spec.property,
    })
}

/// Returns the text of `--help`.
#[cold]
pub(super) fn help() -> String {
    format!("{}\n", command().render_help().to_string().trim_end())
}

/// Returns the value for `--mem` of `-m64`, or of `-m` and the next argument, as other programs have
/// it: a bare number counts MiB.
#[cold]
fn short_mem(word: &OsStr, next: Option<&OsStr>) -> Option<String> {
    let value = match word.to_str()?.strip_prefix("-m")? {
        "" => next.and_then(OsStr::to_str).unwrap_or_default(),
        joined => joined,
    };
    let value = value.trim_start_matches('=');
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match value == digits {
        _ if !is_number => (word == "-m").then(|| "64M".to_owned()),
        true => Some(format!("{value}M")),
        false => Some(value.to_owned()),
    }
}

/// Returns clap's error for an argument that matches no option of the table. A valid command line
/// needs no clap, which costs a tenth of a start.
#[cold]
pub(super) fn explain(word: &OsStr, next: Option<&OsStr>) -> Error {
    if let Some(amount) = short_mem(word, next) {
        return Error::Unknown {
            option: "-m".to_owned(),
            hint: format!("did you mean '--mem={amount}'?"),
        };
    }
    let Err(error) = command().try_get_matches_from([OsStr::new("tender"), word]) else {
        return Error::unknown(shown(word.as_bytes()));
    };
    let option = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(option)) => option.split(['=', ' ']).next().unwrap_or_default(),
        _ => "",
    };
    let option = shown(option.trim_end_matches("...").as_bytes());
    match error.kind() {
        ErrorKind::TooManyValues => Error::UnexpectedValue { option },
        _ => Error::unknown(option),
    }
}

impl Spec {
    /// Returns the name without dashes and device.
    pub(super) fn name(&self) -> &'static str {
        self.long.strip_suffix(":NAME").unwrap_or(self.long)
    }

    pub(super) fn is_flag(&self) -> bool {
        matches!(self.value.0, Kind::Flag | Kind::Count)
    }

    pub(super) fn takes_device(&self) -> bool {
        self.property.is_some()
    }

    /// Returns a device name as text, or the error if it is invalid.
    pub(super) fn device_name(&self, name: &[u8]) -> Result<String, Error> {
        match std::str::from_utf8(name) {
            Ok(name) if is_valid_name(name) => Ok(name.to_owned()),
            _ => Err(Error::Name {
                option: format!("--{}:{}", self.name(), shown(name)),
                name: shown(name),
            }),
        }
    }

    /// Returns an occurrence of the option on the command line.
    pub(super) fn given(
        &'static self,
        device: Option<String>,
        value: impl Into<OsString>,
    ) -> OptionValue {
        OptionValue {
            spec: self,
            device,
            value: value.into(),
            in_file: None,
        }
    }

    fn args(&'static self) -> impl Iterator<Item = Arg> {
        let plain = self
            .takes_device()
            .then(|| self.arg(self.name()).hide(true));
        plain.into_iter().chain([self.arg(self.long)])
    }

    fn arg(&'static self, name: &'static str) -> Arg {
        let arg = Arg::new(name)
            .long(name)
            .short(self.short)
            .help(self.help)
            .help_heading(self.heading)
            .hide(self.is_hidden);
        match self.value.0 {
            Kind::Flag => arg.action(ArgAction::SetTrue).overrides_with(name),
            Kind::Count => arg.action(ArgAction::Count),
            _ => arg
                .action(ArgAction::Append)
                .value_name(self.value.1)
                .value_parser(value_parser!(OsString))
                .require_equals(true),
        }
    }
}

impl PartialEq for Spec {
    fn eq(&self, other: &Spec) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Spec {}

/// One occurrence of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OptionValue {
    pub spec: &'static Spec,
    /// The device that it names.
    pub device: Option<String>,
    /// Its value; empty for a flag.
    pub value: OsString,
    /// Its place in the configuration file, if it is from there; the command line has priority.
    pub in_file: Option<String>,
}

impl OptionValue {
    /// Returns the name without dashes and device.
    pub(super) fn name(&self) -> &'static str {
        self.spec.name()
    }

    /// Returns the option as written, with dashes and device, without its value.
    pub(super) fn spelling(&self) -> String {
        match &self.device {
            None => format!("--{}", self.name()),
            Some(device) => format!("--{}:{device}", self.name()),
        }
    }

    /// Returns the field that it sets: the name of an option, and the device.
    pub(super) fn field(&self) -> (&'static str, Option<&str>) {
        let name = self.spec.same_as.unwrap_or(self.name());
        (name, self.device.as_deref())
    }

    /// Checks whether it may follow `earlier`, which sets the same field. Only flags may be
    /// repeated.
    fn check_after(&self, earlier: &OptionValue) -> Result<(), Error> {
        let is_repeated = self.spec == earlier.spec;
        match self.field().0 {
            _ if is_repeated && self.spec.is_flag() => Ok(()),
            "verbose" => Err(Error::VerboseAndQuiet),
            "block" if !is_repeated => Err(Error::BlockAndDisk),
            _ => {
                let valued = if self.spec.is_flag() { earlier } else { self };
                let option = valued.spelling();
                Err(Error::GivenTwice { option })
            }
        }
    }

    /// Returns whether its value is copied from the help text or from `tender inspect --toml`, such as
    /// IFACE or IFACE1.
    fn is_placeholder(&self) -> bool {
        let mut placeholders = self.spec.value.1.split('|');
        let is_upper = |name: &str| name.bytes().all(|byte| byte.is_ascii_uppercase());
        let value = self.value.to_str().unwrap_or_default();
        let value = value.trim_end_matches(|c: char| c.is_ascii_digit());
        !value.is_empty() && placeholders.any(|name| is_upper(name) && value == name)
    }

    /// Puts its value into `config`.
    fn put(&self, config: &mut Config) -> Result<(), Error> {
        let put = match self.is_placeholder() {
            true => Err(Rule::Placeholder),
            false => (self.spec.set)(config, self),
        };
        put.map_err(|rule| {
            let (option, value) = (self.spelling(), shown(self.value.as_bytes()));
            Error::Value {
                option,
                value,
                rule,
            }
        })
    }
}

/// Puts options into `config`. Returns the first error, with the index of its option.
pub(super) fn apply<'o>(
    config: &mut Config,
    options: impl Iterator<Item = &'o OptionValue>,
) -> Result<(), (usize, Error)> {
    let mut fields: Vec<&OptionValue> = Vec::new();
    for (index, given) in options.enumerate() {
        given.put(config).map_err(|error| (index, error))?;
        match fields
            .iter()
            .find(|earlier| earlier.field() == given.field())
        {
            Some(earlier) => given.check_after(earlier).map_err(|error| (index, error))?,
            None => fields.push(given),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::argv;
    use super::*;

    #[test]
    fn references_between_rows_are_valid() {
        for spec in OPTIONS {
            let twins = OPTIONS.iter().filter(|other| other.name() == spec.name());
            assert_eq!(twins.count(), 1, "{}", spec.long);
            assert!(
                spec.same_as
                    .is_none_or(|other| named(other.as_bytes()).is_some())
            );
            assert_eq!(
                spec.property.is_some(),
                spec.long.contains(':'),
                "{}",
                spec.long
            );
            assert_eq!(spec.is_flag(), spec.value.1.is_empty(), "{}", spec.long);
        }
    }

    /// Options right and wrong, each with its value.
    const EXAMPLES: [&str; 23] = [
        "--mem=1",
        "--mem=",
        "--net=a",
        "--net:NAME=a=b",
        "--mem:NAME=1",
        "--disk=x=y",
        "-v",
        "-vq",
        "-q",
        "-qv=1",
        "--gdb",
        "--gdb=1",
        "--gdb=",
        "-Vv",
        "-V",
        "-x",
        "-vx",
        "--check",
        "--version",
        "--version=1",
        "--no-net-ring",
        "--nope",
        "---",
    ];

    proptest! {
        #[test]
        fn the_table_accepts_what_clap_accepts(
            options in prop::collection::vec(prop::sample::select(&EXAMPLES[..]), 0..6),
        ) {
            let args = std::iter::once("tender").chain(options.iter().copied());
            let by_clap = command().try_get_matches_from(args);
            let (argv, result) = argv::split(options.iter().map(OsString::from));
            prop_assert_eq!(result.is_ok(), by_clap.is_ok());
            let (Ok(()), Ok(matches)) = (result, by_clap) else { return Ok(()) };
            for spec in OPTIONS {
                let given = argv.options.iter().filter(|given| given.spec == spec);
                match spec.value.0 {
                    Kind::Flag => prop_assert_eq!(given.count() > 0, matches.get_flag(spec.long)),
                    Kind::Count => {
                        prop_assert_eq!(given.count(), usize::from(matches.get_count(spec.long)));
                    }
                    _ => {
                        let plain = given.clone().filter(|given| given.device.is_none());
                        let values = matches.get_many::<OsString>(spec.name()).into_iter().flatten();
                        prop_assert!(plain.map(|given| &given.value).eq(values), "{}", spec.long);
                        if spec.takes_device() {
                            let named = given.filter(|given| given.device.as_deref() == Some("NAME"));
                            let values = matches.get_many::<OsString>(spec.long).into_iter().flatten();
                            prop_assert!(named.map(|given| &given.value).eq(values), "{}", spec.long);
                        }
                    }
                }
            }
        }
    }
}
