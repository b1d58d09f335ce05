//! The user of `--user`.
//!
//! Names are looked up in /etc/passwd and /etc/group directly: the C library would load plug-ins,
//! which a static program cannot.

#![expect(unsafe_code, reason = "getresuid and getresgid")]

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread;

use super::capabilities::{self, CapabilitySet};
use crate::config::UserOption;

mod acting;

pub use acting::{acting, check as check_acting, groups_of};

/// Why this process cannot become another user.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("--user needs the right to become another user, which root has")]
    #[diagnostic(help("start tender as root or omit the option"))]
    Privilege,
    #[error("--user={user}: there is no user '{user}' in /etc/passwd")]
    #[diagnostic(help("give a name from there, or UID:GID"))]
    NoUser { user: String },
    #[error("--user={user}: user {user} is not in /etc/passwd, so its group is not known")]
    #[diagnostic(help("write {user}:GID"))]
    NoGroupOfUser { user: String },
    #[error("--user: there is no group '{group}' in /etc/group")]
    #[diagnostic(help("give a name from there, or a number"))]
    NoGroup { group: String },
    #[error("--user: cannot read {file}: {source}")]
    #[diagnostic(help("write UID:GID"))]
    Accounts {
        file: &'static str,
        source: io::Error,
    },
    #[error("--user: cannot become user {uid}, group {gid}: {source}")]
    #[diagnostic(help("{hint}"))]
    Become {
        uid: u32,
        gid: u32,
        source: io::Error,
        hint: &'static str,
    },
}

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The only group.
    pub gid: u32,
}

/// Returns the user of `--user`, if this process may become that user or is it already.
///
/// # Errors
/// It may not, or there is no such user.
pub fn permitted(option: &UserOption) -> Result<Identity, Error> {
    let found = identity(option, || read("/etc/passwd"), || read("/etc/group"));
    let is_ours = found.as_ref().is_ok_and(|identity| identity.is_ours());
    if is_ours || capabilities::has(CapabilitySet::SETUID | CapabilitySet::SETGID) {
        found
    } else {
        Err(Error::Privilege)
    }
}

fn read(file: &'static str) -> Result<String, Error> {
    let bytes = fs::read(file).map_err(|source| Error::Accounts { file, source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Looks the user up in these files, which are read only if a number is not enough.
fn identity(
    option: &UserOption,
    passwd: impl FnOnce() -> Result<String, Error>,
    groups: impl FnOnce() -> Result<String, Error>,
) -> Result<Identity, Error> {
    let UserOption { user, group } = option;
    let find_group = |group: &String| match number(group) {
        Some(gid) => Ok(gid),
        None => gid_of(group, &groups()?).ok_or_else(|| Error::NoGroup {
            group: group.clone(),
        }),
    };
    let gid = group.as_ref().map(find_group).transpose()?;
    if let (Some(uid), Some(gid)) = (number(user), gid) {
        return Ok(Identity { uid, gid });
    }
    match entry(user, &passwd()?) {
        Some(entry) => Ok(Identity {
            uid: entry.uid,
            gid: gid.unwrap_or(entry.gid),
        }),
        None if number(user).is_some() => Err(Error::NoGroupOfUser { user: user.clone() }),
        None => Err(Error::NoUser { user: user.clone() }),
    }
}

/// Parses an ID; the largest number means none.
fn number(word: &str) -> Option<u32> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    word.parse().ok().filter(|&id| digits && id != u32::MAX)
}

/// Finds the line `name:password:uid:gid:…` of a user by name or number.
fn entry(user: &str, passwd: &str) -> Option<Identity> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, uid, gid) = (fields.next()?, fields.nth(1)?, fields.next()?);
        let identity = Identity {
            uid: number(uid)?,
            gid: number(gid)?,
        };
        (name == user || number(user) == Some(identity.uid)).then_some(identity)
    })
}

/// Finds the line `name:password:gid:…` of a group.
fn gid_of(group: &str, groups: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?);
        if name == group { number(gid) } else { None }
    })
}

impl Identity {
    /// Returns whether this process's real, effective and saved IDs are all of that user.
    pub fn is_ours(self) -> bool {
        ids() == ([Uid::from_raw(self.uid); 3], [Gid::from_raw(self.gid); 3])
    }
}

/// Returns the real, effective and saved user and group of this thread.
fn ids() -> ([Uid; 3], [Gid; 3]) {
    let (mut uids, mut gids) = ([0; 3], [0; 3]);
    let ([uid, euid, suid], [gid, egid, sgid]) = (&mut uids, &mut gids);
    // SAFETY: the kernel writes one number to each pointer.
    unsafe {
        libc::getresuid(uid, euid, suid);
        libc::getresgid(gid, egid, sgid);
    }
    (uids.map(Uid::from_raw), gids.map(Gid::from_raw))
}

fn cannot_become(Identity { uid, gid }: Identity, source: io::Error) -> Error {
    let hint = match source.raw_os_error() {
        Some(libc::EPERM) => {
            "a user namespace must allow setgroups (/proc/self/setgroups), a unit @setuid"
        }
        _ => "a user namespace must map both (/proc/self/uid_map, gid_map)",
    };
    Error::Become {
        uid,
        gid,
        source,
        hint,
    }
}

/// Becomes that user permanently, with its one group and no other. Makes only calls that change
/// something: a user namespace can forbid them (/proc/self/setgroups), and so can a unit
/// (`SystemCallFilter=~@privileged`). Must not be called while there is a second thread: the calls
/// change this thread only.
pub fn become_user(identity: Identity) -> Result<(), Error> {
    let failed = |error: Errno| cannot_become(identity, error.into());
    let groups = capabilities::groups();
    if !groups.is_empty() {
        match thread::set_thread_groups(&[]) {
            Err(error) if !identity.is_ours() => return Err(failed(error)),
            Err(error) if groups.iter().any(|group| *group != identity.gid) => log::warn!(
                "--user: cannot drop the other groups of this process: {error}; the run keeps them"
            ),
            _ => {}
        }
    }
    if identity.is_ours() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    thread::set_thread_res_gid(gid, gid, gid)
        .and_then(|()| thread::set_thread_res_uid(uid, uid, uid))
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::message::Message;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nnobody:x:65534:65534:nobody:/:/bin/false\n\
                          pirate:x:1000:1001:,,,:/home/pirate:/bin/bash\n:x:5:5::\nminus:x:4294967295:1::\n";
    const GROUPS: &str = "root:x:0:\nkvm:x:104:pirate,other\nempty:x::\n";

    fn of(user: &str, group: Option<&str>) -> Result<(u32, u32), String> {
        let option = UserOption {
            user: user.into(),
            group: group.map(String::from),
        };
        let found = identity(&option, || Ok(PASSWD.into()), || Ok(GROUPS.into()));
        found
            .map(|Identity { uid, gid }| (uid, gid))
            .map_err(|error| Message::of(&error).to_string())
    }

    #[test]
    fn users_and_groups_by_name_and_number() {
        assert_eq!(of("pirate", None), Ok((1000, 1001)));
        assert_eq!(of("1000", None), Ok((1000, 1001)));
        assert_eq!(of("pirate", Some("kvm")), Ok((1000, 104)));
        assert_eq!(of("pirate", Some("7")), Ok((1000, 7)));
        assert_eq!(of("4242", Some("kvm")), Ok((4242, 104)));
        assert_eq!(of("4242", Some("4343")), Ok((4242, 4343)));
    }

    #[test]
    fn numbers_need_no_files() {
        let option = UserOption {
            user: "12".into(),
            group: Some("34".into()),
        };
        let found = identity(&option, || panic!("no need to"), || panic!("no need to"));
        assert_eq!(found.unwrap(), Identity { uid: 12, gid: 34 });
    }

    #[test]
    fn unknown_users_and_groups_are_reported() {
        assert!(
            of("nobody2", None)
                .unwrap_err()
                .contains("no user 'nobody2'")
        );
        assert!(of("broken", None).unwrap_err().contains("no user 'broken'"));
        assert!(of("minus", None).unwrap_err().contains("no user 'minus'"));
        assert!(of("4242", None).unwrap_err().contains("4242:GID"));
        assert!(
            of("pirate", Some("kvn"))
                .unwrap_err()
                .contains("no group 'kvn'")
        );
        assert!(
            of("pirate", Some("empty"))
                .unwrap_err()
                .contains("no group 'empty'")
        );
    }
}
