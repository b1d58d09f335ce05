//! Tests fish's completions at the end of a line, with the installed files. Without fish, the tests
//! are ignored, with that reason.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Completion, Trial};
use tempfile::TempDir;

fn main() -> ExitCode {
    let tests = vec![
        test(
            "values_are_offered_in_both_spellings",
            values_are_offered_in_both_spellings,
        ),
        test("device_names_are_not_files", device_names_are_not_files),
        test("options_end_at_the_unikernel", options_end_at_the_unikernel),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

fn test(name: &str, body: fn()) -> Trial {
    Trial::ignorable_test(name, move || {
        if Command::new("fish").arg("--version").output().is_err() {
            return Ok(Completion::ignored_with("no program 'fish' here"));
        }
        body();
        Ok(Completion::Completed)
    })
}

/// Creates a directory with the scripts, and one file that no option names.
fn scripts() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_manual"))
        .arg(directory.path())
        .arg("2026-01-31")
        .status()
        .unwrap();
    assert!(made.success());
    fs::write(directory.path().join("file"), "").unwrap();
    directory
}

fn offered(directory: &Path, line: &str) -> Vec<String> {
    let script =
        format!("source tender.fish; source solo5-hvt.fish; complete --do-complete '{line}'");
    let mut fish = Command::new("fish");
    fish.args(["--no-config", "-c", &script])
        .current_dir(directory)
        .env("HOME", directory);
    let done = fish.output().unwrap();
    assert!(
        done.stderr.is_empty(),
        "{line}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let arguments = String::from_utf8(done.stdout).unwrap();
    arguments
        .lines()
        .map(|line| line.split('\t').next().unwrap().to_owned())
        .collect()
}

fn values_are_offered_in_both_spellings() {
    let directory = scripts();
    let offered = |line| offered(directory.path(), line);
    assert_eq!(
        offered("tender --sandbox "),
        ["best-effort", "off", "strict"]
    );
    assert_eq!(offered("tender --sandbox=s"), ["--sandbox=strict"]);
    assert_eq!(offered("solo5-hvt --log-format j"), ["journald", "json"]);
    assert_eq!(offered("tender --net l"), ["lo"]);
    assert_eq!(offered("tender --net=l"), ["--net=lo"]);
    assert_eq!(offered("tender --net:a=l"), ["--net:a=lo"]);
    assert_eq!(offered("tender --disk fil"), ["file"]);
    assert_eq!(offered("tender --block:a=fil"), ["--block:a=file"]);
    assert_eq!(offered("tender --mem "), [""; 0]);
}

fn device_names_are_not_files() {
    let directory = scripts();
    let offered = |line| offered(directory.path(), line);
    assert_eq!(offered("tender --net:"), ["--net:"]);
    assert_eq!(offered("tender --block:f"), [""; 0]);
    assert_eq!(offered("tender --net-mac:a="), [""; 0]);
}

fn options_end_at_the_unikernel() {
    let directory = scripts();
    let offered = |line| offered(directory.path(), line);
    assert_eq!(offered("tender --no-n"), ["--no-net-ring"]);
    assert_eq!(offered("tender file --no-n"), [""; 0]);
    assert_eq!(offered("tender inspect --j"), ["--json"]);
    assert!(offered("tender --mem 4 ").contains(&"inspect".to_owned()));
}
