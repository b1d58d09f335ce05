//! The options with a value, in the order of the help text.

/// An option with a value.
#[derive(Debug)]
pub(in crate::cli) struct Valued {
    /// Its name, without dashes.
    pub name: &'static str,
    /// Its name with a device, as the help text shows it; the text after the colon varies.
    pub named: Option<&'static str>,
    /// Placeholder of its value.
    pub value: &'static str,
    /// Heading in the help text.
    pub heading: &'static str,
    pub help: &'static str,
}

pub(super) const VALUED: &[Valued] = &[
    Valued {
        name: "config",
        named: None,
        value: "FILE",
        heading: "Configuration",
        help: "Read options from a TOML file; the command line overrides it",
    },
    Valued {
        name: "mem",
        named: None,
        value: "SIZE",
        heading: "Memory",
        help: "Memory of the guest, 2M to 4G; a bare number counts MiB [default: 512M]",
    },
    Valued {
        name: "net",
        named: Some("net:NAME"),
        value: "IFACE|@FD",
        heading: "Network",
        help: "Attach network device NAME to a tap, or to an open descriptor of one",
    },
    Valued {
        name: "net-mac",
        named: Some("net-mac:NAME"),
        value: "MAC",
        heading: "Network",
        help: "Its MAC address [default: random]",
    },
    Valued {
        name: "net-ring",
        named: None,
        value: "auto|on|off",
        heading: "Network",
        help: "Offer the shared ring to guests that support it [default: auto]",
    },
    Valued {
        name: "block",
        named: Some("block:NAME"),
        value: "PATH|@FD",
        heading: "Block",
        help: "Attach block device NAME to an image, a disk or a descriptor",
    },
    Valued {
        name: "disk",
        named: None,
        value: "PATH|@FD",
        heading: "Block",
        help: "The same as --block=PATH",
    },
    Valued {
        name: "block-sector-size",
        named: Some("block-sector-size:NAME"),
        value: "BYTES",
        heading: "Block",
        help: "Its sector size, 512 to 32768 [default: 512]",
    },
    Valued {
        name: "timeout",
        named: None,
        value: "SECONDS",
        heading: "Limits",
        help: "End the run after this time and report where the guest was",
    },
    Valued {
        name: "console-rate",
        named: None,
        value: "BYTES",
        heading: "Limits",
        help: "Limit guest output to BYTES per second (K, M); excess is dropped",
    },
    Valued {
        name: "sandbox",
        named: None,
        value: "strict|best-effort|off",
        heading: "Isolation",
        help: "Whether to run if part of the sandbox is missing [default: best-effort]",
    },
    Valued {
        name: "user",
        named: None,
        value: "USER[:GROUP]",
        heading: "Isolation",
        help: "Switch to this user, by name or number, before the guest starts (as root)",
    },
    Valued {
        name: "chroot",
        named: None,
        value: "DIR",
        heading: "Isolation",
        help: "Make this the root directory before the guest starts (as root)",
    },
    Valued {
        name: "gdb-port",
        named: None,
        value: "PORT|unix:PATH",
        heading: "Debugging",
        help: "Where --gdb listens, on this host only [default: 1234]",
    },
    Valued {
        name: "dumpcore",
        named: None,
        value: "DIR",
        heading: "Debugging",
        help: "Write a core file to DIR if the guest crashes",
    },
    Valued {
        name: "log-format",
        named: None,
        value: "text|json|journald",
        heading: "Output",
        help: "Format of tender's messages on stderr [default: text]",
    },
    Valued {
        name: "stats",
        named: None,
        value: "FILE|-",
        heading: "Output",
        help: "Write statistics as JSON at the end of the run; - is stderr",
    },
    Valued {
        name: "metrics",
        named: None,
        value: "unix:PATH|unix:@NAME",
        heading: "Output",
        help: "Serve statistics of the run to Prometheus, on this socket",
    },
];

/// The one option that the help text mentions only in passing.
pub(super) const HIDDEN: &str = "disk";
