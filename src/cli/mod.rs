//! The command line, turned into a [`Config`]. Nothing here touches the host, so every rule can be tested alone.
//!
//! clap does the parsing, but two things it cannot: device names inside option names (`--net:NAME=…`), and leaving
//! every word after UNIKERNEL to the guest, `--` included. Both are settled before clap sees a word (`words`).

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
mod words;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;

use log::LevelFilter;

pub use self::config::{Configured, Fault, NamedPath, Place, nearest};
pub use self::debugging::{Debugging, GdbAddress};
pub use self::error::{Error, Rule};
pub use self::inspect::Inspection;
pub use self::limits::Limits;
pub use self::options::command;
use self::options::{Given, Outcome, Parsed};
pub use self::output::{Output, SocketAddress, StatsTarget};
pub use self::version::{is_solo5_hvt, name, upstream_version, version};
use self::words::Words;
use crate::block::BlockSource;
use crate::host::descriptors::Handed;
use crate::net::NetSource;
use crate::report::log_lines::LogFormat;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "a process has one")]
pub enum Command {
    /// Run a unikernel.
    Run(Config),
    /// Tell whether it would run, and what is missing for that.
    Check(Config),
    /// One of these, once the configuration file is read.
    Configured(Configured),
    /// Tell what a unikernel is, without running it.
    Inspect(Inspection),
    /// Print this text on stdout and end with status 0.
    Help(String),
    /// Print the version on stdout and end with status 0.
    Version,
}

/// Everything the operator said about one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The unikernel's file, as given.
    pub unikernel: PathBuf,
    /// The words after it, for the guest, as given.
    pub arguments: Vec<OsString>,
    /// The guest's memory.
    pub memory: Memory,
    /// The network options, merged by device.
    pub nets: Vec<NetOption>,
    /// The block options, merged by device.
    pub blocks: Vec<BlockOption>,
    /// Whether the guest is offered the shared network ring.
    pub net_ring: NetRing,
    /// What the run may cost at most.
    pub limits: Limits,
    /// What is asked of the sandbox.
    pub sandbox: SandboxMode,
    /// Who to become before the guest starts.
    pub user: Option<UserOption>,
    /// Directory that becomes the root directory before the guest starts.
    pub chroot: Option<PathBuf>,
    /// How much the tender says on stderr.
    pub verbosity: Verbosity,
    /// What the run tells of itself, and how.
    pub output: Output,
    /// What is asked for to debug the guest.
    pub debugging: Debugging,
}

/// What is asked of the sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxMode {
    /// All of it, or no run.
    Strict,
    /// Everything that the kernel has.
    #[default]
    BestEffort,
    /// Nothing.
    Off,
}

/// Who to become: `NAME|UID[:GROUP|GID]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserOption {
    /// The user's name or number; not checked.
    pub user: String,
    /// The group's name or number, if one is given; not checked.
    pub group: Option<String>,
}

impl Config {
    /// The descriptors that this process is to have been started with.
    pub fn inherited(&self) -> impl Iterator<Item = &Handed> {
        let nets = self.nets.iter().filter_map(|net| match &net.source {
            Some(NetSource::Fd(handed)) => Some(handed),
            _ => None,
        });
        nets.chain(self.blocks.iter().filter_map(|block| match &block.source {
            Some(BlockSource::Fd(handed)) => Some(handed),
            _ => None,
        }))
    }
}

/// Whether the guest is offered the shared network ring. Section 11.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetRing {
    /// Where the guest can use it and the host has what it takes.
    #[default]
    Auto,
    /// As before; where that cannot be, the operator is told.
    On,
    /// Never.
    Off,
}

/// The guest's memory, in bytes. Section A4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What was asked for.
    pub asked: u64,
    /// What the guest gets: `asked`, rounded down to [`Memory::STEP`]. The caller tells the operator if they differ.
    pub given: u64,
}

impl Memory {
    /// Guest memory comes in multiples of this, 2 MiB; it is also the least there is.
    pub const STEP: u64 = 2 << 20;
    /// The most a guest can have, 4 GiB: what its page tables map and a hypercall can address.
    pub const MAX: u64 = 4 << 30;
    /// What a guest gets when nothing is said, 512 MiB.
    pub const DEFAULT: Memory = Memory::of(512 << 20);

    const fn of(asked: u64) -> Memory {
        Memory { asked, given: asked - asked % Memory::STEP }
    }
}

/// What was said about one network device: `--net` and `--net-mac`. Section 9.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetOption {
    /// The device's name in the manifest; none with the short forms `--net=` and `--net-mac=`, which mean the only
    /// network device there is. Both forms may occur for one device, as two entries.
    pub name: Option<String>,
    /// The option that attaches it, else the first that says something of it, as written, without dashes: `net-mac`.
    pub option: &'static str,
    /// Where its frames come from and go to.
    pub source: Option<NetSource>,
    /// Its hardware address; a random one if none is given.
    pub mac: Option<[u8; 6]>,
    /// It comes from a configuration file: where another option says something else of the device, that counts.
    pub fallback: bool,
}

/// What was said about one block device: `--block` (or `--disk`) and `--block-sector-size`. Section 9.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockOption {
    /// The device's name in the manifest; none with the short forms, as for network devices.
    pub name: Option<String>,
    /// The option that attaches it, else the first that says something of it, as for network devices: `disk`.
    pub option: &'static str,
    /// Image file or block device behind it.
    pub source: Option<BlockSource>,
    /// Bytes in a sector: a power of two, 512 to 32768.
    pub sector_size: Option<u16>,
    /// It comes from a configuration file, as for network devices.
    pub fallback: bool,
}

/// How much the tender says on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// `-q`: errors only.
    Quiet,
    /// Neither: warnings too.
    #[default]
    Normal,
    /// `-v`: what is being done, too.
    Verbose,
    /// `-vv`: details for developers, too.
    Debug,
    /// `-vvv`: everything.
    Trace,
}

impl Verbosity {
    /// The level of the `log` crate that this stands for.
    pub fn level(self) -> LevelFilter {
        match self {
            Verbosity::Quiet => LevelFilter::Error,
            Verbosity::Normal => LevelFilter::Warn,
            Verbosity::Verbose => LevelFilter::Info,
            Verbosity::Debug => LevelFilter::Debug,
            Verbosity::Trace => LevelFilter::Trace,
        }
    }
}

/// Reads a command line; `args` starts with the program's own name, which is ignored. Section 9.
///
/// # Errors
/// An [`Error`] of one line for everything that cannot be meant as it stands; the first one found.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    let mut words = args.into_iter().skip(1).peekable();
    if words.next_if(|word| word == inspect::WORD).is_some() {
        return inspect::parse(words);
    }
    let words = words::split(words)?;
    let parsed = match options::parse(words.options.clone())? {
        Outcome::Help(text) => return Ok(Command::Help(text)),
        Outcome::Version => return Ok(Command::Version),
        Outcome::Options(parsed) => parsed,
    };
    match only(&parsed, "config", value::path)? {
        Some(file) => Ok(Command::Configured(Configured { file, words })),
        None => {
            let Words { unikernel, arguments, taken, .. } = words;
            let unikernel = unikernel.filter(|path| !path.is_empty()).ok_or(Error::NoUnikernel { taken })?;
            requested(&parsed, None, unikernel, arguments)
        }
    }
}

/// The form of messages that a command line asks for, be it in whatever else a mistake: for the message about that.
pub fn log_format(args: &[OsString]) -> LogFormat {
    let given = words::last_value(args.get(1..).unwrap_or_default(), "log-format");
    given.and_then(|value| LogFormat::named(value.to_str()?)).unwrap_or_default()
}

/// What the options come to. The devices of a configuration file are `fallback`, and give way.
fn requested(
    parsed: &Parsed,
    fallback: Option<&Parsed>,
    unikernel: OsString,
    arguments: Vec<OsString>,
) -> Result<Command, Error> {
    let (mut nets, mut blocks) = (nets(parsed)?, blocks(parsed)?);
    if let Some(file) = fallback {
        nets.extend(self::nets(file)?.into_iter().map(|net| NetOption { fallback: true, ..net }));
        blocks.extend(self::blocks(file)?.into_iter().map(|block| BlockOption { fallback: true, ..block }));
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
    Ok(if parsed.check() { Command::Check(config) } else { Command::Run(config) })
}

fn memory(parsed: &Parsed) -> Result<Memory, Error> {
    Ok(only(parsed, "mem", value::memory)?.map_or(Memory::DEFAULT, Memory::of))
}

/// The value of an option that may be given once.
fn only<T>(parsed: &Parsed, name: &str, value: fn(&Given) -> Result<T, Error>) -> Result<Option<T>, Error> {
    let mut place = None;
    for given in parsed.all(name) {
        set(&mut place, &given, value(&given)?)?;
    }
    Ok(place)
}

fn net_ring(parsed: &Parsed) -> Result<NetRing, Error> {
    let mut net_ring = parsed.no_net_ring().then_some(NetRing::Off);
    for given in parsed.all("net-ring") {
        set(&mut net_ring, &given, value::net_ring(&given)?)?;
    }
    Ok(net_ring.unwrap_or_default())
}

fn nets(parsed: &Parsed) -> Result<Vec<NetOption>, Error> {
    let mut nets: Vec<NetOption> = Vec::new();
    for given in parsed.all("net") {
        let source = value::net_source(&given)?;
        let taken = nets.iter().any(|net| net.source.as_ref() == Some(&source) && net.name != given.device);
        if taken {
            return Err(Error::SameTap { option: given.option, tap: source });
        }
        set(&mut entry(&mut nets, &given).source, &given, source)?;
    }
    for given in parsed.all("net-mac") {
        set(&mut entry(&mut nets, &given).mac, &given, value::mac(&given)?)?;
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
        set(&mut entry(&mut blocks, given).source, given, value::block_source(given)?)?;
    }
    for given in parsed.all("block-sector-size") {
        set(&mut entry(&mut blocks, &given).sector_size, &given, value::sector_size(&given)?)?;
    }
    Ok(blocks)
}

/// An option that is about a device.
trait Device {
    fn new(name: Option<String>, option: &'static str) -> Self;
    fn name(&self) -> Option<&str>;
}

impl Device for NetOption {
    fn new(name: Option<String>, option: &'static str) -> NetOption {
        NetOption { name, option, ..NetOption::default() }
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl Device for BlockOption {
    fn new(name: Option<String>, option: &'static str) -> BlockOption {
        BlockOption { name, option, ..BlockOption::default() }
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// What has been said so far about the device that `given` is about.
fn entry<'d, D: Device>(devices: &'d mut Vec<D>, given: &Given) -> &'d mut D {
    let known = devices.iter().position(|device| device.name() == given.device.as_deref());
    let index = known.unwrap_or(devices.len());
    if known.is_none() {
        devices.push(D::new(given.device.clone(), given.name));
    }
    &mut devices[index]
}

/// Notes the value of an option, which must be the first.
fn set<T>(place: &mut Option<T>, given: &Given, value: T) -> Result<(), Error> {
    if place.is_some() {
        return Err(Error::GivenTwice { option: given.option.clone() });
    }
    *place = Some(value);
    Ok(())
}
