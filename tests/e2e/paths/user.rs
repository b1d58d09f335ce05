//! Runs as another user: root opens only what that user may use, and nothing by a path that the
//! user can change.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, Root};
use crate::common::{fixture, pipe, run, tender, text};
use crate::paths::{Place, read_write, with};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(a_users_links_are_not_followed_as_root, Root, Kvm),
        trial!(a_path_that_a_user_can_change_is_refused, Root, Kvm),
        trial!(a_run_as_another_user_has_what_that_user_has, Root, Kvm),
    ]
}

const USER: &str = "--user=12:34";

/// As [`Place`], with files for root alone, and a directory of [`USER`]'s with links to them.
fn place_with_user() -> Place {
    let place = Place::new();
    let mode = |name: &str, mode| {
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap()
    };
    mode("", 0o755);
    mode("app.hvt", 0o755);
    mode("disk.img", 0o600);
    fs::create_dir(place.path("theirs")).unwrap();
    fs::write(place.path("secret.toml"), "mem = 4\n").unwrap();
    fs::copy(fixture("block"), place.path("secret.hvt")).unwrap();
    mode("secret.toml", 0o600);
    mode("secret.hvt", 0o600);
    for name in ["disk.img", "secret.toml", "secret.hvt", "new"] {
        symlink(format!("../{name}"), place.path(&format!("theirs/{name}"))).unwrap();
    }
    fs::write(place.path("theirs/own.img"), vec![0; 1 << 16]).unwrap();
    symlink("own.img", place.path("theirs/own-link.img")).unwrap();
    for name in ["theirs", "theirs/own.img"] {
        chown(place.path(name), Some(12), Some(34)).unwrap();
    }
    symlink("theirs/disk.img", place.path("ours-to-theirs")).unwrap();
    symlink("disk.img", place.path("ours")).unwrap();
    place
}

/// The start of a refusal.
fn controls() -> String {
    format!(
        "user {} may not use it, but controls '",
        tender::host::ids::user_name(12)
    )
}

fn a_users_links_are_not_followed_as_root() {
    let place = place_with_user();
    let args = [&*controls(), "theirs'"];
    let theirs = format!("{}/theirs", text(place.directory.path()));
    for options in [
        &["--disk=theirs/disk.img"][..],
        &["--disk=ours-to-theirs"],
        &[&format!("--disk={theirs}/disk.img")],
        &["--disk=theirs/../disk.img"],
        &["--disk=theirs/own.img", "--stats=theirs/disk.img"],
        &["--disk=theirs/own.img", "--config=theirs/secret.toml"],
    ] {
        run(&mut place.tender(&[&[USER], options].concat())).is_refused(&args);
        run(&mut place.tender(&[&["--check", USER], options].concat())).exits(1);
        place.is_unchanged_but(&[]);
    }
    let mut command = tender([USER, "--disk=disk.img", "--", "theirs/secret.hvt", "fill"]);
    run(command.current_dir(place.directory.path())).is_refused(&args);
    let mut command = tender([USER, "--disk=disk.img", "--", "app.hvt", "fill"]);
    run(command.current_dir(place.path("theirs"))).is_refused(&["cannot be opened: No such file"]);
    run(&mut place.tender(&[USER, "--disk=theirs/own.img", "--stats=theirs/new"]))
        .is_refused(&["leads to no file"]);
    assert!(!place.path("new").exists());
    // The user may be named by a file that this user controls.
    fs::write(place.path("secret.toml"), "user = '12:34'\n").unwrap();
    run(&mut place.tender(&["--config=theirs/secret.toml", "--disk=disk.img"])).is_refused(&args);
    // Core files and the metrics socket go where the user may write.
    fs::create_dir(place.path("closed")).unwrap();
    fs::set_permissions(place.path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("../closed", place.path("theirs/closed")).unwrap();
    fs::create_dir(place.path("closed/inner")).unwrap();
    for options in [
        &["--dumpcore=theirs/closed/inner"][..],
        &["--metrics=unix:theirs/closed/socket"],
        &["--gdb", "--gdb-port=unix:theirs/closed/socket"],
        &["--chroot=theirs/closed/inner"],
    ] {
        run(&mut place.tender(&[&[USER, "--disk=disk.img"], options].concat())).is_refused(&args);
    }
    assert_eq!(fs::read_dir(place.path("closed")).unwrap().count(), 1);
    place.is_unchanged_but(&[]);
}

fn a_path_that_a_user_can_change_is_refused() {
    let place = place_with_user();
    fs::create_dir(place.path("open")).unwrap();
    fs::hard_link(place.path("disk.img"), place.path("open/disk.img")).unwrap();
    fs::create_dir(place.path("open/inner")).unwrap();
    fs::hard_link(place.path("disk.img"), place.path("open/inner/disk.img")).unwrap();
    symlink("../disk.img", place.path("open/link")).unwrap();
    for (owner, group, mode) in [
        (0, 0, 0o777),
        (0, 34, 0o775),
        (12, 0, 0o755),
        (12, 0, 0o500),
        (0, 0, 0o1777),
    ] {
        chown(place.path("open"), Some(owner), Some(group)).unwrap();
        fs::set_permissions(place.path("open"), fs::Permissions::from_mode(mode)).unwrap();
        for disk in ["open/disk.img", "open/link", "open/inner/../disk.img"] {
            let output = run(&mut place.tender(&[USER, &format!("--disk={disk}")]));
            output.is_refused(&[&format!("{}open", controls())]);
            place.is_unchanged_but(&[]);
        }
    }
    // In a directory such as /tmp, the user cannot replace a directory of root's.
    run(&mut place.tender(&[USER, "--disk=open/inner/disk.img"])).exits(0);
    fs::write(place.path("disk.img"), vec![0; 1 << 16]).unwrap();
    // The owner of a file can change its mode.
    chown(place.path("disk.img"), Some(12), None).unwrap();
    fs::set_permissions(place.path("disk.img"), fs::Permissions::from_mode(0o400)).unwrap();
    run(&mut place.tender(&[USER, "--disk=disk.img"])).is_refused(&["controls 'disk.img'"]);
    place.is_unchanged_but(&[]);
}

fn a_run_as_another_user_has_what_that_user_has() {
    let place = place_with_user();
    let absolute = format!("--disk={}", text(&place.path("disk.img")));
    for disk in [
        "--disk=disk.img",
        "--disk=ours",
        "--disk=theirs/own.img",
        "--disk=theirs/own-link.img",
        &absolute,
    ] {
        run(&mut place.tender(&["--check", USER, disk])).exits(0);
        run(&mut place.tender(&[USER, disk])).exits(0);
    }
    place.is_unchanged_but(&["disk.img"]);
    assert!(
        fs::read(place.path("theirs/own.img"))
            .unwrap()
            .iter()
            .any(|byte| *byte != 0)
    );
    // By descriptor, and by the path of one.
    for disk in ["--disk=@20", "--disk=/dev/fd/20"] {
        run(&mut with(
            place.tender(&[USER, disk]),
            20,
            read_write(&place.path("disk.img")),
        ))
        .exits(0);
    }
    for stats in ["theirs/stats", "stats", "theirs/stats"] {
        run(&mut place.tender(&[USER, "--disk=disk.img", &format!("--stats={stats}")])).exits(0);
        assert!(
            fs::read_to_string(place.path(stats))
                .unwrap()
                .starts_with('{')
        );
    }
    let (mut reader, writer) = pipe();
    run(&mut with(
        place.tender(&[USER, "--disk=disk.img", "--stats=/dev/fd/20"]),
        20,
        writer,
    ))
    .exits(0);
    let mut first = [0];
    reader.read_exact(&mut first).unwrap();
    assert_eq!(first, *b"{");
    run(&mut place.tender(&[USER, "--disk=disk.img", "--metrics=unix:theirs/socket"])).exits(0);
    assert_eq!(
        fs::symlink_metadata(place.path("theirs/socket"))
            .unwrap()
            .uid(),
        0
    );
    let mut command = tender([
        USER,
        "--disk=disk.img",
        "--config=app.toml",
        "--",
        "secret.hvt",
        "fill",
    ]);
    run(command.current_dir(place.directory.path())).exits(0);
}
