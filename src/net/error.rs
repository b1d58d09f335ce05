//! Why a network device cannot be attached, with hints for the operator.

use std::fs::{self, File};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;

use super::interface::{self, Interface};
use crate::host::capabilities;
use crate::host::descriptors;
use crate::host::device_file::{KVM, TUN};
use crate::host::ids::{self, sudo};
use crate::host::owner::Owner;

/// Why a network device cannot be attached.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("there is no interface '{name}'")]
    #[diagnostic(help(
        "'{sudo}ip tuntap add {0} mode tap {us}' and '{sudo}ip link set {0} up' make it",
        argument(name),
        sudo = sudo()
    ))]
    Missing { name: String, us: String },
    #[error("interface '{name}' is down")]
    #[diagnostic(help("'{sudo}ip link set {} up' brings it up", argument(name), sudo = sudo()))]
    Down { name: String },
    #[error("interface '{name}' is {kind}")]
    #[diagnostic(help(
        "'{sudo}ip tuntap add NAME mode tap {us}' makes the tap that is needed",
        sudo = sudo()
    ))]
    NotTap {
        name: String,
        kind: &'static str,
        us: String,
    },
    #[error("interface '{name}' is a bridge")]
    #[diagnostic(help("give a tap in it: {taps}"))]
    Bridge { name: String, taps: String },
    #[error("user {user} may not attach to interface '{name}', which belongs to {owner}")]
    #[diagnostic(help(
        "recreate it: '{sudo}ip tuntap del {0} mode tap', '{sudo}ip tuntap add {0} mode tap {us}', '{sudo}ip link set {0} up'",
        argument(name),
        sudo = sudo()
    ))]
    Denied {
        name: String,
        owner: String,
        user: String,
        us: String,
    },
    #[error("interface '{name}' is in use by {owner}")]
    #[diagnostic(help("give each unikernel its own tap"))]
    InUse { name: String, owner: Owner },
    #[error("interface '{name}' is in use by another process")]
    #[diagnostic(help("give each unikernel its own tap"))]
    InUseBySomebody { name: String },
    #[error("interface '{name}' is given twice, by another name or as a descriptor")]
    #[diagnostic(help("give each network device its own tap"))]
    GivenTwice { name: String },
    #[error("/dev/net/tun is missing")]
    #[diagnostic(help(
        "'{}modprobe tun' loads its driver (a container needs --device /dev/net/tun)",
        sudo()
    ))]
    TunMissing,
    #[error("cannot open /dev/net/tun: {error}")]
    #[diagnostic(help("{hint}"))]
    Tun { error: io::Error, hint: String },
    #[error("cannot attach to interface '{name}': {error}")]
    Attach { name: String, error: io::Error },
    #[error(transparent)]
    #[diagnostic(transparent)]
    InheritedFd(#[from] descriptors::Error),
    #[error("file descriptor {fd} {rule}")]
    #[diagnostic(help("{fix}"))]
    Descriptor {
        fd: RawFd,
        rule: &'static str,
        fix: &'static str,
    },
    #[error("cannot set up file descriptor {fd}: {error}")]
    SetUp { fd: RawFd, error: io::Error },
    #[error("cannot choose a random MAC address: {error}")]
    #[diagnostic(help("--net-mac gives one"))]
    Random { error: io::Error },
}

impl Error {
    /// Returns the error for a missing interface `name`.
    pub(super) fn missing(name: &str) -> Error {
        Error::Missing {
            name: name.into(),
            us: tap_owner(),
        }
    }

    /// Returns the error for the interface `name`, which is down; if it is not a tap, that error
    /// takes precedence.
    pub(super) fn down(name: &str) -> Error {
        not_tap(name).unwrap_or_else(|| Error::Down { name: name.into() })
    }

    /// Returns the error for a refused attachment to the interface `name`, which exists, or for its
    /// device file.
    #[cold]
    pub(super) fn refused(name: &str, error: io::Error) -> Error {
        // Both fail with the same errors.
        if let Err(error) = File::options().read(true).write(true).open(TUN.path) {
            return Error::tun(error);
        }
        match error.raw_os_error() {
            Some(libc::EPERM) => denied(name),
            Some(libc::EBUSY) => in_use(name),
            Some(libc::EINVAL) => {
                not_tap(name).unwrap_or_else(|| Error::not_tap(name, "not a tap of one queue"))
            }
            _ => Error::Attach {
                name: name.into(),
                error,
            },
        }
    }

    /// Returns the error for a device file that did not open.
    pub(super) fn tun(error: io::Error) -> Error {
        match error.raw_os_error().unwrap_or_default() {
            libc::ENOENT => Error::TunMissing,
            errno => Error::Tun {
                error,
                hint: TUN.hint(errno),
            },
        }
    }

    fn not_tap(name: &str, kind: &'static str) -> Error {
        Error::NotTap {
            name: name.into(),
            kind,
            us: tap_owner(),
        }
    }
}

/// Returns the error for an interface that another process is attached to.
#[cold]
fn in_use(name: &str) -> Error {
    let own_name = Interface::find(name).map_or_else(|_| name.to_owned(), |found| found.name);
    let name = name.to_owned();
    match Owner::of_tap(&own_name, |tap| Interface::of_tap(tap, &own_name).is_some()) {
        Some(owner) if owner.is_us() => Error::GivenTwice { name },
        Some(owner) => Error::InUse { name, owner },
        None => Error::InUseBySomebody { name },
    }
}

/// Returns the error for an interface that is no tap of one queue, if the host shows its kind.
#[cold]
fn not_tap(name: &str) -> Option<Error> {
    let kind = match interface::tun_flags(name) {
        Some(flags) if flags & libc::IFF_TUN != 0 => "a tun, which carries no Ethernet frames",
        Some(flags) if flags & libc::IFF_MULTI_QUEUE != 0 => "a tap of several queues",
        Some(_) => return None,
        None => match interface::taps_of_bridge(name, MOST_TAPS) {
            Some(taps) => return Some(bridge(name, &taps)),
            None => interface::attribute(name, "ifindex").map(|_| "not a tap")?,
        },
    };
    Some(Error::not_tap(name, kind))
}

/// Returns the error for another user's interface.
#[cold]
fn denied(name: &str) -> Error {
    // The host shows −1 for none.
    let known = |what| interface::attribute(name, what).and_then(|id| id.parse().ok());
    let (owner, group) = (known("owner"), known("group"));
    let owner = match (owner.map(ids::user_name), group.map(ids::group_name)) {
        (Some(user), Some(group)) => format!("user {user} in group {group}"),
        (Some(user), None) => format!("user {user}"),
        (None, Some(group)) => format!("group {group}"),
        (None, None) => "another user".into(),
    };
    Error::Denied {
        name: name.into(),
        owner,
        user: ids::user_name(ids::user()),
        us: tap_owner(),
    }
}

/// Most taps of a bridge that a message lists.
const MOST_TAPS: usize = 4;

/// Returns the error for the bridge `name` with these taps.
#[cold]
fn bridge(name: &str, taps: &[String]) -> Error {
    let taps = match taps {
        [] => format!(
            "'{sudo}ip tuntap add NAME mode tap {}', '{sudo}ip link set NAME master {} up' and --net=NAME",
            tap_owner(),
            argument(name),
            sudo = sudo()
        ),
        [tap] => format!("--net={}", argument(tap)),
        _ => format!("one of {}", taps.join(", ")),
    };
    let name = name.to_owned();
    Error::Bridge { name, taps }
}

/// Returns the name of an interface for a command, or a placeholder if a shell could take it for
/// anything else.
fn argument(name: &str) -> &str {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match name.starts_with('-') || !name.chars().all(is_plain) {
        true => "NAME",
        false => name,
    }
}

/// Returns the owner for a tap of this process, as an argument of `ip tuntap`.
#[cold]
fn tap_owner() -> String {
    let user = ids::user();
    match ids::name_in("/etc/passwd", user) {
        Some(name) => format!("user {name}"),
        None => {
            let kvm = fs::metadata(KVM.path).ok().map(|file| file.gid());
            let groups = [&[ids::group()], &*capabilities::groups()].concat();
            unnamed_owner(user, &groups, kvm)
        }
    }
}

/// Returns the owner for a user without a name, who may exist for one run only (DynamicUser= of a
/// unit): the group `kvm` of /dev/kvm, which only users of unikernels have, if it is one of
/// `groups`. Users of another group would get the tap, too.
fn unnamed_owner(user: u32, groups: &[u32], kvm: Option<u32>) -> String {
    let ours = kvm.filter(|gid| *gid != 0 && groups.contains(gid));
    match ours {
        Some(gid) => format!("group {}", ids::group_name(gid)),
        None => format!("user {user}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::message::Message;

    #[test]
    fn commands_contain_plain_names_only() {
        let message = |name: &str| Message::from(Error::missing(name)).to_string();
        assert!(message("tap-0.a_b").contains("ip tuntap add tap-0.a_b mode tap "));
        for name in ["a;$(id)", "-x", "a'b", "ü"] {
            let message = message(name);
            assert!(
                message.contains("ip tuntap add NAME mode tap "),
                "{message}"
            );
            assert!(
                message.ends_with("ip link set NAME up' make it"),
                "{message}"
            );
        }
        assert!(
            Message::from(bridge("b;c", &["a;b".into()]))
                .to_string()
                .ends_with("--net=NAME")
        );
    }

    #[test]
    fn a_user_without_a_name_shares_a_tap_with_the_group_of_kvm_only() {
        let name = ids::group_name(1);
        assert_eq!(
            unnamed_owner(4321, &[5, 1], Some(1)),
            format!("group {name}")
        );
        assert_eq!(unnamed_owner(4321, &[1], Some(5)), "user 4321");
        assert_eq!(unnamed_owner(4321, &[1], None), "user 4321");
        assert_eq!(unnamed_owner(4321, &[0], Some(0)), "user 4321");
    }
}
