//! Mismatches between the devices that a unikernel declares and those that the command line
//! attaches.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use crate::block;
use crate::guest::manifest::{Device, Kind};
use crate::net;

/// Why the devices cannot be attached.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("there is no {kind} device '{name}' in this unikernel")]
    #[diagnostic(help("it declares {declared}"))]
    Unknown {
        kind: Kind,
        name: String,
        declared: String,
    },
    #[error("--{option}= needs a device name: this unikernel declares {declared}")]
    #[diagnostic(help("write --{}:NAME= or omit it", named(option)))]
    Ambiguous {
        option: &'static str,
        declared: String,
    },
    #[error("--{option}= needs a {kind} device, but this unikernel declares {declared}")]
    #[diagnostic(help("omit it"))]
    NoneOfKind {
        option: &'static str,
        kind: Kind,
        declared: String,
    },
    #[error("device '{name}' ({kind}) is given twice")]
    Twice { kind: Kind, name: String },
    #[error("device '{}' ({}) is declared but not attached", .0.name, .0.kind)]
    #[diagnostic(help("add {}", .0.option()))]
    NotAttached(Device),
    #[error("device '{}' ({}) is declared but not attached", .device.name, .device.kind)]
    #[diagnostic(help("put {options} before the unikernel: arguments after it go to the guest"))]
    Misplaced { device: Device, options: String },
    #[error("device '{name}' shares its interface with another device")]
    #[diagnostic(help("give each its own"))]
    Shared { name: String },
    #[error("device '{name}': {error}")]
    #[diagnostic(forward(error))]
    Net { name: String, error: net::Error },
    #[error("device '{name}': {error}")]
    #[diagnostic(forward(error))]
    Block { name: String, error: block::Error },
    #[error("{place}: {error}")]
    #[diagnostic(forward(error))]
    InFile { place: String, error: Box<Error> },
    #[error("POLL cannot wait: {error}")]
    #[diagnostic(help("{}", hint(error)))]
    Wait { error: io::Error },
}

/// Options of `tender` that [`Error::with_misplaced`] looks for.
const MISPLACED: [&str; 4] = ["--net", "--block", "--disk", "--mem"];

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files (ulimit -n)",
        _ => {
            "the seccomp filter around tender must allow epoll_pwait2, or epoll_pwait and timerfd_settime"
        }
    }
}

/// Returns the option that names the device of `option`: nearly always itself.
fn named<'o>(option: &&'o str) -> &'o str {
    if *option == "disk" { "block" } else { option }
}

impl Error {
    /// Returns the name of the device that it is about, if it is about one of the unikernel's.
    pub fn device(&self) -> Option<&str> {
        match self {
            Error::Net { name, .. }
            | Error::Block { name, .. }
            | Error::Shared { name }
            | Error::Twice { name, .. } => Some(name),
            Error::NotAttached(device) | Error::Misplaced { device, .. } => Some(&device.name),
            Error::InFile { error, .. } => error.device(),
            _ => None,
        }
    }

    /// Adds the place in the configuration file, if the error is there.
    pub(super) fn at(self, place: Option<&str>) -> Error {
        match place {
            None => self,
            Some(place) => Error::InFile {
                place: place.to_owned(),
                error: Box::new(self),
            },
        }
    }

    /// Adds a hint to the error for a device that is not attached, if `arguments`, those of the guest,
    /// contain options of `tender`.
    #[cold]
    pub fn with_misplaced(self, arguments: &[OsString]) -> Error {
        let is_given = |option: &&str| {
            let texts = arguments.iter().filter_map(|argument| argument.to_str());
            texts
                .filter_map(|text| text.strip_prefix(*option))
                .any(|rest| rest.is_empty() || rest.starts_with(['=', ':']))
        };
        let options: Vec<&str> = MISPLACED.into_iter().filter(is_given).collect();
        match self {
            Error::NotAttached(device) if !options.is_empty() => Error::Misplaced {
                device,
                options: options.join(" and "),
            },
            error => error,
        }
    }

    /// Returns the error for an image at `path` that another device has already.
    pub(crate) fn twice(name: &str, path: impl Into<PathBuf>) -> Error {
        Error::Block {
            name: name.to_owned(),
            error: block::Error::GivenTwice { path: path.into() },
        }
    }
}

/// Lists the devices of a manifest, for an error message.
pub(super) fn declared(devices: &[Device]) -> String {
    if devices.is_empty() {
        return "no devices".to_owned();
    }
    let names = devices
        .iter()
        .map(|device| format!("{} ({})", device.name, device.kind));
    names.collect::<Vec<_>>().join(", ")
}
