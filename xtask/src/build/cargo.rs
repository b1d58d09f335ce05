//! Running cargo: the one that started this program.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::base::error::{Context, Result, fail};

/// Returns the repository: the directory above this crate, from cargo's environment, otherwise as
/// at build time.
pub fn root() -> PathBuf {
    let crate_dir = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    crate_dir.parent().unwrap_or(&crate_dir).to_path_buf()
}

/// Directory for builds, downloads and images. The environment cannot change it, so the README's
/// paths are correct.
pub fn target_dir() -> PathBuf {
    root().join("target")
}

/// Builds the command `cargo SUBCOMMAND` in the repository, with the target directory `target/`.
pub fn cargo(subcommand: &str) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .arg(subcommand)
        .current_dir(root())
        .env("CARGO_TARGET_DIR", target_dir());
    // Flags meant for one target must not leak into another.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    // `cargo run` sets these for this program: build scripts that watch them would run again
    // without need.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|n| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_"))
        {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Emulated processors are slow and the whole file system is in memory: optimise a little, and omit
/// debug information.
pub fn small_profile(command: &mut Command) {
    command
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "0");
    command
        .env("CARGO_PROFILE_DEV_STRIP", "debuginfo")
        .env("CARGO_INCREMENTAL", "0");
}

/// One program of a build.
#[derive(Debug, PartialEq, Eq)]
pub struct Built {
    /// The target's name: a test file, a binary.
    pub name: String,
    pub path: PathBuf,
    /// A test binary, and not a program that the tests run.
    pub is_test: bool,
}

/// Runs a build and returns its programs, fresh or not.
pub fn build(command: &mut Command) -> Result<Vec<Built>> {
    command
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .stdin(Stdio::null());
    let done = command.output().context("cannot start cargo")?;
    if !done.status.success() {
        return fail(format!(
            "cargo ended with {}; its messages are above",
            done.status
        ));
    }
    Ok(String::from_utf8_lossy(&done.stdout)
        .lines()
        .filter_map(parse_artifact)
        .collect())
}

/// Runs a build and returns the path of its program `name`.
pub fn program(command: &mut Command, name: &str) -> Result<PathBuf> {
    let built = build(command)?;
    match built.into_iter().find(|made| made.name == name) {
        Some(made) => Ok(made.path),
        None => fail(format!("cargo named no '{name}' among what it built")),
    }
}

/// Parses one JSON message of cargo. The few fields needed are plain strings, so no JSON parser is
/// needed.
fn parse_artifact(line: &str) -> Option<Built> {
    if !line.starts_with(r#"{"reason":"compiler-artifact""#) {
        return None;
    }
    let executable = text_after(line, r#""executable":""#)?;
    let target = &line[line.find(r#""target":{"#)?..];
    let profile = &line[line.find(r#""profile":{"#)?..];
    Some(Built {
        name: text_after(target, r#""name":""#)?,
        path: executable.into(),
        is_test: profile[..profile.find('}')?].contains(r#""test":true"#),
    })
}

fn text_after(line: &str, key: &str) -> Option<String> {
    let rest = &line[line.find(key)? + key.len()..];
    Some(rest[..rest.find('"')?].replace("\\\\", "\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = r#"{"reason":"compiler-artifact","package_id":"path+file:///x#tender@0.1.0","manifest_path":"/x/Cargo.toml","target":{"kind":["test"],"crate_types":["bin"],"name":"halt","src_path":"/x/tests/halt.rs","edition":"2024"},"profile":{"opt_level":"0","debuginfo":2,"debug_assertions":true,"overflow_checks":true,"test":true},"features":[],"filenames":["/x/halt-1"],"executable":"/x/halt-1","fresh":true}"#;

    #[test]
    fn a_test_binary_is_recognised_by_its_profile() {
        let built = parse_artifact(MESSAGE).unwrap();
        assert_eq!(
            built,
            Built {
                name: "halt".into(),
                path: "/x/halt-1".into(),
                is_test: true
            }
        );
        let program = MESSAGE.replace(r#""test":true"#, r#""test":false"#);
        assert!(!parse_artifact(&program).unwrap().is_test);
    }

    #[test]
    fn libraries_and_other_messages_are_ignored() {
        assert_eq!(
            parse_artifact(&MESSAGE.replace(r#""executable":"/x/halt-1""#, r#""executable":null"#)),
            None
        );
        assert_eq!(
            parse_artifact(r#"{"reason":"build-finished","success":true}"#),
            None
        );
    }
}
