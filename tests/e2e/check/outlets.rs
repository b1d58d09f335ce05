//! What a run opens in addition to its guest's devices: statistics files, core files and the
//! debugger's socket.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use libtest_mimic::Trial;

use crate::check::{agree, both, check, unikernel};
use crate::common::Need::{Kvm, Root};
use crate::common::{self, run, text};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(outlets_are_checked_as_at_a_start, Kvm),
        trial!(core_files_are_checked_as_at_a_start, Root, Kvm),
        trial!(a_debuggers_port_is_checked_as_at_a_start, Kvm),
    ]
}

fn outlets_are_checked_as_at_a_start() {
    let directory = common::directory();
    let path = |name: &str| text(&directory.path().join(name)).to_owned();
    let listed = || fs::read_dir(directory.path()).unwrap().count();
    fs::write(path("file"), "kept").unwrap();
    fs::create_dir(path("folder")).unwrap();
    drop(UnixListener::bind(path("dead")).unwrap());
    let _lives = UnixListener::bind(path("alive")).unwrap();
    let before = listed();
    let targets = [
        "new",
        "file",
        "folder",
        "dead",
        "alive",
        "no/such/place",
        &"x".repeat(200),
    ];
    for target in targets {
        let metrics = format!("--metrics=unix:{}", path(target));
        // A longer one is an error in the option itself.
        let metrics = Some(metrics).filter(|_| path(target).len() <= 107);
        for option in [format!("--stats={}", path(target))]
            .into_iter()
            .chain(metrics)
        {
            // The check comes first: afterwards the files of the start would exist.
            let options = ["--mem=2", &option];
            let check = check("hello", &options);
            assert_eq!(
                (listed(), fs::read(path("file")).unwrap()),
                (before, b"kept".to_vec()),
                "{option}"
            );
            agree(&run(&mut unikernel(false, "hello", &options, &[])), &check);
            // Restored for the next case.
            let _ = fs::remove_file(path("new"));
            let _ = fs::remove_file(path(&"x".repeat(200)));
            fs::write(path("file"), "kept").unwrap();
            if !Path::new(&path("dead")).exists() {
                drop(UnixListener::bind(path("dead")).unwrap());
            }
        }
    }
    check("hello", &["--stats=-", "--metrics=unix:@a-name"])
        .exits(0)
        .prints("ok       metrics    can be served\n");
}

/// As the user of the run: even the superuser then has no access to another user's directory.
fn core_files_are_checked_as_at_a_start() {
    let directory = common::directory();
    let path = |name: &str| directory.path().join(name);
    for (name, mode) in [
        ("mine", 0o755),
        ("theirs", 0o755),
        ("shared", 0o777),
        ("closed", 0o666),
    ] {
        fs::create_dir(path(name)).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::chown(path("theirs"), Some(12), Some(34)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    for (user, there) in [
        (&[][..], ["mine", "shared"]),
        (&["--user=12:34"], ["theirs", "shared"]),
    ] {
        for name in ["mine", "theirs", "shared", "closed", "none"] {
            let dumpcore = format!("--dumpcore={}", text(&path(name)));
            let options = [user, &["--mem=2", &dumpcore]].concat();
            both("hello", &options, &[], |command| command);
            let fine = check("hello", &options)
                .stdout
                .contains("ok       dumpcore   core files can be made\n");
            assert_eq!(fine, there.contains(&name), "{options:?}");
        }
    }
    let dumpcore = format!("--dumpcore={}", text(&path("theirs")));
    let output = check("hello", &["--mem=2", "--user=no-such-user", &dumpcore]);
    output.exits(1).prints("would not start: 1 problem");
    assert!(
        ["mine", "theirs", "shared"]
            .iter()
            .all(|name| fs::read_dir(path(name)).unwrap().count() == 0)
    );
}

/// A free port stays free: a check does not listen.
fn a_debuggers_port_is_checked_as_at_a_start() {
    let other = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = other.local_addr().unwrap().port();
    let option = format!("--gdb-port={port}");
    both("hello", &["--mem=2", "--gdb", &option], &[], |command| {
        command
    });
    drop(other);
    check("hello", &["--mem=2", "--gdb", &option])
        .exits(0)
        .prints(&format!(
            "ok       gdb        can connect at 127.0.0.1:{port}\n"
        ));
    TcpListener::bind(("127.0.0.1", port)).unwrap();
    let directory = common::directory();
    let socket = directory.path().join("gdb");
    let option = format!("--gdb-port=unix:{}", text(&socket));
    let fine = format!(
        "ok       gdb        can connect at unix:{}\n",
        text(&socket)
    );
    check("hello", &["--mem=2", "--gdb", &option])
        .exits(0)
        .prints(&fine);
    assert!(!socket.exists(), "a check makes no file");
    fs::write(&socket, "mine").unwrap();
    both("hello", &["--mem=2", "--gdb", &option], &[], |command| {
        command
    });
}
