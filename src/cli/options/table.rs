//! The table of all options, in the order of the help text.

use super::super::devices;
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
    pub kind: Kind,
    /// Placeholder of its value; empty for a flag.
    pub value: &'static str,
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
    /// `unix:` and the path of a socket that the run creates, or another address.
    Socket,
}

/// A flag that only [`parse`](super::super::parse) looks at.
const OPTION: Spec = Spec {
    long: "",
    short: None,
    kind: Kind::Flag,
    value: "",
    heading: "Output",
    help: "",
    is_hidden: false,
    in_files: true,
    property: None,
    same_as: None,
    set: |_, _| Ok(()),
};

pub(in crate::cli) static OPTIONS: [Spec; 27] = [
    Spec {
        long: "config",
        kind: Kind::File,
        value: "FILE",
        heading: "Configuration",
        help: "Read options from a TOML file; the command line overrides it",
        in_files: false,
        set: |_, given| value::path(&given.value).map(drop),
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
        long: "mem",
        kind: Kind::Number,
        value: "SIZE",
        heading: "Memory",
        help: "Memory of the guest, 2M to 4G; a bare number counts MiB [default: 512M]",
        set: |config, given| put(&mut config.memory, value::memory(&given.value)),
        ..OPTION
    },
    Spec {
        long: "net:NAME",
        kind: Kind::Text,
        value: "IFACE|@FD",
        heading: "Network",
        help: "Attach network device NAME to a tap, or to an open descriptor of one",
        property: Some(("net", "tap")),
        set: devices::attach_net,
        ..OPTION
    },
    Spec {
        long: "net-mac:NAME",
        kind: Kind::Text,
        value: "MAC",
        heading: "Network",
        help: "Its MAC address [default: random]",
        property: Some(("net", "mac")),
        set: |config, given| {
            put(
                &mut devices::net(config, given).mac,
                value::mac(&given.value),
            )
        },
        ..OPTION
    },
    Spec {
        long: "net-ring",
        kind: Kind::Text,
        value: "auto|on|off",
        heading: "Network",
        help: "Offer the shared ring to guests that support it [default: auto]",
        set: |config, given| put(&mut config.net_ring, value::net_ring(&given.value)),
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
        kind: Kind::File,
        value: "PATH|@FD",
        heading: "Block",
        help: "Attach block device NAME to an image, a disk or a descriptor",
        property: Some(("block", "path")),
        set: devices::attach_block,
        ..OPTION
    },
    Spec {
        long: "disk",
        kind: Kind::File,
        value: "PATH|@FD",
        heading: "Block",
        help: "The same as --block=PATH",
        is_hidden: true,
        same_as: Some("block"),
        set: devices::attach_block,
        ..OPTION
    },
    Spec {
        long: "block-sector-size:NAME",
        kind: Kind::Number,
        value: "BYTES",
        heading: "Block",
        help: "Its sector size, 512 to 32768 [default: 512]",
        property: Some(("block", "sector-size")),
        set: devices::set_sector_size,
        ..OPTION
    },
    Spec {
        long: "timeout",
        kind: Kind::Number,
        value: "SECONDS",
        heading: "Limits",
        help: "End the run after this time and report where the guest was",
        set: |config, given| put(&mut config.limits.timeout, value::timeout(&given.value)),
        ..OPTION
    },
    Spec {
        long: "console-rate",
        kind: Kind::Number,
        value: "BYTES",
        heading: "Limits",
        help: "Limit guest output to BYTES per second (K, M); excess is dropped",
        set: |config, given| {
            let rate = value::console_rate(&given.value);
            put(&mut config.limits.console_rate, rate)
        },
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
        kind: Kind::Text,
        value: "strict|best-effort|off",
        heading: "Isolation",
        help: "Whether to run if part of the sandbox is missing [default: best-effort]",
        set: |config, given| put(&mut config.sandbox, value::sandbox(&given.value)),
        ..OPTION
    },
    Spec {
        long: "user",
        kind: Kind::Text,
        value: "USER[:GROUP]",
        heading: "Isolation",
        help: "Switch to this user, by name or number, before the guest starts (as root)",
        set: |config, given| put(&mut config.user, value::user(&given.value)),
        ..OPTION
    },
    Spec {
        long: "chroot",
        kind: Kind::Directory,
        value: "DIR",
        heading: "Isolation",
        help: "Make this the root directory before the guest starts (as root)",
        set: |config, given| put(&mut config.chroot, value::path(&given.value)),
        ..OPTION
    },
    Spec {
        long: "gdb-port",
        kind: Kind::Socket,
        value: "PORT|unix:PATH",
        heading: "Debugging",
        help: "Where --gdb listens, on this host only [default: 1234]",
        set: |config, given| {
            put(
                &mut config.debugging.gdb_port,
                value::gdb_address(&given.value),
            )
        },
        ..OPTION
    },
    Spec {
        long: "dumpcore",
        kind: Kind::Directory,
        value: "DIR",
        heading: "Debugging",
        help: "Write a core file to DIR if the guest crashes",
        set: |config, given| put(&mut config.debugging.dumpcore, value::path(&given.value)),
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
        long: "log-format",
        kind: Kind::Text,
        value: "text|json|journald",
        help: "Format of tender's messages on stderr [default: text]",
        set: |config, given| {
            put(
                &mut config.output.log_format,
                value::log_format(&given.value),
            )
        },
        ..OPTION
    },
    Spec {
        long: "stats",
        kind: Kind::NewFile,
        value: "FILE|-",
        help: "Write statistics as JSON at the end of the run; - is stderr",
        set: |config, given| put(&mut config.output.stats, value::stats(&given.value)),
        ..OPTION
    },
    Spec {
        long: "metrics",
        kind: Kind::Socket,
        value: "unix:PATH|unix:@NAME",
        help: "Serve statistics of the run to Prometheus, on this socket",
        set: |config, given| put(&mut config.output.metrics, value::metrics(&given.value)),
        ..OPTION
    },
    Spec {
        long: "console-timestamps",
        help: "Prefix each line of the guest's console with the time",
        set: |config, _| put(&mut config.output.console_timestamps, Ok(true)),
        ..OPTION
    },
    Spec {
        long: "verbose",
        short: Some('v'),
        kind: Kind::Count,
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
