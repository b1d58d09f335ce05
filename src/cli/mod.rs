//! Parses the command line into a [`Config`]. Nothing here touches the host, so every rule can be
//! tested alone.
//!
//! `options/table.rs` has every option. `argv` splits the command line and matches its options with
//! the table, `config` reads those of a file, and `options::apply` puts both into a [`Config`].
//! clap formats the help text, and the error for an option that the table does not have.

mod argv;
mod config;
pub mod config_file;
mod devices;
mod error;
mod inspect;
mod options;
mod value;
mod version;

#[cfg(test)]
mod tests;

use std::ffi::OsString;

pub use self::config::{Configured, Fault, NamedPath, Place};
pub use self::error::{Error, Rule};
pub use self::inspect::{Format, Inspection};
pub use self::options::{Key, command, keys};
use self::options::{OPTIONS, OptionValue, apply};
pub use self::version::{is_solo5_hvt, name, upstream_version, version, version_json};
use crate::config::Config;
use crate::report::log_lines::LogFormat;

/// The command to run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "a process has one")]
pub enum Command {
    /// Run a unikernel.
    Run(Config),
    /// Report whether it would start, and what is missing.
    Check(Config),
    /// One of the other commands, after the configuration file is read.
    Configured(Configured),
    /// Report what a unikernel is, without running it.
    Inspect(Inspection),
    /// Print this text on stdout and exit with status 0.
    Help(String),
    /// Print the version on stdout and exit with status 0.
    Version {
        /// Whether as JSON.
        json: bool,
    },
}

/// Parses a command line; `args` starts with the program's own name, which is ignored. Section 9.
///
/// # Errors
/// The first error, as one line.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    let mut args = args.into_iter().skip(1).peekable();
    if args
        .next_if(|argument| argument == inspect::COMMAND)
        .is_some()
    {
        return inspect::parse(args);
    }
    let (args, result) = argv::split(args);
    result?;
    if args.last("help").is_some() {
        return Ok(Command::Help(options::help()));
    }
    if args.last("version").is_some() {
        let json = args.last("json").is_some();
        return Ok(Command::Version { json });
    }
    if let Some(given) = args.last("config") {
        let file = given.value.clone().into();
        let files = args.options.iter().filter(|given| given.name() == "config");
        apply(&mut Config::default(), files).map_err(|(_, error)| error)?;
        return Ok(Command::Configured(Configured { file, args }));
    }
    let Some(unikernel) = args.unikernel else {
        return Err(Error::NoUnikernel { taken: args.taken });
    };
    if unikernel.is_empty() {
        return Err(Error::EmptyUnikernel);
    }
    requested(args.options.iter().collect(), unikernel, args.arguments)
}

/// Returns the `--log-format` of a command line whose other arguments may be invalid, so that the
/// error uses that format.
pub fn log_format(args: &[OsString]) -> LogFormat {
    let (args, _) = argv::split(args.iter().skip(1).cloned());
    let format = args.last("log-format").map(value::log_format);
    format.and_then(Result::ok).unwrap_or_default()
}

/// Builds the command from the options.
fn requested(
    options: Vec<&OptionValue>,
    unikernel: OsString,
    arguments: Vec<OsString>,
) -> Result<Command, Error> {
    let mut config = Config {
        unikernel: unikernel.into(),
        arguments,
        ..Config::default()
    };
    // Options of the command line come first, in the order of the table, so that a device's entry
    // begins with its source. No sort function: it would touch file pages that a start does not
    // need.
    let rows = |in_file| OPTIONS.iter().map(move |spec| (in_file, spec));
    let rows = rows(false).chain(rows(true));
    let keys = rows.flat_map(|(in_file, spec)| [(in_file, spec, false), (in_file, spec, true)]);
    let key = |given: &OptionValue| (given.in_file.is_some(), given.spec, given.device.is_some());
    let in_order = keys.flat_map(|row| {
        options
            .iter()
            .copied()
            .filter(move |given| key(given) == row)
    });
    apply(&mut config, in_order).map_err(|(_, error)| error)?;
    if options.iter().any(|given| given.name() == "check") {
        Ok(Command::Check(config))
    } else if config.output.json {
        Err(Error::JsonWithoutReport)
    } else {
        Ok(Command::Run(config))
    }
}
