//! The configuration of one run, as plain data. The command line and configuration files produce
//! it.

use std::ffi::OsString;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};

use log::LevelFilter;

use crate::report::log_lines::LogFormat;
pub use source::{BlockSource, InheritedFd, NetSource};

mod source;

/// The configuration of one run; by default that of a command line without options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the other fields are named after their types")]
pub struct Config {
    /// Path of the unikernel, as given.
    pub unikernel: PathBuf,
    /// `--name`: the name of the run; [`Config::name`] has the default.
    pub name: Option<String>,
    /// The guest's arguments, as given.
    pub arguments: Vec<OsString>,
    pub memory: Memory,
    pub huge_pages: HugePages,
    /// The network options, merged by device.
    pub nets: Vec<NetOption>,
    /// The block options, merged by device.
    pub blocks: Vec<BlockOption>,
    pub net_ring: NetRing,
    pub engine: EngineChoice,
    pub limits: Limits,
    pub sandbox: SandboxMode,
    /// User to switch to before the guest starts.
    pub user: Option<UserOption>,
    /// Root directory to change to before the guest starts.
    pub chroot: Option<PathBuf>,
    pub verbosity: Verbosity,
    pub output: Output,
    pub debugging: Debugging,
}

/// Returns the name of a run of `unikernel`: `given`, else the file's name without its extension.
#[cold]
pub(crate) fn run_name(given: Option<&str>, unikernel: &Path) -> String {
    if let Some(given) = given {
        return given.to_owned();
    }
    let file = unikernel.file_name().unwrap_or_default().to_string_lossy();
    let name = file.strip_suffix(EXTENSION).filter(|name| !name.is_empty());
    name.unwrap_or(&file).chars().take(RUN_NAME_MAX).collect()
}

/// How strict the sandbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxMode {
    /// Every layer is required.
    Strict,
    /// Every layer that the kernel supports.
    #[default]
    BestEffort,
    /// No sandbox.
    Off,
}

/// A user and group to switch to: `NAME|UID[:GROUP|GID]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserOption {
    /// The user's name or number; not checked.
    pub user: String,
    /// The group's name or number, if one is given; not checked.
    pub group: Option<String>,
}

/// Extension of a unikernel's file, which is not part of its name.
const EXTENSION: &str = ".hvt";

/// Longest name of a run, in bytes for `--name`, in characters for a file's name.
pub(crate) const RUN_NAME_MAX: usize = 64;

impl Config {
    /// Returns the name of the run: that of `--name`, else that of the file.
    pub fn name(&self) -> String {
        run_name(self.name.as_deref(), &self.unikernel)
    }

    /// Returns the inherited descriptors that the configuration names.
    pub fn inherited(&self) -> impl Iterator<Item = &InheritedFd> {
        let nets = self.nets.iter().filter_map(|net| match &net.source {
            Some(NetSource::Fd(fd)) => Some(fd),
            _ => None,
        });
        nets.chain(self.blocks.iter().filter_map(|block| match &block.source {
            Some(BlockSource::Fd(fd)) => Some(fd),
            _ => None,
        }))
    }
}

/// What runs a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// A virtual machine of KVM.
    #[default]
    Kvm,
    /// A process without any system call, where there is no KVM.
    Process,
}

impl Engine {
    /// Every engine. Each runs every unikernel for this processor.
    pub const ALL: [Engine; 2] = [Engine::Kvm, Engine::Process];

    /// Returns its name in options, messages and statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Engine::Kvm => "kvm",
            Engine::Process => "process",
        }
    }
}

/// `--engine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// This one, or an error.
    Only(Engine),
    /// KVM if it can be opened, otherwise a process.
    Auto,
}

impl Default for EngineChoice {
    fn default() -> EngineChoice {
        EngineChoice::Only(Engine::default())
    }
}

/// Whether the guest is offered the shared network ring. Section 11.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetRing {
    /// Offer it if guest and host support it, unless KVM emulates the guest.
    #[default]
    Auto,
    /// Offer it if guest and host support it, otherwise warn.
    On,
    /// Never.
    Off,
}

/// The guest's memory, in bytes. Section A4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The requested size.
    pub asked: u64,
    /// The size that the guest gets: `asked`, rounded down to [`Memory::STEP`]. The caller warns if
    /// they differ.
    pub given: u64,
}

impl Memory {
    /// Granularity and minimum of guest memory, 2 MiB.
    pub const STEP: u64 = 2 << 20;
    /// Maximum, 4 GiB: the range that guest page tables map and a hypercall can address.
    pub const MAX: u64 = 4 << 30;
    /// Returns the memory for a request of `asked` bytes.
    pub(crate) const fn of(asked: u64) -> Memory {
        Memory {
            asked,
            given: asked - asked % Memory::STEP,
        }
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::of(512 << 20)
    }
}

/// Where the host may use huge pages for guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// For the heap of a large guest, if the host's setting allows it.
    #[default]
    Auto,
    /// Everywhere, unless the host's setting is `never`.
    On,
    /// Nowhere.
    Off,
}

/// Options of one network device: `--net` and `--net-mac`. Section 9.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetOption {
    /// The device's name in the manifest. None with the short forms `--net=` and `--net-mac=`,
    /// which mean the only network device. Both forms may occur for one device, as two entries.
    pub name: Option<String>,
    /// The option that attaches it, else the first option for it, as written, without dashes:
    /// `net-mac`.
    pub option: &'static str,
    /// The tap or descriptor that it is attached to.
    pub source: Option<NetSource>,
    /// Its MAC address; random if none is given.
    pub mac: Option<[u8; 6]>,
    /// The place in the configuration file, `FILE:LINE:COLUMN`, if it is set there; a command-line
    /// option for the same device overrides it.
    pub in_file: Option<String>,
}

/// Options of one block device: `--block` (or `--disk`) and `--block-sector-size`. Section 9.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockOption {
    /// The device's name in the manifest; none with the short forms, as for network devices.
    pub name: Option<String>,
    /// The option that attaches it, else the first option for it, as for network devices: `disk`.
    pub option: &'static str,
    /// Image file or block device behind it.
    pub source: Option<BlockSource>,
    /// Bytes in a sector: a power of two, 512 to 32768.
    pub sector_size: Option<u16>,
    /// The place in the configuration file, as for network devices.
    pub in_file: Option<String>,
}

/// Log level on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// `-q`: errors only.
    Quiet,
    /// Default: warnings too.
    #[default]
    Normal,
    /// `-v`: progress, too.
    Verbose,
    /// `-vv`: details for developers, too.
    Debug,
    /// `-vvv`: everything.
    Trace,
}

impl Verbosity {
    /// Returns the level of one more `-v`.
    pub(crate) fn more(self) -> Verbosity {
        match self {
            Verbosity::Quiet => Verbosity::Normal,
            Verbosity::Normal => Verbosity::Verbose,
            Verbosity::Verbose => Verbosity::Debug,
            _ => Verbosity::Trace,
        }
    }

    /// Returns the level of the `log` crate.
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
    /// `--timeout`: seconds until the run is ended.
    pub timeout: Option<NonZeroU32>,
    /// `--console-rate`: console output in bytes per second.
    pub console_rate: Option<NonZeroU64>,
    /// `--lock-memory`: allocate all guest memory at the start and lock it in RAM.
    pub lock_memory: bool,
}

/// Log format, statistics and metrics; by default text log lines only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// `--log-format`: format of the log lines on stderr.
    pub log_format: LogFormat,
    /// `--console-timestamps`: prefix each line of the guest with a timestamp.
    pub console_timestamps: bool,
    /// `--json`: print the report of `--check` as JSON.
    pub json: bool,
    /// `--stats`: where to write statistics at the end of the run.
    pub stats: Option<StatsTarget>,
    /// `--metrics`: where to serve metrics during the run.
    pub metrics: Option<SocketAddress>,
}

/// Destination of the statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatsTarget {
    /// A file.
    File(PathBuf),
    /// `-`: standard error, because standard output is the guest's.
    Stderr,
}

/// The address of a Unix socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketAddress {
    /// `unix:PATH`.
    Path(PathBuf),
    /// `unix:@NAME`: an abstract name of this network namespace.
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

/// Default TCP port for gdb, as in upstream's tenders.
const DEFAULT_GDB_PORT: u16 = 1234;

/// Debugging options; by default none. Section 10.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Debugging {
    /// `--gdb`: hold the guest at its first instruction until gdb connects.
    pub gdb: bool,
    /// `--gdb-port`: where gdb connects to.
    pub gdb_port: Option<GdbAddress>,
    /// `--dumpcore`: the directory for the core file of a guest that crashed.
    pub dumpcore: Option<PathBuf>,
    /// Whether core files have solo5-hvt's names, because `tender` runs under that name. Not an
    /// option.
    pub as_solo5_hvt: bool,
}

/// Where gdb connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GdbAddress {
    /// A TCP port on localhost; 0 means any free port.
    Port(u16),
    /// A Unix socket; one with a path is accessible to this user only.
    Unix(SocketAddress),
}

impl Debugging {
    /// Returns the address for gdb, if `--gdb` is set.
    pub fn address(&self) -> Option<GdbAddress> {
        self.gdb.then(|| {
            self.gdb_port
                .clone()
                .unwrap_or(GdbAddress::Port(DEFAULT_GDB_PORT))
        })
    }

    /// Returns the Unix socket for gdb, if `--gdb` is set and uses one.
    pub fn socket(&self) -> Option<&SocketAddress> {
        match &self.gdb_port {
            Some(GdbAddress::Unix(address)) if self.gdb => Some(address),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_after_its_file() {
        let name = |path: &str, name: Option<&str>| {
            let (unikernel, name) = (path.into(), name.map(str::to_owned));
            let config = Config {
                unikernel,
                name,
                ..Config::default()
            };
            config.name()
        };
        assert_eq!(name("/srv/web.hvt", None), "web");
        assert_eq!(name("web.hvt.hvt", None), "web.hvt");
        assert_eq!(name(".hvt", None), ".hvt");
        assert_eq!(name("/srv/router", None), "router");
        assert_eq!(name("/", None), "");
        assert_eq!(name(&"ä".repeat(99), None), "ä".repeat(64));
        assert_eq!(name("/srv/web.hvt", Some("a.hvt")), "a.hvt");
    }
}
