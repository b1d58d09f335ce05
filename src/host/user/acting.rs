//! Checks rights of another user with the kernel, acting as that user: for files of a run with
//! `--user`.

use std::io;

use rustix::process::{Gid, Uid, getgroups};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

use super::{Error, Identity, cannot_become, ids, number, read};
use crate::host::capabilities;

/// Runs `action` as another user with these groups and without capabilities. Changes this thread
/// only.
///
/// # Errors
/// This process may not become that user, or cannot change back.
pub fn acting<T>(
    Identity { uid, gid }: Identity,
    groups: &[Gid],
    action: impl FnOnce() -> T,
) -> io::Result<T> {
    let itself = Itself::get()?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    // The saved user and group allow the way back.
    let become_other = || {
        thread::set_thread_groups(groups)?;
        thread::set_thread_res_gid(gid, gid, itself.gids[1])?;
        thread::set_thread_res_uid(uid, uid, itself.uids[1])?;
        capabilities::set(CapabilitySets {
            effective: CapabilitySet::empty(),
            ..itself.capabilities
        })
    };
    let done = become_other().map(|()| action());
    itself.restore()?;
    done
}

/// Credentials of a thread: real, effective and saved user and group, other groups, capabilities.
struct Itself {
    uids: [Uid; 3],
    gids: [Gid; 3],
    groups: Vec<Gid>,
    capabilities: CapabilitySets,
}

impl Itself {
    fn get() -> io::Result<Itself> {
        let (uids, gids) = ids();
        Ok(Itself {
            uids,
            gids,
            groups: getgroups().unwrap_or_default(),
            capabilities: thread::capabilities(None)?,
        })
    }

    fn restore(&self) -> io::Result<()> {
        // Capabilities first, because the rest needs them; and again last, because a change of the
        // user changes them.
        capabilities::set(self.capabilities)?;
        let ([uid, euid, suid], [gid, egid, sgid]) = (self.uids, self.gids);
        thread::set_thread_res_uid(uid, euid, suid)?;
        thread::set_thread_res_gid(gid, egid, sgid)?;
        thread::set_thread_groups(&self.groups)?;
        capabilities::set(self.capabilities)
    }
}

/// Checks that [`acting`] as this user is possible.
///
/// # Errors
/// [`Error::Become`].
pub fn check(identity: Identity, groups: &[Gid]) -> Result<(), Error> {
    acting(identity, groups, || ()).map_err(|source| cannot_become(identity, source))
}

/// Returns the groups that processes of this user may have: its own, and those in /etc/group.
pub fn groups_of(identity: Identity) -> Vec<Gid> {
    let [passwd, groups] = ["/etc/passwd", "/etc/group"].map(|file| read(file).unwrap_or_default());
    let groups = groups_in(identity, &passwd, &groups);
    groups.into_iter().map(Gid::from_raw).collect()
}

fn groups_in(Identity { uid, gid }: Identity, passwd: &str, groups: &str) -> Vec<u32> {
    let mut found = vec![gid];
    let mut names = Vec::new();
    for line in passwd.lines() {
        if let [name, _, id, group, ..] = line.split(':').collect::<Vec<_>>()[..] {
            if number(id) == Some(uid) {
                names.push(name);
                found.extend(number(group));
            }
        }
    }
    for line in groups.lines() {
        if let [_, _, id, members] = line.split(':').collect::<Vec<_>>()[..] {
            if members.split(',').any(|member| names.contains(&member)) {
                found.extend(number(id));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nnobody:x:65534:65534:nobody:/:/bin/false\n\
                          pirate:x:1000:1001:,,,:/home/pirate:/bin/bash\n";
    const GROUPS: &str = "root:x:0:\nkvm:x:104:pirate,other\nempty:x::\n";

    #[test]
    fn a_user_has_the_groups_of_its_name() {
        let of = |uid, gid| groups_in(Identity { uid, gid }, PASSWD, GROUPS);
        assert_eq!(of(1000, 7), [7, 1001, 104]);
        assert_eq!(of(65534, 65534), [65534, 65534]);
        assert_eq!(of(4242, 1), [1]);
    }

    /// In a separate thread, the only one that changes.
    #[test]
    fn acting_as_another_user_ends() {
        let state = || std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let of = |state: &str, name: &str| {
            let line = state
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let before = state();
        if of(&before, "CapEff:").ends_with('0') {
            return;
        }
        let during = acting(
            Identity { uid: 12, gid: 34 },
            &[34, 56].map(Gid::from_raw),
            state,
        )
        .unwrap();
        let after = state();
        assert_eq!(
            (of(&during, "Uid:"), of(&during, "Gid:")),
            ("12 12 0 12".into(), "34 34 0 34".into())
        );
        assert_eq!(
            (of(&during, "Groups:"), of(&during, "CapEff:")),
            ("34 56".into(), "0000000000000000".into())
        );
        for name in ["Uid:", "Gid:", "Groups:", "CapEff:", "CapPrm:", "CapInh:"] {
            assert_eq!(of(&before, name), of(&after, name), "{name}");
        }
    }
}
