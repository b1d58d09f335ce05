//! Users and root directories: `--user`, `--chroot`, and calls that an unprivileged process avoids.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, Mounts, Root};
use crate::common::{self, Guest, as_nobody, refuse, run, status, text, unikernel};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(another_user_and_root, Root, Kvm),
        trial!(a_missing_right_is_reported, Root, Mounts, Kvm),
        trial!(missing_users_and_directories_are_reported, Kvm),
        trial!(a_process_without_capabilities_drops_none, Root, Mounts, Kvm),
        trial!(the_current_user_needs_no_right, Kvm),
    ]
}

/// A guest of another user in an empty root directory; tender was started with groups and in
/// another directory.
fn another_user_and_root() {
    let directory = common::directory();
    let chroot = format!("--chroot={}", text(directory.path()));
    for (user, ids) in [("65534:12345", ("65534", "12345")), ("0:0", ("0", "0"))] {
        let options = ["--mem=2", &format!("--user={user}"), &chroot];
        let mut command = unikernel("clock", &options, &["poll=100000000000"]);
        let guest = Guest::start(with_groups(&mut command, &[27, 104, 12345]).current_dir("/proc"));
        guest.wait_for("Hz\n");
        let four = |id: &str| [id; 4].join("\t");
        assert_eq!(
            (status(guest.pid(), "Uid"), status(guest.pid(), "Gid")),
            (four(ids.0), four(ids.1))
        );
        assert_eq!(status(guest.pid(), "Groups"), "");
        assert_eq!(status(guest.pid(), "CapEff"), "0000000000000000");
        for link in ["root", "cwd"] {
            let place = std::fs::read_link(format!("/proc/{}/{link}", guest.pid())).unwrap();
            assert_eq!(
                place,
                std::fs::canonicalize(directory.path()).unwrap(),
                "{link}"
            );
        }
    }
}

/// Starts the command with these supplementary groups.
fn with_groups<'c>(command: &'c mut Command, groups: &[libc::gid_t]) -> &'c mut Command {
    let groups = groups.to_vec();
    // SAFETY: it is a system call, which reads as many numbers as there are.
    unsafe {
        command.pre_exec(
            move || match libc::setgroups(groups.len(), groups.as_ptr()) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            },
        )
    }
}

fn a_missing_right_is_reported() {
    for (option, right) in [
        ("--user=nobody:kvm", "another user"),
        ("--user=0:0", "another user"),
        ("--chroot=/", "root"),
    ] {
        let directory = common::directory();
        let devices = [common::Device::Made("kvm", 0o666)];
        let output = run(&mut as_nobody(
            "hello",
            directory.path(),
            &devices,
            &["--mem=2", option],
        ));
        output.is_refused(&[&option[..6], right, "as root"]);
    }
}

fn missing_users_and_directories_are_reported() {
    if status(std::process::id(), "CapEff").ends_with('0') {
        // Refused for another reason, as the test above shows.
        return;
    }
    let refused =
        |option: &str, args: &[&str]| run(&mut unikernel("hello", &[option], &[])).is_refused(args);
    refused(
        "--chroot=/nonexistent",
        &["--chroot=/nonexistent", "No such file"],
    );
    refused("--chroot=/dev/null", &["Not a directory"]);
    if Path::new("/etc/passwd").exists() {
        refused("--user=4242", &["4242", "GID"]);
        refused(
            "--user=no-such-user",
            &["no user 'no-such-user'", "/etc/passwd"],
        );
    }
}

/// As in a unit with `SystemCallFilter=~@privileged`, with and without an error number.
fn a_process_without_capabilities_drops_none() {
    let hello = |refuse: &dyn Fn(&mut Command)| {
        let directory = common::directory();
        let options = ["-v", "--mem=2", "--sandbox=strict"];
        let mut command = as_nobody(
            "hello",
            directory.path(),
            &[common::Device::Made("kvm", 0o666)],
            &options,
        );
        refuse(&mut command);
        run(&mut command)
            .exits(0)
            .prints("memory:")
            .complains("sandbox: no privileges, ");
    };
    let calls = [
        (libc::SYS_capset, vec![]),
        (libc::SYS_prctl, vec![(0, libc::PR_SET_SECUREBITS as u32)]),
    ];
    for (call, arguments) in &calls {
        hello(&|command| _ = refuse::fails(command, *call, arguments, libc::EPERM));
        hello(&|command| _ = refuse::kills(command, *call, arguments));
    }
}

/// Except to drop supplementary groups, which a user namespace can forbid.
fn the_current_user_needs_no_right() {
    // As in a namespace of `unshare --map-root-user`.
    let hello = |options: &[&str], groups: &[libc::gid_t]| {
        let mut command = unikernel("hello", &[&["--mem=2"], options].concat(), &[]);
        if common::net::is_superuser() {
            with_groups(&mut command, groups);
        }
        for call in [
            libc::SYS_setgroups,
            libc::SYS_setresuid,
            libc::SYS_setresgid,
        ] {
            refuse::fails(&mut command, call, &[], libc::EPERM);
        }
        run(&mut command)
    };
    hello(&["--user=0:0"], &[]).exits(0).prints("memory:");
    hello(&["--user=0:0", "--check"], &[])
        .exits(0)
        .prints("user 0, group 0\n");
    if common::net::is_superuser() {
        hello(&["--user=0:0"], &[]).is_quiet();
        hello(&["--user=0:0"], &[0]).is_quiet();
        hello(&["--user=0:0"], &[0, 4711])
            .exits(0)
            .complains("--user: cannot drop the other groups of ");
        let refused = hello(&["--user=12:34"], &[]);
        refused.is_refused(&[
            "cannot become user 12, group 34",
            "Operation not permitted",
            "@setuid",
        ]);
        hello(&["--user=0:34"], &[4711])
            .is_refused(&["cannot become user 0, group 34", "/proc/self/setgroups"]);
    }
}
