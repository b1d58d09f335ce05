//! What can be wrong with a command line, in words.

use std::path::PathBuf;

use super::config::{Fault, Place, meant};
use super::options;
use crate::config::NetSource;

/// What is wrong with a command line. Every message is one line that names the option and what would be right.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// No such option.
    #[error("unknown option '{option}'; {}", list_or(meant.as_deref()))]
    Unknown {
        /// As written, without its value.
        option: String,
        /// The option that is most likely meant, without dashes.
        meant: Option<String>,
    },
    /// An option that may occur once occurs again.
    #[error("option '{option}' is given twice")]
    GivenTwice {
        /// As written, without its value.
        option: String,
    },
    /// `--disk` is another name of `--block`.
    #[error("'--block' and '--disk' mean the same device; name the devices: --block:NAME=PATH")]
    BlockAndDisk,
    /// An option that needs a value has none.
    #[error("option '{option}' needs a value: {option}={value}")]
    NoValue {
        /// As written.
        option: String,
        /// What its value stands for.
        value: &'static str,
    },
    /// An option that takes no value has one.
    #[error("option '{option}' takes no value")]
    UnexpectedValue {
        /// As written, without its value.
        option: String,
    },
    /// `-v` and `-q` contradict each other.
    #[error("'-v' and '-q' conflict")]
    VerboseAndQuiet,
    /// There is nothing to run.
    #[error(
        "no unikernel given{taken}; usage: tender [OPTIONS] [--] UNIKERNEL [ARGS]..., more with 'tender --help'"
    )]
    NoUnikernel {
        /// After a colon, which option took the last word that might have been one; or nothing.
        taken: String,
    },
    /// There is nothing to run, in the configuration file either.
    #[error("{}: no unikernel given{taken}; add unikernel = \"NAME.hvt\" to it, or name one on the command line", file.display())]
    NoUnikernelInFile {
        /// The file.
        file: PathBuf,
        /// As in `NoUnikernel`.
        taken: String,
    },
    /// Something is wrong in the configuration file.
    #[error("{}:{place}: {fault}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Where in it.
        place: Place,
        /// What.
        fault: Fault,
    },
    /// There is nothing to inspect.
    #[error(
        "no unikernel given; usage: tender inspect [--json] UNIKERNEL; to run one called 'inspect': tender -- inspect"
    )]
    NothingToInspect,
    /// There is more than one thing to inspect.
    #[error("unexpected argument '{word}'; usage: tender inspect [--json] UNIKERNEL")]
    OneUnikernel {
        /// As written.
        word: String,
    },
    /// A name that no device can have.
    #[error("'{name}' in '{option}' is not a device name; write 1 to 67 letters and digits")]
    Name {
        /// As written, without its value.
        option: String,
        /// The part after the colon.
        name: String,
    },
    /// An option's value cannot be understood.
    #[error("{option}={value}: {rule}")]
    Value {
        /// As written.
        option: String,
        /// As written.
        value: String,
        /// What is expected instead.
        rule: Rule,
    },
    /// Two network devices on one interface.
    #[error(
        "{option}={tap}: another network device already uses '{tap}'; give each its own interface"
    )]
    SameTap {
        /// The later of the two options.
        option: String,
        /// The interface.
        tap: NetSource,
    },
    /// clap refused for a reason that should have been met before it.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// There is no `option`, and perhaps there is one that it may be meant for.
    pub(super) fn unknown(option: String) -> Error {
        let command = options::command();
        // Those with a device's name are there without it as well.
        let names: Vec<&str> = command
            .get_arguments()
            .filter_map(clap::Arg::get_long)
            .filter(|name| !name.contains(':'))
            .collect();
        let word = option
            .strip_prefix("--")
            .and_then(|word| word.split(':').next());
        let meant = word.and_then(|word| meant(word, &names)).map(str::to_owned);
        Error::Unknown { option, meant }
    }
}

/// What to do where there is no such option.
fn list_or(meant: Option<&str>) -> String {
    match meant {
        Some(name) => format!("did you mean '--{name}'?"),
        None => "'tender --help' lists them".to_owned(),
    }
}

/// What the value of an option must be.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Rule {
    /// `--net-ring`.
    #[error("expected auto, on or off")]
    NetRing,
    /// `--sandbox`.
    #[error("expected strict, best-effort or off")]
    Sandbox,
    /// `--user`.
    #[error("not a user; write NAME or UID, optionally with :GROUP or :GID, such as nobody:kvm")]
    User,
    /// `--mem` is no amount.
    #[error(
        "not an amount of memory; write whole MiB, or a whole number with K, M, G, KiB, MiB or GiB, such as 64M"
    )]
    MemoryForm,
    /// `--mem` is too little.
    #[error("too little memory; a guest has 2 MiB to 4 GiB, and a bare number counts MiB")]
    MemoryTooSmall,
    /// `--mem` is too much.
    #[error("too much memory; a guest has 2 MiB to 4 GiB, and a bare number counts MiB")]
    MemoryTooLarge,
    /// The name of an interface breaks Linux's rules.
    #[error("not an interface name; write 1 to 15 characters without '/', ':' or white space")]
    Interface,
    /// Neither the number nor the name of a file descriptor.
    #[error(
        "not a file descriptor; after '@' write its number, such as @3, or its name in LISTEN_FDNAMES"
    )]
    Descriptor,
    /// A MAC address is malformed.
    #[error("not a MAC address; write six pairs of hexadecimal digits, such as 02:00:00:00:00:01")]
    MacForm,
    /// A MAC address of many interfaces.
    #[error(
        "a multicast address cannot belong to an interface; make the first pair even, such as 02"
    )]
    MacMulticast,
    /// A MAC address of none.
    #[error("the zero address means 'unset' to a guest; omit the option for a random address")]
    MacZero,
    /// A sector size that cannot be.
    #[error("not a sector size; write 512, 1024, 2048, 4096, 8192, 16384 or 32768")]
    SectorSize,
    /// `--timeout`.
    #[error("not a time; write whole seconds, 1 to 4294967295, such as 60")]
    Timeout,
    /// `--console-rate`.
    #[error(
        "not a rate; write whole bytes a second, at least 1, or a whole number with K or M, such as 64K"
    )]
    ConsoleRate,
    /// `--gdb-port`.
    #[error("not a TCP port; write a number, 1 to 65535, 0 for any that is free, or unix:PATH")]
    Port,
    /// `--log-format`.
    #[error("expected text, json or journald")]
    LogFormat,
    /// `--metrics`.
    #[error("not a socket; write unix:PATH, or unix:@NAME for one without a file")]
    Metrics,
    /// A socket's path or name is longer than the kernel's addresses of sockets.
    #[error("socket path or name too long; the limit is 107 bytes")]
    SocketTooLong,
    /// No path.
    #[error("the path is empty")]
    Path,
}
