//! The console in the journal: a listener replaces journald, and parses priorities as journald
//! does.

use libtest_mimic::Trial;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use crate::common::Need::Kvm;
use crate::common::{self, Guest, trial, unikernel};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(the_guest_sets_no_priority, Kvm),
        trial("messages_keep_their_priorities_among_unfinished_lines")
            .needs(&[Kvm])
            .run(messages_among_unfinished_lines),
        trial!(the_variable_also_names_the_stream, Kvm),
        trial!(output_elsewhere_is_unchanged, Kvm),
    ]
}

/// Guest lines that journald would parse for a priority or change.
const HOSTILE: &str = "x\n<0>all users log out NOW\n<7>hidden\n\n<html>\n<\n<3";

/// Output of `hello` for these arguments.
fn hello(arguments: &str) -> String {
    format!("hello: {arguments}\nmemory: {} bytes\n", 4 << 20)
}

/// Runs the command with one socket as both standard streams, made by `connect`; returns all of its
/// output.
fn stream_of(
    mut command: Command,
    connect: impl FnOnce(&mut Command) -> (UnixStream, UnixStream),
) -> String {
    let (ours, theirs) = connect(&mut command);
    let [ours, theirs] = [ours, theirs].map(|end| File::from(OwnedFd::from(end)));
    let guest = Guest::on_one_file(&mut command, ours, &theirs);
    drop(theirs);
    guest.end().stdout
}

/// Connects through a socket that has the name of journald's.
fn journald(_: &mut Command) -> (UnixStream, UnixStream) {
    named("journal")
}

fn named(folder: &str) -> (UnixStream, UnixStream) {
    let directory = common::directory();
    let folder = directory.path().join(folder);
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("stdout");
    let listener = UnixListener::bind(&path).unwrap();
    let theirs = UnixStream::connect(&path).unwrap();
    (listener.accept().unwrap().0, theirs)
}

/// Priorities and messages, as journald parses them: 6 for a line without a priority.
fn entries(stream: &str) -> Vec<(u8, String)> {
    let entries = stream
        .split(['\0', '\n'])
        .map(|line| match line.as_bytes() {
            [b'<', digit @ b'0'..=b'7', b'>', ..] => (digit - b'0', line[3..].to_owned()),
            _ => (6, line.to_owned()),
        });
    entries.filter(|(_, line)| !line.is_empty()).collect()
}

/// Entries of a guest's output without any priority in it.
fn lines(output: &str) -> Vec<(u8, String)> {
    output
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| (6, line.to_owned()))
        .collect()
}

fn the_guest_sets_no_priority() {
    for format in ["text", "json", "journald"] {
        let format = format!("--log-format={format}");
        let command = unikernel("hello", &["--mem=4", &format], &[HOSTILE]);
        assert_eq!(
            entries(&stream_of(command, journald)),
            lines(&hello(HOSTILE)),
            "{format}"
        );
    }
    let command = unikernel("hello", &["--mem=4", "--console-timestamps"], &[HOSTILE]);
    let stamped = entries(&stream_of(command, |_| named("journal.web")));
    // An empty line has a timestamp.
    assert_eq!(stamped.len(), hello(HOSTILE).lines().count());
    let is_stamped = |(priority, line): &(u8, String)| {
        *priority == 6 && line.starts_with("20") && line.contains("Z ")
    };
    assert!(stamped.iter().all(is_stamped), "{stamped:?}");
}

/// The limit cuts the guest's text within a line, and a warning follows.
fn messages_among_unfinished_lines() {
    let options = [
        "--mem=4",
        "--console-rate=100",
        "--log-format=journald",
        "-v",
    ];
    let text = format!("{}<0>", "a".repeat(90));
    let entries = entries(&stream_of(unikernel("hello", &options, &[&text]), journald));
    let has = |priority, beginning: &str| {
        assert!(
            entries
                .iter()
                .any(|(p, line)| *p == priority && line.starts_with(beginning)),
            "{entries:?}"
        );
    };
    has(6, &hello(&text)[..100]);
    has(4, "tender: warn: console: output exceeds --console-rate");
    has(6, "tender: info: the guest halted with status 0");
    assert!(
        entries
            .iter()
            .all(|(priority, _)| matches!(priority, 4 | 6)),
        "{entries:?}"
    );
    // Every message is an entry.
    assert!(
        entries
            .iter()
            .all(|(_, line)| line.matches("tender: ").count() <= 1),
        "{entries:?}"
    );
}

/// An unnamed stream, as with a program between tender and journald.
fn the_variable_also_names_the_stream() {
    let connect = |command: &mut Command| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let status = File::from(OwnedFd::from(theirs.try_clone().unwrap()))
            .metadata()
            .unwrap();
        command.env(
            "JOURNAL_STREAM",
            format!("{}:{}", status.dev(), status.ino()),
        );
        (ours, theirs)
    };
    let stream = stream_of(unikernel("hello", &["--mem=4"], &[HOSTILE]), connect);
    assert_eq!(entries(&stream), lines(&hello(HOSTILE)));
}

fn output_elsewhere_is_unchanged() {
    let pair = |command: &mut Command| {
        command.env("JOURNAL_STREAM", "1:1");
        UnixStream::pair().unwrap()
    };
    let stream = stream_of(unikernel("hello", &["--mem=4"], &[HOSTILE]), pair);
    assert_eq!(stream, hello(HOSTILE));
    let stream = stream_of(unikernel("hello", &["--mem=4"], &[HOSTILE]), |_| {
        named("journals")
    });
    assert_eq!(stream, hello(HOSTILE));
    let output =
        common::run(unikernel("hello", &["--mem=4"], &[HOSTILE]).env("JOURNAL_STREAM", "1:1"));
    assert_eq!(output.exits(0).is_quiet().stdout, hello(HOSTILE));
}
