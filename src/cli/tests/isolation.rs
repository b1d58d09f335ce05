//! `--sandbox`, `--user` and `--chroot`.

use std::path::PathBuf;

use super::*;
use crate::config::{SandboxMode, UserOption};

#[test]
fn isolation_is_best_effort_by_default() {
    let plain = config(&["app"]);
    assert_eq!(
        (plain.sandbox, plain.user, plain.chroot),
        (SandboxMode::BestEffort, None, None)
    );
    let of = |word: &str| config(&[&format!("--sandbox={word}"), "app"]).sandbox;
    assert_eq!(
        ["strict", "best-effort", "off"].map(of),
        [
            SandboxMode::Strict,
            SandboxMode::BestEffort,
            SandboxMode::Off
        ]
    );
    assert_eq!(
        config(&["--chroot", "/var/empty", "app"]).chroot,
        Some(PathBuf::from("/var/empty"))
    );
}

#[test]
fn a_user_may_have_a_group() {
    let of = |word: &str| config(&["--user", word, "app"]).user;
    let user = |user: &str, group: Option<&str>| {
        Some(UserOption {
            user: user.into(),
            group: group.map(String::from),
        })
    };
    assert_eq!(of("pirate"), user("pirate", None));
    assert_eq!(of("1000:kvm"), user("1000", Some("kvm")));
    for word in ["", ":", ":kvm", "pirate:", "a:b:c"] {
        assert!(
            error(&[&format!("--user={word}")]).contains("NAME or UID"),
            "{word}"
        );
    }
}
