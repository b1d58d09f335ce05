//! One file for two uses, of which one writes: refused before anything is changed, locked or
//! emptied.

use std::fmt;
use std::path::Path;

use rustix::stdio::{stderr, stdout};

use super::{Files, Identity};
use crate::config::BlockSource;
use crate::config::StatsTarget;

/// Purpose of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    Unikernel,
    ConfigFile,
    Stream(&'static str),
    Disk(usize, String),
    Stats,
}

impl Purpose {
    fn writes(&self) -> bool {
        !matches!(self, Purpose::Unikernel | Purpose::ConfigFile)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Purpose::Unikernel => f.write_str("the unikernel"),
            Purpose::ConfigFile => f.write_str("the configuration file"),
            Purpose::Stream(name) => f.write_str(name),
            Purpose::Disk(_, name) => write!(f, "device '{name}'"),
            Purpose::Stats => f.write_str("--stats"),
        }
    }
}

/// One use of a file.
#[derive(Clone, Debug)]
pub struct Use {
    purpose: Purpose,
    /// The path or descriptor, as the operator wrote it.
    name: String,
    identity: Identity,
}

impl Use {
    fn new(purpose: Purpose, name: impl fmt::Display, identity: Identity) -> Use {
        Use {
            purpose,
            name: name.to_string(),
            identity,
        }
    }

    pub(super) fn unikernel(path: &Path, identity: Identity) -> Use {
        Use::new(Purpose::Unikernel, path.display(), identity)
    }

    /// Returns the use of the configuration file, which is already read.
    pub fn config_file(path: &Path, identity: Identity) -> Use {
        Use::new(Purpose::ConfigFile, path.display(), identity)
    }

    fn shares_with(&self, other: &Use) -> bool {
        let writes = self.purpose.writes() || other.purpose.writes();
        let [one, another] = [self, other].map(|use_| matches!(use_.purpose, Purpose::Stream(_)));
        self.identity == other.identity && writes && !(one && another)
    }

    pub(super) fn standard_streams() -> impl Iterator<Item = Use> {
        let streams = [(stdout(), "standard output"), (stderr(), "standard error")];
        streams.into_iter().filter_map(|(fd, name)| {
            let identity = Identity::of_descriptor(fd)?;
            Some(Use::new(Purpose::Stream(name), "", identity))
        })
    }
}

/// Why files cannot be used.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Shared {
    #[error("'{path}' is given to two block devices")]
    #[diagnostic(help("give each its own image"))]
    Disks { device: String, path: String },
    #[error("{stream}: its file is {other} as well")]
    #[diagnostic(help("redirect it to another file"))]
    Stream { stream: String, other: String },
    #[error("--stats: '{name}' is the file of {stream} as well")]
    #[diagnostic(help("'--stats=-' writes to standard error"))]
    StatsOnStream { name: String, stream: String },
    #[error("{user}: '{name}' is {other} as well")]
    #[diagnostic(help("give each its own file"))]
    Other {
        user: String,
        name: String,
        other: String,
    },
}

impl Shared {
    fn new(first: &Use, second: &Use) -> Shared {
        let [other, user] = [first, second].map(|use_| use_.purpose.to_string());
        let name = second.name.clone();
        match (&first.purpose, &second.purpose) {
            (Purpose::Disk(..), Purpose::Disk(_, device)) => Shared::Disks {
                device: device.clone(),
                path: name,
            },
            (_, Purpose::Stream(_)) => Shared::Stream {
                stream: user,
                other,
            },
            (Purpose::Stream(_), Purpose::Stats) => Shared::StatsOnStream {
                name,
                stream: other,
            },
            _ => Shared::Other { user, name, other },
        }
    }
}

impl Files {
    /// Finds every file that has two uses of which one writes; only standard output and error may
    /// share one. Call it before anything is locked, emptied or created. Each error has the index
    /// of its disk, if any.
    pub fn shared<'d>(
        &self,
        disks: impl Iterator<Item = (&'d str, &'d BlockSource)>,
        stats: Option<&StatsTarget>,
    ) -> Vec<(Option<usize>, Shared)> {
        let mut uses = self.uses.clone();
        for (index, (name, source)) in disks.enumerate() {
            let identity = match source {
                BlockSource::Path(path) => self.identity(path),
                BlockSource::Fd(fd) => fd.inherited().and_then(Identity::of_descriptor),
            };
            let purpose = Purpose::Disk(index, name.to_owned());
            uses.extend(identity.map(|identity| Use::new(purpose, source, identity)));
        }
        if let Some(StatsTarget::File(path)) = stats {
            let identity = self.identity(path);
            uses.extend(
                identity.map(|identity| Use::new(Purpose::Stats, path.display(), identity)),
            );
        }
        let shared = uses.iter().enumerate().filter_map(|(index, second)| {
            let mut before = uses[..index].iter();
            let first = before.find(|first| first.shares_with(second))?;
            let disk = match second.purpose {
                Purpose::Disk(index, _) => Some(index),
                _ => None,
            };
            Some((disk, Shared::new(first, second)))
        });
        shared.collect()
    }
}
