//! What the operator asked for in one run, as plain data. The command line and configuration files produce it.

use std::ffi::OsString;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::os::fd::RawFd;
use std::path::PathBuf;

use log::LevelFilter;

use crate::report::log_lines::LogFormat;

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
    pub fn inherited(&self) -> impl Iterator<Item = &InheritedFd> {
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

    /// Rounds down what was asked for.
    pub(crate) const fn of(asked: u64) -> Memory {
        Memory {
            asked,
            given: asked - asked % Memory::STEP,
        }
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

/// The limits of one run; by default there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `--timeout`: seconds after which the run is ended.
    pub timeout: Option<NonZeroU32>,
    /// `--console-rate`: bytes a second that the console lets through.
    pub console_rate: Option<NonZeroU64>,
    /// `--lock-memory`: all of the guest's memory is taken at the start, and kept in RAM.
    pub lock_memory: bool,
}

/// What a run tells of itself; by default its messages, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// `--log-format`: the form of the tender's own words on stderr.
    pub log_format: LogFormat,
    /// `--console-timestamps`: the time before each of the guest's lines.
    pub console_timestamps: bool,
    /// `--stats`: where to write what the run came to.
    pub stats: Option<StatsTarget>,
    /// `--metrics`: where to serve what the run has come to so far.
    pub metrics: Option<SocketAddress>,
}

/// Where the statistics of a run go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatsTarget {
    /// A file.
    File(PathBuf),
    /// `-`: standard error, as standard output is the guest's.
    Stderr,
}

/// A Unix socket to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketAddress {
    /// `unix:PATH`.
    Path(PathBuf),
    /// `unix:@NAME`: a name without a file, of this network namespace.
    Abstract(Vec<u8>),
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketAddress::Path(path) => path.display().fmt(f),
            SocketAddress::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

/// Where gdb is waited for if nothing else is said, as with upstream's tenders.
const USUAL_PORT: u16 = 1234;

/// What is asked for to debug a guest; by default nothing. Section 10.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Debugging {
    /// `--gdb`: the guest waits at its first instruction until a debugger connects.
    pub gdb: bool,
    /// `--gdb-port`: where it connects to.
    pub gdb_port: Option<GdbAddress>,
    /// `--dumpcore`: the directory that gets a core file of a guest that came to a bad end.
    pub dumpcore: Option<PathBuf>,
    /// Whether core files are named as solo5-hvt names them: if `tender` runs under that name. Not an option.
    pub as_solo5_hvt: bool,
}

/// Where a debugger connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GdbAddress {
    /// A TCP port of this host alone; 0 is any that is free.
    Port(u16),
    /// A socket of this user alone, if it has a path.
    Unix(SocketAddress),
}

impl Debugging {
    /// The address for a debugger, with `--gdb`.
    pub fn address(&self) -> Option<GdbAddress> {
        self.gdb.then(|| {
            self.gdb_port
                .clone()
                .unwrap_or(GdbAddress::Port(USUAL_PORT))
        })
    }

    /// The socket where a debugger is waited for, if it is one.
    pub fn socket(&self) -> Option<&SocketAddress> {
        match &self.gdb_port {
            Some(GdbAddress::Unix(address)) if self.gdb => Some(address),
            _ => None,
        }
    }
}

/// Where a network device's frames come from and go to, as the operator says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetSource {
    /// A tap interface, by name.
    Interface(String),
    /// A file descriptor that this process was started with: of a tap, or a datagram or packet socket.
    Fd(InheritedFd),
}

impl fmt::Display for NetSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetSource::Interface(name) => f.write_str(name),
            NetSource::Fd(handed) => handed.fmt(f),
        }
    }
}

/// Where a block device's sectors are, as the operator says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockSource {
    /// An image file or a disk, by its path.
    Path(PathBuf),
    /// A file descriptor of one that this process was started with.
    Fd(InheritedFd),
}

impl fmt::Display for BlockSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockSource::Path(path) => path.display().fmt(f),
            BlockSource::Fd(handed) => handed.fmt(f),
        }
    }
}

/// Longest name that systemd gives a descriptor, in bytes.
const NAME_MAX: usize = 255;

/// A descriptor, as the operator says it after `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InheritedFd {
    /// By its number.
    Number(RawFd),
    /// By its name in LISTEN_FDNAMES, which is more than digits.
    Name(String),
}

impl From<RawFd> for InheritedFd {
    fn from(fd: RawFd) -> InheritedFd {
        InheritedFd::Number(fd)
    }
}

impl fmt::Display for InheritedFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InheritedFd::Number(fd) => write!(f, "@{fd}"),
            InheritedFd::Name(name) => write!(f, "@{name}"),
        }
    }
}

impl InheritedFd {
    /// What `text`, which stands after `@`, means: digits alone are a number, anything else that systemd would have for
    /// a name is one. `None` if it is neither.
    pub fn parse(text: &str) -> Option<InheritedFd> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().map(InheritedFd::Number);
        }
        let printable = |byte: u8| (byte.is_ascii_graphic() || byte == b' ') && byte != b':';
        let is_name = (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(printable);
        is_name.then(|| InheritedFd::Name(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_number_and_all_else_is_a_name() {
        assert_eq!(InheritedFd::parse("3"), Some(InheritedFd::Number(3)));
        assert_eq!(InheritedFd::parse("0"), Some(InheritedFd::Number(0)));
        for name in ["web", "3a", "-1", "web.socket", "a b", "@"] {
            assert_eq!(
                InheritedFd::parse(name),
                Some(InheritedFd::Name(name.into()))
            );
        }
        for text in [
            "",
            "2147483648",
            "99999999999999999999",
            "a:b",
            "a\n",
            "ü",
            &"x".repeat(256),
        ] {
            assert_eq!(InheritedFd::parse(text), None, "{text}");
        }
    }
}
