//! Checks a network device without attaching it. An attached tap has a carrier, and its observers
//! (a bridge, a network manager) react when that changes, so a check must not attach.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use super::attach::{self, Offered, UNKNOWN_MTU};
use super::{DEFAULT_MTU, Error, Identity, interface};
use crate::config::NetSource;
use crate::host::capabilities;
use crate::host::device_file;

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
                let doubt = attachable(name)?;
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
            NetSource::Fd(inherited) => match attach::offered(inherited)? {
                (given, Offered::Tap(tap)) => {
                    let (name, mtu) = (tap.label(inherited), tap.mtu());
                    let down = || {
                        format!(
                            "it is down; until 'ip link set {} up', all frames are dropped",
                            tap.name
                        )
                    };
                    let doubts = [
                        (!tap.is_up).then(down),
                        tap.here.is_none().then(|| UNKNOWN_MTU.to_owned()),
                    ];
                    let doubt = doubts
                        .into_iter()
                        .flatten()
                        .reduce(|one, other| format!("{one}, and {other}"));
                    Ok(NicProbe {
                        fd: Some(given),
                        identity: Identity::Tap,
                        name,
                        mtu,
                        doubt,
                    })
                }
                (given, Offered::Socket { .. }) => {
                    let fd = given.as_raw_fd();
                    let identity = socket_identity(given.as_fd())
                        .map_err(|error| Error::SetUp { fd, error })?;
                    let name = inherited.to_string();
                    Ok(NicProbe {
                        fd: Some(given),
                        identity,
                        name,
                        mtu: DEFAULT_MTU,
                        doubt: None,
                    })
                }
            },
        }
    }

    /// Returns whether this device and `other` would steal each other's frames.
    pub fn shares_with(&self, other: &NicProbe) -> bool {
        match (&self.identity, &other.identity) {
            (Identity::Tap, Identity::Tap) => match (&self.fd, &other.fd) {
                (Some(one), Some(other)) => attach::is_same_file(one.as_fd(), other.as_fd()),
                (None, None) => self.name == other.name,
                // An inherited tap is in use; the lookup by its name has shown that.
                _ => false,
            },
            (identity, other) => identity == other,
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

/// Checks whether the kernel would attach this process to the interface `name`, by the rules of its
/// `tun_set_iff`: a tap of one queue, without an owner or owned by this user, and not attached.
/// Returns a note if that cannot be determined.
fn attachable(name: &str) -> Result<Option<String>, Error> {
    let refused = |errno| Error::refused(name, io::Error::from_raw_os_error(errno));
    if let Err(error) = File::options()
        .read(true)
        .write(true)
        .open(device_file::TUN.path)
    {
        return Err(Error::tun(error));
    }
    let Some(flags) = interface::tun_flags(name) else {
        if interface::attribute(name, "ifindex").is_some() {
            return Err(refused(libc::EINVAL));
        }
        let why =
            "/sys is of another network namespace, or RestrictAddressFamilies= forbids the query";
        return Ok(Some(format!(
            "whether it can be attached is not known: {why}"
        )));
    };
    if flags & libc::IFF_TAP == 0 || flags & libc::IFF_MULTI_QUEUE != 0 {
        return Err(refused(libc::EINVAL));
    }
    if !may_attach(name) {
        return Err(refused(libc::EPERM));
    }
    // An attached process keeps the carrier up.
    if interface::attribute(name, "carrier").as_deref() == Some("1") {
        return Err(refused(libc::EBUSY));
    }
    Ok(None)
}

/// Returns whether owner and group of the tap `name`, if set, are ours; or this process has
/// CAP_NET_ADMIN.
fn may_attach(name: &str) -> bool {
    // The host shows −1 for none.
    let id = |what| interface::attribute(name, what).and_then(|id| id.parse::<u32>().ok());
    let is_ours = id("owner").is_none_or(|owner| owner == device_file::user());
    (is_ours && id("group").is_none_or(is_group_ours))
        || capabilities::has(capabilities::CapabilitySet::NET_ADMIN)
}

fn is_group_ours(group: u32) -> bool {
    // SAFETY: the call takes nothing, changes nothing and cannot fail.
    group == unsafe { libc::getegid() } || capabilities::groups().contains(&group)
}

fn socket_identity(socket: BorrowedFd<'_>) -> io::Result<Identity> {
    let copy: OwnedFd = socket.as_fd().try_clone_to_owned()?;
    let metadata = File::from(copy).metadata()?;
    Ok(Identity::Socket(metadata.dev(), metadata.ino()))
}
