//! The table of all options, in the order of the help text.

use super::super::devices::{self, block, net};
use super::super::error::Rule;
use super::super::value::{self, put};
use super::OptionValue;
use crate::config::{Config, NetRing, Verbosity};

/// An option of the command line, and key of a configuration file.
#[derive(Debug)]
pub(in crate::cli) struct Spec {
    /// Its name without dashes. If it may name a device, `:NAME` follows.
    pub long: &'static str,
    pub short: Option<char>,
    /// The kind of its value, and the placeholder in the help text, which is empty for a flag.
    pub value: (Kind, &'static str),
    /// Heading in the help text.
    pub heading: &'static str,
    pub help: &'static str,
    /// Whether the help text omits it.
    pub is_hidden: bool,
    /// Whether a configuration file may contain it.
    pub in_files: bool,
    /// For an option that names devices: the table of devices in a file, and the key in the table
    /// of one device. `[net.NAME]` has `tap`, for `--net:NAME`.
    pub property: Option<(&'static str, &'static str)>,
    /// Another option for the same field. The two conflict, and one on the command line replaces
    /// the other in a file.
    pub same_as: Option<&'static str>,
    /// Puts the value of one occurrence into the configuration.
    pub set: fn(&mut Config, &OptionValue) -> Result<(), Rule>,
}

/// The kind of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Kind {
    /// None; the option may be repeated.
    Flag,
    /// None; the number of occurrences counts.
    Count,
    Text,
    /// A number, with or without a unit.
    Number,
    /// A path, or `@` and a descriptor.
    File,
    Directory,
    /// A file that the run creates, or `-`.
    NewFile,
    /// `unix:` and the path or `@NAME` of a socket that the run creates.
    Socket,
    /// A number, or as [`Kind::Socket`].
    Port,
}

/// Default row: a flag that changes no field of the configuration; only
/// [`parse`](super::super::parse) reads it.
const OPTION: Spec = Spec {
    long: "",
    short: None,
    value: (Kind::Flag, ""),
    heading: "Output",
    help: "",
    is_hidden: false,
    in_files: true,
    property: None,
    same_as: None,
    set: |_, _| Ok(()),
};

pub(in crate::cli) static OPTIONS: &[Spec] = &[
    Spec {
        long: "config",
        value: (Kind::File, "FILE"),
        heading: "Configuration",
        help: "Read options from a TOML file; the command line overrides it",
        in_files: false,
        set: |_, given| value::path(given).map(drop),
        ..OPTION
    },
    Spec {
        long: "check",
        heading: "Configuration",
        help: "Report whether it would start and what is missing; start nothing",
        in_files: false,
        ..OPTION
    },
    Spec {
        long: "name",
        value: (Kind::Text, "NAME"),
        heading: "Configuration",
        help: "Name for JSON logs, metrics, ps (if given) [default: the file's]",
        set: |config, given| put(&mut config.name, value::run_name(given)),
        ..OPTION
    },
    Spec {
        long: "engine",
        value: (Kind::Text, "kvm|process|auto"),
        heading: "Configuration",
        help: "Run the guest in a KVM machine or in a process [default: kvm]",
        set: |config, given| put(&mut config.engine, value::engine(given)),
        ..OPTION
    },
    Spec {
        long: "mem",
        value: (Kind::Number, "SIZE"),
        heading: "Memory",
        help: "Guest memory, 2M to 4G; a bare number counts MiB [default: 512M]",
        set: |config, given| put(&mut config.memory, value::memory(given)),
        ..OPTION
    },
    Spec {
        long: "huge-pages",
        value: (Kind::Text, "auto|on|off"),
        heading: "Memory",
        help: "Let the host use huge pages for it; auto: if large [default: auto]",
        set: |config, given| put(&mut config.huge_pages, value::huge_pages(given)),
        ..OPTION
    },
    Spec {
        long: "net:NAME",
        value: (Kind::Text, "IFACE|@FD"),
        heading: "Network",
        help: "Attach network device NAME to a tap, or to an open descriptor of one",
        property: Some(("net", "tap")),
        set: devices::attach_net,
        ..OPTION
    },
    Spec {
        long: "net-mac:NAME",
        value: (Kind::Text, "MAC"),
        heading: "Network",
        help: "Its MAC address [default: random]",
        property: Some(("net", "mac")),
        set: |config, given| put(&mut net(config, given).mac, value::mac(given)),
        ..OPTION
    },
    Spec {
        long: "net-ring",
        value: (Kind::Text, "auto|on|off"),
        heading: "Network",
        help: "Offer the shared ring to guests that support it [default: auto]",
        set: |config, given| put(&mut config.net_ring, value::net_ring(given)),
        ..OPTION
    },
    Spec {
        long: "no-net-ring",
        heading: "Network",
        help: "The same as --net-ring=off",
        is_hidden: true,
        same_as: Some("net-ring"),
        set: |config, _| put(&mut config.net_ring, Ok(NetRing::Off)),
        ..OPTION
    },
    Spec {
        long: "block:NAME",
        value: (Kind::File, "PATH|@FD"),
        heading: "Block",
        help: "Attach block device NAME to an image, a disk or a descriptor",
        property: Some(("block", "path")),
        set: |config, given| put(&mut block(config, given).source, value::block_source(given)),
        ..OPTION
    },
    Spec {
        long: "disk",
        value: (Kind::File, "PATH|@FD"),
        heading: "Block",
        help: "The same as --block=PATH",
        is_hidden: true,
        same_as: Some("block"),
        set: |config, given| put(&mut block(config, given).source, value::block_source(given)),
        ..OPTION
    },
    Spec {
        long: "block-sector-size:NAME",
        value: (Kind::Number, "BYTES"),
        heading: "Block",
        help: "Its sector size, 512 to 32768 [default: 512]",
        property: Some(("block", "sector-size")),
        set: devices::set_sector_size,
        ..OPTION
    },
    Spec {
        long: "timeout",
        value: (Kind::Number, "DURATION"),
        heading: "Limits",
        help: "End the run after DURATION (90, 5m or 1h); report where the guest was",
        set: |config, given| put(&mut config.limits.timeout, value::timeout(given)),
        ..OPTION
    },
    Spec {
        long: "console-rate",
        value: (Kind::Number, "BYTES"),
        heading: "Limits",
        help: "Limit guest output to BYTES per second (K, M, G); drop the excess",
        set: |config, given| put(&mut config.limits.console_rate, value::console_rate(given)),
        ..OPTION
    },
    Spec {
        long: "lock-memory",
        heading: "Limits",
        help: "Allocate all guest memory at the start and lock it in RAM",
        set: |config, _| put(&mut config.limits.lock_memory, Ok(true)),
        ..OPTION
    },
    Spec {
        long: "sandbox",
        value: (Kind::Text, "strict|best-effort|off"),
        heading: "Isolation",
        help: "Whether to run if part of the sandbox is missing [default: best-effort]",
        set: |config, given| put(&mut config.sandbox, value::sandbox(given)),
        ..OPTION
    },
    Spec {
        long: "user",
        value: (Kind::Text, "USER[:GROUP]"),
        heading: "Isolation",
        help: "Switch to this user, by name or number, before the guest starts (as root)",
        set: |config, given| put(&mut config.user, value::user(given)),
        ..OPTION
    },
    Spec {
        long: "chroot",
        value: (Kind::Directory, "DIR"),
        heading: "Isolation",
        help: "Make this the root directory before the guest starts (as root)",
        set: |config, given| put(&mut config.chroot, value::path(given)),
        ..OPTION
    },
    Spec {
        long: "gdb",
        heading: "Debugging",
        help: "Hold the guest at its first instruction until gdb connects",
        set: |config, _| put(&mut config.debugging.gdb, Ok(true)),
        ..OPTION
    },
    Spec {
        long: "gdb-port",
        value: (Kind::Port, "PORT|unix:PATH"),
        heading: "Debugging",
        help: "Where --gdb listens, on this host only [default: 1234]",
        set: |config, given| put(&mut config.debugging.gdb_port, value::gdb_address(given)),
        ..OPTION
    },
    Spec {
        long: "dumpcore",
        value: (Kind::Directory, "DIR"),
        heading: "Debugging",
        help: "Write a core file to DIR if the guest crashes",
        set: |config, given| put(&mut config.debugging.dumpcore, value::path(given)),
        ..OPTION
    },
    Spec {
        long: "verbose",
        short: Some('v'),
        value: (Kind::Count, ""),
        help: "Log more on stderr; -vv and -vvv log still more",
        set: |config, _| {
            let more = config.verbosity.more();
            put(&mut config.verbosity, Ok(more))
        },
        ..OPTION
    },
    Spec {
        long: "quiet",
        short: Some('q'),
        help: "Log nothing on stderr but errors",
        same_as: Some("verbose"),
        set: |config, _| put(&mut config.verbosity, Ok(Verbosity::Quiet)),
        ..OPTION
    },
    Spec {
        long: "log-format",
        value: (Kind::Text, "text|json|journald"),
        help: "Format of tender's messages on stderr [default: text]",
        set: |config, given| put(&mut config.output.log_format, value::log_format(given)),
        ..OPTION
    },
    Spec {
        long: "console-timestamps",
        help: "Prefix each line of the guest's console with the time",
        set: |config, _| put(&mut config.output.console_timestamps, Ok(true)),
        ..OPTION
    },
    Spec {
        long: "stats",
        value: (Kind::NewFile, "FILE|-"),
        help: "Write statistics as JSON at the end of the run; - is stderr",
        set: |config, given| put(&mut config.output.stats, value::stats(given)),
        ..OPTION
    },
    Spec {
        long: "metrics",
        value: (Kind::Socket, "unix:PATH|unix:@NAME"),
        help: "Serve statistics of the run to Prometheus, on this socket",
        set: |config, given| put(&mut config.output.metrics, value::metrics(given)),
        ..OPTION
    },
    Spec {
        long: "json",
        help: "Print the result of --check or --version as JSON",
        in_files: false,
        set: |config, _| put(&mut config.output.json, Ok(true)),
        ..OPTION
    },
    Spec {
        long: "help",
        short: Some('h'),
        help: "Print this text and exit",
        in_files: false,
        ..OPTION
    },
    Spec {
        long: "version",
        short: Some('V'),
        help: "Print the version and exit",
        in_files: false,
        ..OPTION
    },
];
