//! Errors of the command line.

use std::path::{Path, PathBuf};

use super::config::{Fault, MOST_ERRORS, Place, meant};
use super::options::{OPTIONS, Spec};
use crate::config::NetSource;
use crate::report::message::Message;

/// An error of the command line. Every message is one line that names the option and the fix.
#[derive(Debug, miette::Diagnostic, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("unknown option '{option}'")]
    #[diagnostic(help("{hint}"))]
    Unknown { option: String, hint: String },
    #[error("option '{option}' is given twice")]
    GivenTwice { option: String },
    #[error("'--block' and '--disk' mean the same device")]
    #[diagnostic(help("name the devices: --block:NAME=PATH"))]
    BlockAndDisk,
    #[error("option '{option}' needs a value: {option}={value}")]
    NoValue { option: String, value: &'static str },
    #[error("option '{option}' takes no value")]
    UnexpectedValue { option: String },
    #[error("'-v' and '-q' conflict")]
    VerboseAndQuiet,
    #[error("no unikernel given{taken}")]
    #[diagnostic(help(
        "usage: tender [OPTIONS] [--] UNIKERNEL [ARGS]..., more with 'tender --help'"
    ))]
    NoUnikernel {
        /// Hint: after a colon, the option that consumed the last argument; or empty.
        taken: String,
    },
    #[error("{}: no unikernel given{taken}", file.display())]
    #[diagnostic(help("add unikernel = \"NAME.hvt\" to it, or name one on the command line"))]
    NoUnikernelInFile { file: PathBuf, taken: String },
    #[error("the unikernel's path is empty")]
    #[diagnostic(help("give the path of an hvt unikernel"))]
    EmptyUnikernel,
    #[error("{}:{place}: {fault}", file.display())]
    #[diagnostic(forward(fault))]
    File {
        file: PathBuf,
        place: Place,
        fault: Fault,
    },
    #[error("{}: more errors follow", file.display())]
    #[diagnostic(help("fix these first"))]
    MoreInFile { file: PathBuf },
    #[error("{}", messages(.0).join("; "))]
    Several(Vec<Error>),
    #[error("no unikernel given")]
    #[diagnostic(help(
        "usage: tender inspect [--json|--toml|--oci] UNIKERNEL; to run one called 'inspect': tender -- inspect"
    ))]
    NothingToInspect,
    #[error("unexpected argument '{word}'")]
    #[diagnostic(help("usage: tender inspect [--json|--toml|--oci] UNIKERNEL"))]
    OneUnikernel { word: String },
    #[error("'{first}' and '{second}' conflict")]
    #[diagnostic(help("give one of them"))]
    Formats {
        first: &'static str,
        second: &'static str,
    },
    #[error("'--json' has no effect on a run")]
    #[diagnostic(help("add --check or --version, or see --log-format=json"))]
    JsonWithoutReport,
    #[error("'{name}' in '{option}' is not a device name")]
    #[diagnostic(help("write 1 to 67 letters and digits"))]
    Name { option: String, name: String },
    #[error("{option}={value}: {rule}")]
    #[diagnostic(forward(rule))]
    Value {
        option: String,
        value: String,
        rule: Rule,
    },
}

/// Returns the message of each error.
fn messages(errors: &[Error]) -> Vec<String> {
    errors
        .iter()
        .map(|error| Message::of(error).to_string())
        .collect()
}

impl Error {
    /// Makes the error for these errors of a configuration file, of which there is at least one. Only
    /// the first [`MOST_ERRORS`] are printed, and a line if there are more.
    pub(super) fn in_file(file: &Path, errors: Vec<(Place, Fault)>) -> Error {
        let at = |(place, fault)| {
            let file = file.to_owned();
            Error::File { file, place, fault }
        };
        let more = errors.len() > MOST_ERRORS;
        let mut errors: Vec<Error> = errors.into_iter().take(MOST_ERRORS).map(at).collect();
        errors.extend(more.then(|| Error::MoreInFile {
            file: file.to_owned(),
        }));
        match errors.len() {
            1 => errors.remove(0),
            _ => Error::Several(errors),
        }
    }

    /// Returns the messages, one line each.
    pub fn messages(&self) -> Vec<String> {
        match self {
            Error::Several(errors) => messages(errors),
            error => vec![Message::of(error).to_string()],
        }
    }

    /// Makes the error for an unknown `option`, with the most similar known option.
    pub(super) fn unknown(option: String) -> Error {
        let names: Vec<&str> = OPTIONS.iter().map(Spec::name).collect();
        let name = option.strip_prefix("--").unwrap_or_default();
        let name = name.split(':').next().unwrap_or_default();
        let hint = if PROCESSORS.contains(&name) {
            ONE_PROCESSOR.to_owned()
        } else if let Some(meant) = meant(name, &names) {
            format!("did you mean '--{meant}'?")
        } else {
            "'tender --help' lists them; those of the guest follow the unikernel".to_owned()
        };
        Error::Unknown { option, hint }
    }
}

/// Names that other programs give to the number of processors.
pub(super) const PROCESSORS: [&str; 4] = ["cpu", "cpus", "smp", "vcpus"];

/// The hint for [`PROCESSORS`].
pub(super) const ONE_PROCESSOR: &str = "a guest has one vCPU";

/// Rules for the values of options.
#[derive(Clone, Debug, miette::Diagnostic, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages are their documentation")]
pub enum Rule {
    #[error("expected auto, on or off")]
    AutoOnOff,
    #[error("expected strict, best-effort or off")]
    Sandbox,
    #[error("expected kvm, process or auto")]
    Engine,
    #[error("not a user")]
    #[diagnostic(help("write NAME or UID, optionally with :GROUP or :GID, such as nobody:kvm"))]
    User,
    #[error("not an amount of memory")]
    #[diagnostic(help(
        "write whole MiB, or a whole number with K, M, G, KB, MB, GB, KiB, MiB or GiB (powers of 1024), such as 64M"
    ))]
    MemoryForm,
    #[error("too little memory")]
    #[diagnostic(help("give 2M to 4G; a bare number counts MiB"))]
    MemoryTooSmall,
    #[error("too much memory")]
    #[diagnostic(help("give 2M to 4G; a bare number counts MiB"))]
    MemoryTooLarge,
    #[error("too much memory, as a bare number counts MiB")]
    #[diagnostic(help("did you mean {0}M?"))]
    MemoryInBytes(u64),
    #[error("not an interface name")]
    #[diagnostic(help("write 1 to 15 characters without '/', ':' or white space"))]
    Interface,
    #[error("another network device already uses '{0}'")]
    #[diagnostic(help("give each its own interface"))]
    SameTap(NetSource),
    #[error("not a file descriptor")]
    #[diagnostic(help("after '@' write its number, such as @3, or its name in LISTEN_FDNAMES"))]
    Descriptor,
    #[error("not a MAC address")]
    #[diagnostic(help("write six pairs of hexadecimal digits, such as 02:00:00:00:00:01"))]
    MacForm,
    #[error("a multicast address cannot belong to an interface")]
    #[diagnostic(help("make the first pair even, such as 02"))]
    MacMulticast,
    #[error("the zero address means 'unset' to a guest")]
    #[diagnostic(help("omit the option for a random address"))]
    MacZero,
    #[error("not a sector size")]
    #[diagnostic(help("write 512, 1024, 2048, 4096, 8192, 16384 or 32768"))]
    SectorSize,
    #[error("not a time")]
    #[diagnostic(help(
        "write whole seconds, 1 to 4294967295, or a whole number with s, m or h, such as 5m"
    ))]
    Timeout,
    #[error("too long")]
    #[diagnostic(help("the limit is 4294967295 seconds (1193046h)"))]
    TimeoutTooLong,
    #[error("not a rate")]
    #[diagnostic(help(
        "write whole bytes a second, at least 1, or a whole number with K, M, G, KB, MB, GB, KiB, MiB or GiB (powers of 1024), such as 64K"
    ))]
    ConsoleRate,
    #[error("not a TCP port")]
    #[diagnostic(help("write a number, 1 to 65535, 0 for any that is free, or unix:PATH"))]
    Port,
    #[error("expected text, json or journald")]
    LogFormat,
    #[error("not a socket")]
    #[diagnostic(help("write unix:PATH, or unix:@NAME for one without a file"))]
    Metrics,
    #[error("socket path or name too long")]
    #[diagnostic(help("the limit is 107 bytes"))]
    SocketTooLong,
    #[error("not a name")]
    #[diagnostic(help("write 1 to 64 printable ASCII characters without a space at either end"))]
    RunName,
    #[error("a placeholder")]
    #[diagnostic(help("replace it with a value of this host"))]
    Placeholder,
    #[error("the path is empty")]
    Path,
}
