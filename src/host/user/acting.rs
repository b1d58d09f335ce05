//! Checks rights of another user with the kernel, acting as that user: for files of a run with
//! `--user`.

use std::io;

use libc::{c_long, gid_t, uid_t};

use super::{Error, Identity, cannot_become, number, read};
use crate::host::capabilities::{self, Capabilities};

/// Runs `action` as another user with these groups and without capabilities. Changes this thread
/// only.
///
/// # Errors
/// This process may not become that user, or cannot change back.
pub fn acting<T>(
    Identity { uid, gid }: Identity,
    groups: &[gid_t],
    action: impl FnOnce() -> T,
) -> io::Result<T> {
    let itself = Itself::get()?;
    // By system call number: the C library would change all threads. The saved user and group allow
    // the way back.
    let become_other = || {
        // SAFETY: the calls take plain numbers and an array of that many groups.
        unsafe {
            checked(libc::syscall(
                libc::SYS_setgroups,
                groups.len(),
                groups.as_ptr(),
            ))?;
            checked(libc::syscall(
                libc::SYS_setresgid,
                gid,
                gid,
                itself.group[1],
            ))?;
            checked(libc::syscall(libc::SYS_setresuid, uid, uid, itself.user[1]))?;
        }
        itself.capabilities.without_effective().set()
    };
    let done = become_other().map(|()| action());
    itself.restore()?;
    done
}

/// Credentials of a thread: real, effective and saved user and group, other groups, capabilities.
struct Itself {
    user: [uid_t; 3],
    group: [gid_t; 3],
    groups: Vec<gid_t>,
    capabilities: Capabilities,
}

impl Itself {
    fn get() -> io::Result<Itself> {
        let [mut user, mut group] = [[0; 3]; 2];
        // SAFETY: the kernel writes three numbers for each of the two.
        unsafe {
            libc::getresuid(&raw mut user[0], &raw mut user[1], &raw mut user[2]);
            libc::getresgid(&raw mut group[0], &raw mut group[1], &raw mut group[2]);
        }
        Ok(Itself {
            user,
            group,
            groups: capabilities::groups(),
            capabilities: Capabilities::get()?,
        })
    }

    fn restore(&self) -> io::Result<()> {
        // Capabilities first, because the rest needs them; and again last, because a change of the
        // user changes them.
        self.capabilities.set()?;
        let ([real, effective, saved], [real_group, effective_group, saved_group]) =
            (self.user, self.group);
        // SAFETY: the calls take plain numbers and an array of that many groups.
        unsafe {
            checked(libc::syscall(libc::SYS_setresuid, real, effective, saved))?;
            checked(libc::syscall(
                libc::SYS_setresgid,
                real_group,
                effective_group,
                saved_group,
            ))?;
            checked(libc::syscall(
                libc::SYS_setgroups,
                self.groups.len(),
                self.groups.as_ptr(),
            ))?;
        }
        self.capabilities.set()
    }
}

fn checked(result: c_long) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Checks that [`acting`] as this user is possible.
///
/// # Errors
/// [`Error::Become`].
pub fn check(identity: Identity, groups: &[gid_t]) -> Result<(), Error> {
    acting(identity, groups, || ()).map_err(|source| cannot_become(identity, source))
}

/// Returns the groups that processes of this user may have: its own, and those in /etc/group.
pub fn groups_of(identity: Identity) -> Vec<gid_t> {
    let [passwd, groups] = ["/etc/passwd", "/etc/group"].map(|file| read(file).unwrap_or_default());
    groups_in(identity, &passwd, &groups)
}

fn groups_in(Identity { uid, gid }: Identity, passwd: &str, groups: &str) -> Vec<gid_t> {
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
        let during = acting(Identity { uid: 12, gid: 34 }, &[34, 56], state).unwrap();
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
