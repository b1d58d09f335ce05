//! Checks a network device without attaching it. An attached tap has a carrier, and its observers
//! (a bridge, a network manager) react when that changes, so a check must not attach.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::attach::{self, Link};
use super::{DEFAULT_MTU, Error, Identity, interface};
use crate::config::NetSource;
use crate::host::capabilities;
use crate::host::device_file::TUN;
use crate::host::ids;

/// A network device as it would be attached.
#[derive(Debug)]
pub struct NicProbe {
    /// The descriptor, if it is inherited.
    fd: Option<OwnedFd>,
    identity: Identity,
    name: String,
    mtu: u16,
    doubt: Option<String>,
}

impl NicProbe {
    /// Checks `source` as [`Nic::attach`](super::Nic::attach) would. Changes nothing, except that
    /// it takes a descriptor.
    ///
    /// # Errors
    /// Those of [`Nic::attach`](super::Nic::attach).
    pub fn new(source: &NetSource) -> Result<NicProbe, Error> {
        match source {
            NetSource::Interface(name) => {
                let found = attach::find(name)?;
                let doubt = check_attachable(name)?;
                let (name, mtu) =
                    found.map_or((name.clone(), DEFAULT_MTU), |found| (found.name, found.mtu));
                Ok(NicProbe {
                    fd: None,
                    identity: Identity::Tap,
                    name,
                    mtu,
                    doubt,
                })
            }
            NetSource::Fd(inherited) => {
                let (link, doubts) = attach::inspect(inherited)?;
                let Link {
                    fd,
                    name,
                    identity,
                    mtu,
                    ..
                } = link;
                let doubt = doubts
                    .into_iter()
                    .reduce(|one, other| format!("{one}, and {other}"));
                Ok(NicProbe {
                    fd: Some(fd),
                    identity,
                    name,
                    mtu,
                    doubt,
                })
            }
        }
    }

    /// Returns whether this device and `other` would steal each other's frames.
    pub fn shares_with(&self, other: &NicProbe) -> bool {
        match (&self.fd, &other.fd) {
            (Some(one), Some(two)) if self.identity == Identity::Tap => {
                other.identity == Identity::Tap && attach::is_same_file(one.as_fd(), two.as_fd())
            }
            (Some(_), Some(_)) => self.identity == other.identity,
            (None, None) => self.name == other.name,
            // An inherited tap is in use; the lookup by its name has shown that.
            _ => false,
        }
    }

    /// Returns the name of the interface, for messages.
    pub fn interface_name(&self) -> &str {
        &self.name
    }

    /// Returns the largest payload of a frame, in bytes.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Returns a possible problem.
    pub fn doubt(&self) -> Option<&str> {
        self.doubt.as_deref()
    }
}

/// Checks whether the kernel would attach this process to the interface `name`: a tap of one queue,
/// without an owner or owned by this user, and not attached. Returns a note if that cannot be
/// determined.
fn check_attachable(name: &str) -> Result<Option<String>, Error> {
    let tun = File::options().read(true).write(true).open(TUN.path);
    tun.map_err(Error::tun)?;
    let attribute = |attribute| interface::attribute(name, attribute);
    // The host shows −1 for none.
    let id = |what| attribute(what).and_then(|id| id.parse::<u32>().ok());
    let is_ours = || {
        id("owner").is_none_or(|owner| owner == ids::user())
            && id("group").is_none_or(is_group_ours)
    };
    let errno = match interface::tun_flags(name) {
        Some(flags) if flags & (libc::IFF_TAP | libc::IFF_MULTI_QUEUE) != libc::IFF_TAP => {
            libc::EINVAL
        }
        Some(_) if !is_ours() && !capabilities::has(capabilities::CapabilitySet::NET_ADMIN) => {
            libc::EPERM
        }
        // An attached process keeps the carrier up.
        Some(_) if attribute("carrier").as_deref() == Some("1") => libc::EBUSY,
        Some(_) => return Ok(None),
        None if attribute("ifindex").is_some() => libc::EINVAL,
        None => {
            return Ok(Some(
                "whether it can be attached is not known: /sys is of another network namespace, or \
                 RestrictAddressFamilies= forbids the query"
                    .to_owned(),
            ));
        }
    };
    Err(Error::refused(name, io::Error::from_raw_os_error(errno)))
}

fn is_group_ours(group: u32) -> bool {
    group == ids::group() || capabilities::groups().contains(&group)
}
