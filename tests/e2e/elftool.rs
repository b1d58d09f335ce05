//! `solo5-elftool`: under that name, `tender` works like Solo5's tool.

use libtest_mimic::Trial;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::Need::{Programs, Repository};
use crate::common::{
    self, Output, directory, fixture, foreign_fixture, run, tender, tender_path, text,
};
use goblin::elf::Elf;
use serde_json::Value;
use tempfile::TempDir;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(answers_are_those_of_solo5),
        trial!(every_unikernel_has_an_answer),
        trial!(a_file_without_an_answer_is_an_error),
        trial!(a_source_becomes_c),
        trial!(a_source_with_an_error_changes_nothing),
        trial!(a_source_comes_from_standard_input),
        trial!(the_c_source_makes_the_note, Repository, Programs(&["cc"])),
    ]
}

/// A link named `solo5-elftool` to `tender`.
struct Tool(TempDir);

impl Tool {
    fn new() -> Tool {
        let directory = directory();
        symlink(tender_path(), directory.path().join("solo5-elftool")).unwrap();
        Tool(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("solo5-elftool"));
        command.args(arguments).env_remove("RUST_LOG");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments))
    }

    /// Runs `gen-manifest` on `source`; returns the result and the path of the output.
    fn generate(&self, source: &str) -> (Output, PathBuf) {
        let [source_path, output] = ["manifest.json", "manifest.c"].map(|name| self.path(name));
        fs::write(&source_path, source).unwrap();
        (
            self.run(&["gen-manifest", text(&source_path), text(&output)]),
            output,
        )
    }
}

const SOURCE: &str = "{\n  \"type\": \"solo5.manifest\",\n  \"version\": 1,\n  \"devices\": [\n    { \"name\": \"service0\", \
                      \"type\": \"NET_BASIC\" },\n    { \"name\": \"service1\", \"type\": \"NET_BASIC\" }\n  ]\n}\n";

/// Byte by byte; `net2` has the devices of [`SOURCE`].
fn answers_are_those_of_solo5() {
    let tool = Tool::new();
    let [net, none, old] = ["net2", "hello", "hello-abi1"].map(fixture);
    let abi = |version| {
        format!(
            "{{\n  \"type\": \"solo5.abi\",\n  \"target\": \"hvt\",\n  \"version\": {version}\n}}\n"
        )
    };
    for (arguments, expected) in [
        (["query-manifest", text(&net)], SOURCE.to_owned()),
        (
            ["query-manifest", text(&none)],
            "{\n  \"type\": \"solo5.manifest\",\n  \"version\": 1,\n  \"devices\": [\n  ]\n}\n"
                .to_owned(),
        ),
        (["query-abi", text(&net)], abi(2)),
        (["query-abi", text(&old)], abi(1)),
    ] {
        let output = tool.run(&arguments);
        output.exits(0).is_quiet();
        assert_eq!(output.stdout, expected);
    }
}

/// The answers agree with `inspect`, for either processor. Unikernels older than notes have none.
fn every_unikernel_has_an_answer() {
    let tool = Tool::new();
    for folder in [Some(fixture("hello")), foreign_fixture("hello")]
        .into_iter()
        .flatten()
    {
        for entry in fs::read_dir(folder.parent().unwrap()).unwrap() {
            let path = entry.unwrap().path();
            let inspected = run(tender(["inspect", "--json"]).arg(&path)).stdout;
            let inspected: Value = serde_json::from_str(&inspected).unwrap();
            for (command, member) in [("query-abi", "abi"), ("query-manifest", "manifest")] {
                let output = tool.run(&[command, text(&path)]);
                if inspected[member].is_null() {
                    output.is_refused(&[text(&path), "has no Solo5 notes"]);
                } else {
                    output.exits(0).is_quiet();
                    assert_eq!(
                        serde_json::from_str::<Value>(&output.stdout).unwrap(),
                        inspected[member]
                    );
                }
            }
        }
    }
}

fn a_file_without_an_answer_is_an_error() {
    let tool = Tool::new();
    let hello = fixture("hello");
    for arguments in [
        &[][..],
        &["--help"],
        &["query-abi"],
        &["query-abi", "a", "b"],
        &["gen-manifest", "a"],
        &["run"],
    ] {
        tool.run(arguments)
            .is_refused(&["solo5-elftool has the commands: query-abi FILE, "]);
    }
    for command in ["query-abi", "query-manifest"] {
        tool.run(&[command, "/nonexistent"])
            .is_refused(&["/nonexistent: ", "No such file"]);
        tool.run(&[command, "/dev/null"])
            .is_refused(&["/dev/null: ", "a device"]);
        tool.run(&[command, text(&common::ordinary_program())])
            .is_refused(&["ordinary program"]);
        let part = tool.path("part.hvt");
        fs::write(&part, &fs::read(&hello).unwrap()[..200]).unwrap();
        tool.run(&[command, text(&part)])
            .is_refused(&["part.hvt: is truncated"]);
    }
    tool.run(&["gen-manifest", "/nonexistent", "-"])
        .is_refused(&["cannot read '/nonexistent': "]);
    tool.run(&["gen-manifest", "/dev/null", "-"])
        .is_refused(&["cannot read '/dev/null': it is a device"]);
}

fn a_source_becomes_c() {
    let tool = Tool::new();
    let (output, path) = tool.generate(SOURCE);
    output.exits(0).is_quiet();
    let made = fs::read_to_string(path).unwrap();
    for part in [
        "#define MFT_ENTRIES 3\n#include \"mft_abi.h\"\n",
        "{ .name = \"\", .type = MFT_RESERVED_FIRST },\n",
        "{ .name = \"service0\", .type = MFT_DEV_NET_BASIC },\n",
    ] {
        assert!(made.contains(part), "{made}");
    }
    let output = tool.run(&["gen-manifest", text(&tool.path("manifest.json")), "-"]);
    output.exits(0).is_quiet();
    assert_eq!(output.stdout, made);
    let output = tool.run(&[
        "gen-manifest",
        text(&tool.path("manifest.json")),
        "/nonexistent/m.c",
    ]);
    output.is_refused(&["cannot write '/nonexistent/m.c': "]);
}

fn a_source_with_an_error_changes_nothing() {
    let tool = Tool::new();
    fs::write(tool.path("manifest.c"), "before").unwrap();
    for (source, arguments) in [
        (
            SOURCE.replace("\"version\": 1", "\"version\": 2"),
            "line 8: the version must be 1",
        ),
        (
            SOURCE.replace("service1", "service-1"),
            "line 6: the name of a device",
        ),
        (
            SOURCE.replace("NET_BASIC", "X }, { \\\" \\\""),
            "the type of a device",
        ),
        (
            SOURCE.replace("\"devices\"", "\"device\""),
            "line 4: unknown key 'device'; known keys: ",
        ),
        (
            format!("{SOURCE}{}", " ".repeat(1 << 16)),
            "longer than 64 KiB",
        ),
        ("[".repeat(60_000), "expected an object"),
    ] {
        let (output, path) = tool.generate(&source);
        output.is_refused(&["manifest.json", arguments]);
        assert_eq!(fs::read_to_string(path).unwrap(), "before");
    }
}

fn a_source_comes_from_standard_input() {
    let tool = Tool::new();
    let source = tool.path("source");
    fs::write(&source, SOURCE).unwrap();
    let mut command = tool.command(&["gen-manifest", "-", "-"]);
    let output = command
        .stdin(fs::File::open(source).unwrap())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stdout.starts_with(b"/* The manifest"),
        "{output:?}"
    );
}

/// The note of Solo5's header `mft_abi.h`, with as many entries as the source has devices.
const HEADER: &str = r#"
#define MFT_VERSION 1
enum { MFT_DEV_BLOCK_BASIC = 1, MFT_DEV_NET_BASIC, MFT_RESERVED_FIRST = 1 << 30 };
struct entry { char name[68]; unsigned type; unsigned long long properties[2], host; unsigned char attached; };
struct manifest { unsigned version, entries; struct entry e[MFT_ENTRIES]; };
struct note { unsigned namesz, descsz, kind; char owner[8]; struct manifest manifest; };
#define MFT1_NOTE_DECLARE_BEGIN const struct note note __attribute__((section(".note.solo5.manifest"))) = { \
    .namesz = 6, .descsz = sizeof(struct note) - 20, .kind = 0x3154464d, .owner = "Solo5", .manifest =
#define MFT1_NOTE_DECLARE_END };
"#;

/// The note equals that of `net2`, which has the same devices.
fn the_c_source_makes_the_note() {
    let tool = Tool::new();
    let (output, source) = tool.generate(SOURCE);
    output.exits(0).is_quiet();
    fs::write(tool.path("mft_abi.h"), HEADER).unwrap();
    let object = tool.path("manifest.o");
    let mut compiler = Command::new("cc");
    compiler
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-c", "-o"])
        .arg(&object)
        .arg(source);
    assert!(compiler.status().unwrap().success());
    assert!(
        note(&object) == note(&fixture("net2")),
        "{:?}",
        note(&object)
    );
}

fn note(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let elf = Elf::parse(&bytes).unwrap();
    let is_it = |offset| elf.shdr_strtab.get_at(offset) == Some(".note.solo5.manifest");
    let section = elf
        .section_headers
        .iter()
        .find(|section| is_it(section.sh_name))
        .expect("there is such a section");
    bytes[section.file_range().unwrap()].to_vec()
}
