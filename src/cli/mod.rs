//! Parses the command line into a [`Config`]. Nothing here touches the host, so every rule can be
//! tested alone.
//!
//! `argv` splits the command line: device names inside option names (`--net:NAME=…`), and the
//! arguments after UNIKERNEL, which belong to the guest, `--` included. `options` matches the rest
//! with its table. clap formats the help, and explains what the table does not have.

mod argv;
mod config;
pub mod config_file;
mod debugging;
mod error;
mod inspect;
mod limits;
mod options;
mod output;
mod value;
mod version;

#[cfg(test)]
mod tests;

use std::ffi::OsString;

use self::argv::Argv;
pub use self::config::{Configured, Fault, NamedPath, Place, nearest};
pub use self::error::{Error, Rule};
pub use self::inspect::Inspection;
pub use self::options::command;
use self::options::{OptionValue, Outcome, Parsed};
pub use self::version::{is_solo5_hvt, name, upstream_version, version};
use crate::config::{BlockOption, Config, Memory, NetOption, NetRing};
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
    Version,
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
    let args = argv::split(args)?;
    let parsed = match options::parse(args.options.clone())? {
        Outcome::Help(text) => return Ok(Command::Help(text)),
        Outcome::Version => return Ok(Command::Version),
        Outcome::Options(parsed) => parsed,
    };
    match only(&parsed, "config", value::path)? {
        Some(file) => Ok(Command::Configured(Configured { file, args })),
        None => {
            let Argv {
                unikernel,
                arguments,
                taken,
                ..
            } = args;
            let unikernel = unikernel
                .filter(|path| !path.is_empty())
                .ok_or(Error::NoUnikernel { taken })?;
            requested(&parsed, None, unikernel, arguments)
        }
    }
}

/// Returns the `--log-format` of a command line whose other arguments may be invalid, so that the
/// error uses that format.
pub fn log_format(args: &[OsString]) -> LogFormat {
    let given = argv::last_value(args.get(1..).unwrap_or_default(), "log-format");
    given
        .and_then(|value| LogFormat::from_name(value.to_str()?))
        .unwrap_or_default()
}

/// Builds the command from the options. Devices of a configuration file have the lower priority
/// `fallback`.
fn requested(
    parsed: &Parsed,
    fallback: Option<&Parsed>,
    unikernel: OsString,
    arguments: Vec<OsString>,
) -> Result<Command, Error> {
    let (mut nets, mut blocks) = (nets(parsed)?, blocks(parsed)?);
    if let Some(file) = fallback {
        nets.extend(self::nets(file)?.into_iter().map(|net| NetOption {
            fallback: true,
            ..net
        }));
        blocks.extend(self::blocks(file)?.into_iter().map(|block| BlockOption {
            fallback: true,
            ..block
        }));
    }
    let config = Config {
        unikernel: unikernel.into(),
        arguments,
        memory: memory(parsed)?,
        nets,
        blocks,
        net_ring: net_ring(parsed)?,
        limits: limits::limits(parsed)?,
        sandbox: only(parsed, "sandbox", value::sandbox)?.unwrap_or_default(),
        user: only(parsed, "user", value::user)?,
        chroot: only(parsed, "chroot", value::path)?,
        verbosity: parsed.verbosity()?,
        output: output::output(parsed)?,
        debugging: debugging::debugging(parsed)?,
    };
    Ok(if parsed.flag("check") {
        Command::Check(config)
    } else {
        Command::Run(config)
    })
}

fn memory(parsed: &Parsed) -> Result<Memory, Error> {
    Ok(only(parsed, "mem", value::memory)?.map_or(Memory::DEFAULT, Memory::of))
}

/// Returns the value of an option that may be given once.
fn only<T>(
    parsed: &Parsed,
    name: &str,
    value: fn(&OptionValue) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    let mut place = None;
    for given in parsed.all(name) {
        set(&mut place, &given, value(&given)?)?;
    }
    Ok(place)
}

fn net_ring(parsed: &Parsed) -> Result<NetRing, Error> {
    let mut net_ring = parsed.flag("no-net-ring").then_some(NetRing::Off);
    for given in parsed.all("net-ring") {
        set(&mut net_ring, &given, value::net_ring(&given)?)?;
    }
    Ok(net_ring.unwrap_or_default())
}

fn nets(parsed: &Parsed) -> Result<Vec<NetOption>, Error> {
    let mut nets: Vec<NetOption> = Vec::new();
    for given in parsed.all("net") {
        let source = value::net_source(&given)?;
        let taken = nets
            .iter()
            .any(|net| net.source.as_ref() == Some(&source) && net.name != given.device);
        if taken {
            return Err(Error::SameTap {
                option: given.option,
                tap: source,
            });
        }
        set(&mut entry(&mut nets, &given).source, &given, source)?;
    }
    for given in parsed.all("net-mac") {
        set(
            &mut entry(&mut nets, &given).mac,
            &given,
            value::mac(&given)?,
        )?;
    }
    Ok(nets)
}

fn blocks(parsed: &Parsed) -> Result<Vec<BlockOption>, Error> {
    let mut blocks: Vec<BlockOption> = Vec::new();
    let disks = parsed.all("disk");
    let plain = parsed.all("block");
    if !disks.is_empty() && plain.iter().any(|given| given.device.is_none()) {
        return Err(Error::BlockAndDisk);
    }
    for given in plain.iter().chain(&disks) {
        set(
            &mut entry(&mut blocks, given).source,
            given,
            value::block_source(given)?,
        )?;
    }
    for given in parsed.all("block-sector-size") {
        set(
            &mut entry(&mut blocks, &given).sector_size,
            &given,
            value::sector_size(&given)?,
        )?;
    }
    Ok(blocks)
}

/// An option for a device.
trait Device {
    fn new(name: Option<String>, option: &'static str) -> Self;
    fn name(&self) -> Option<&str>;
}

impl Device for NetOption {
    fn new(name: Option<String>, option: &'static str) -> NetOption {
        NetOption {
            name,
            option,
            ..NetOption::default()
        }
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl Device for BlockOption {
    fn new(name: Option<String>, option: &'static str) -> BlockOption {
        BlockOption {
            name,
            option,
            ..BlockOption::default()
        }
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// Returns the entry of the device that `given` names; adds one if there is none.
fn entry<'d, D: Device>(devices: &'d mut Vec<D>, given: &OptionValue) -> &'d mut D {
    let known = devices
        .iter()
        .position(|device| device.name() == given.device.as_deref());
    let index = known.unwrap_or(devices.len());
    if known.is_none() {
        devices.push(D::new(given.device.clone(), given.name));
    }
    &mut devices[index]
}

/// Sets the value of an option, which must not be set yet.
fn set<T>(place: &mut Option<T>, given: &OptionValue, value: T) -> Result<(), Error> {
    if place.is_some() {
        return Err(Error::GivenTwice {
            option: given.option.clone(),
        });
    }
    *place = Some(value);
    Ok(())
}
