//! Device files of the host that runs need, and hints for the case that one cannot be opened. The
//! error of `open(2)` shows the cause: `EPERM` the device list of a container or unit, `EACCES` the
//! file's permissions.

use std::ffi::CString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Access, CWD};

use crate::host::capabilities;
use crate::host::ids::{self, group_name, name_in, sudo, user, user_name};
use crate::host::owner::read_list;
use crate::host::user::{Identity, groups_of};

/// A character device of the kernel's misc class, major number 10.
#[derive(Clone, Copy, Debug)]
pub struct DeviceFile {
    /// Path of the device file.
    pub path: &'static str,
    minor: u32,
    /// The kernel module of the driver.
    module: &'static str,
}

/// KVM.
pub const KVM: DeviceFile = DeviceFile {
    path: "/dev/kvm",
    minor: 232,
    module: "kvm",
};

/// The driver of taps.
pub const TUN: DeviceFile = DeviceFile {
    path: "/dev/net/tun",
    minor: 200,
    module: "tun",
};

impl DeviceFile {
    /// Returns a hint for `errno`, the error of opening the device.
    #[cold]
    pub fn hint(&self, errno: i32) -> String {
        let DeviceFile {
            path,
            minor,
            module,
        } = self;
        match errno {
            libc::ENOENT => format!(
                "the kernel has it, but it was not passed to this container or unit: --device {path}, \
                 PrivateDevices=no, lxc.mount.entry"
            ),
            libc::ENODEV | libc::ENXIO => format!("'{}modprobe {module}' loads its driver", sudo()),
            libc::EPERM => format!(
                "the device list of this container or unit denies it: --device {path}, DeviceAllow={path} rw, or \
                 lxc.cgroup2.devices.allow = c 10:{minor} rwm"
            ),
            libc::EACCES => fs::metadata(path).map_or_else(
                |_| {
                    format!(
                        "user {} may not enter a directory of its path",
                        user_name(user())
                    )
                },
                |file| self.permissions(&file),
            ),
            libc::EMFILE | libc::ENFILE => "raise the limit of open files (ulimit -n)".to_owned(),
            _ => format!("see dmesg for {module}"),
        }
    }

    /// Returns whether the kernel lists the device, independent of /dev.
    pub fn has_driver(&self) -> bool {
        let listed = read_list("/proc/misc").is_ok_and(|list| {
            list.lines().any(|line| {
                line.split_ascii_whitespace()
                    .eq([&*self.minor.to_string(), self.module])
            })
        });
        listed || fs::exists(format!("/sys/class/misc/{}", self.module)).unwrap_or(false)
    }

    /// Returns a hint for the permissions of `file`, which is this device.
    #[cold]
    fn permissions(&self, file: &Metadata) -> String {
        if self.may_open() {
            return "its permissions allow it: /dev is mounted nodev, or a security module (AppArmor, SELinux) denies it"
                .to_owned();
        }
        let (path, mode, gid) = (self.path, file.mode() & 0o7777, file.gid());
        let (user, owner, group) = (user_name(user()), user_name(file.uid()), group_name(gid));
        let facts =
            format!("user {user} is denied by owner {owner}, group {group}, mode {mode:04o}");
        if !is_for_group(gid, mode) {
            let sudo = sudo();
            return format!(
                "{facts}: '{sudo}setfacl -m u:{user}:rw {path}' (package acl) allows it, \
                 '{sudo}chmod 0666 {path}' all users"
            );
        }
        let fix = match Membership::of_process(gid) {
            Membership::NotSinceLogin => {
                format!("it is in group {group} now, but was not at its login: log in again")
            }
            Membership::Possible => format!(
                "'{}usermod -aG {group} {user}' and logging in again allow it, or Group={group} in a unit",
                sudo()
            ),
            Membership::Unnamed => {
                format!("give it that group (--group-add {group}, Group={group})")
            }
        };
        format!("{facts}: {fix}")
    }

    /// Returns whether the permissions alone would let this process read and write.
    fn may_open(&self) -> bool {
        let rights = Access::READ_OK | Access::WRITE_OK;
        CString::new(self.path).is_ok_and(|path| ids::access(CWD, &path, rights).is_ok())
    }
}

/// How a user who lacks a group can get it.
enum Membership {
    /// /etc/group has the user as a member, but the process was started without the group.
    NotSinceLogin,
    /// `usermod` can add the user.
    Possible,
    /// The user or the group has no name here.
    Unnamed,
}

impl Membership {
    #[cold]
    fn of_process(gid: u32) -> Membership {
        let uid = user();
        let is_named = |file, id| name_in(file, id).is_some();
        let identity = Identity {
            uid,
            gid: ids::group(),
        };
        let is_listed = groups_of(identity)
            .iter()
            .any(|listed| listed.as_raw() == gid);
        if is_listed && ids::group() != gid && !capabilities::groups().contains(&gid) {
            Membership::NotSinceLogin
        } else if is_named("/etc/passwd", uid) && is_named("/etc/group", gid) {
            Membership::Possible
        } else {
            Membership::Unnamed
        }
    }
}

/// Returns whether `mode` lets the group `gid` read and write, and a user should join it. Root's
/// group is excluded, and so is 65534, which represents every group that a user namespace does not
/// map.
fn is_for_group(gid: u32, mode: u32) -> bool {
    gid != 0 && gid != 65534 && mode & 0o060 == 0o060
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_suggested_if_its_members_may() {
        assert!(is_for_group(104, 0o660));
        for (gid, mode) in [(104, 0o600), (104, 0o640), (0, 0o660), (65534, 0o660)] {
            assert!(!is_for_group(gid, mode), "{gid} {mode:o}");
        }
    }

    #[test]
    fn a_device_list_is_distinguished_from_permissions() {
        let denied = KVM.hint(libc::EPERM);
        for hint in [
            "--device /dev/kvm",
            "DeviceAllow=/dev/kvm rw",
            "c 10:232 rwm",
        ] {
            assert!(denied.contains(hint), "{denied}");
        }
        assert!(!denied.contains("group kvm"), "{denied}");
        assert!(
            TUN.hint(libc::EPERM)
                .contains("DeviceAllow=/dev/net/tun rw")
        );
        assert!(TUN.hint(libc::EMFILE).contains("ulimit -n"));
    }
}
