//! `tender inspect`: its output for every test unikernel, and its errors for other files.

use crate::common::Need::Kvm;
use crate::common::{self, Guest, Output, fixture, foreign_fixture, run, schema, tender};
use libtest_mimic::Trial;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use goblin::elf::section_header::SHT_NOTE;
use goblin::elf::{Elf, SectionHeader};
use guest_abi::note::{NAME, TYPE_ABI1, target};
use serde_json::Value;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(every_unikernel_matches_the_schema),
        trial!(eras_are_those_that_unikernels_were_built_for),
        trial!(notes_are_in_the_sections_that_tools_look_for),
        trial!(devices_are_those_that_are_declared),
        trial!(a_unikernel_for_another_processor_is_described),
        trial!(the_default_output_is_text),
        trial!(a_unikernel_of_another_target_is_described_and_refused),
        trial!(a_file_that_is_no_unikernel_is_refused),
        trial!(an_unreadable_file_is_reported_in_one_line),
        trial!(an_answer_that_cannot_be_written_is_an_error),
        trial!(a_unikernel_called_inspect_can_be_run),
        trial!(the_suggested_command_line_runs, Kvm),
        trial!(a_configuration_file_is_written, Kvm),
        trial!(every_unikernel_gets_a_valid_configuration_file),
        trial!(annotations_are_those_of_urunc_and_aussi),
        trial!(annotations_contain_no_hostile_device_name),
        trial!(a_path_that_is_not_utf_8_has_no_other_form),
        trial!(a_rejected_file_gets_no_other_form),
    ]
}

fn inspect(arguments: &[&str], path: &Path) -> Command {
    let mut command = tender(["inspect"]);
    command.args(arguments).arg(path);
    command
}

/// Parses the JSON description of a file and checks it against the schema.
#[track_caller]
fn document(output: &Output) -> Value {
    let schema = serde_json::from_str(include_str!("../../docs/inspect.schema.json"))
        .expect("the schema is JSON");
    let document =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:#?}"));
    schema::check(&schema, &document);
    document
}

#[track_caller]
fn accepted(path: &Path) -> Value {
    let output = run(&mut inspect(&["--json"], path));
    output.exits(0).is_quiet();
    let document = document(&output);
    assert!(
        document["refused"].is_null() && document["command_line"].is_array(),
        "{document:#}"
    );
    document
}

/// Returns every test unikernel, of both architectures where they are available.
fn unikernels() -> Vec<PathBuf> {
    let folders = [Some(fixture("hello")), foreign_fixture("hello")]
        .into_iter()
        .flatten();
    let mut found = Vec::new();
    for folder in folders {
        let folder = folder.parent().expect("it lies in a folder").to_owned();
        let entries = fs::read_dir(&folder).expect("the folder of the test unikernels");
        let paths = entries.map(|entry| entry.expect("it can be read").path());
        found.extend(
            paths.filter(|path| path.extension().is_some_and(|extension| extension == "hvt")),
        );
    }
    assert!(found.len() > 10, "{found:?}");
    found
}

fn every_unikernel_matches_the_schema() {
    for path in unikernels() {
        let document = accepted(&path);
        assert_eq!(document["file"], common::text(&path));
        let engines = match document["architecture"] == std::env::consts::ARCH {
            true => &["kvm", "process"][..],
            false => &[],
        };
        assert_eq!(document["engines"], serde_json::json!(engines));
        let entry = document["entry"]
            .as_u64()
            .expect("every unikernel begins somewhere");
        let text = document["segments"]
            .as_array()
            .expect("segments")
            .iter()
            .find(|segment| {
                let start = segment["address"].as_u64().expect("a number");
                (start..start + segment["memory_size"].as_u64().expect("a number")).contains(&entry)
            });
        assert_eq!(
            text.expect("the entry is in a segment")["permissions"],
            "r-x",
            "{document:#}"
        );
    }
}

/// The file name has the era: `hello`, `hello-abi1`, `hello-e1`.
fn eras_are_those_that_unikernels_were_built_for() {
    for path in unikernels() {
        let document = accepted(&path);
        let name = path
            .file_stem()
            .expect("a name")
            .to_str()
            .expect("of letters");
        let (era, version) = match name.rsplit_once('-') {
            Some((_, "e1")) => ("legacy", None),
            Some((_, "abi1")) => ("abi1", Some(1)),
            _ => ("abi2", Some(2)),
        };
        assert_eq!(document["era"]["name"], era, "{name}");
        assert_eq!(
            document["era"]["recognised_by"] == "note",
            version.is_some(),
            "{name}"
        );
        assert_eq!(document["abi"]["version"].as_u64(), version, "{name}");
        assert_eq!(document["manifest"].is_null(), version.is_none(), "{name}");
    }
}

/// The sections of upstream's linker scripts, by which `objcopy` and `readelf` find the notes.
fn notes_are_in_the_sections_that_tools_look_for() {
    for path in unikernels() {
        let bytes = fs::read(&path).unwrap();
        let elf = Elf::parse(&bytes).unwrap();
        let name =
            |section: &SectionHeader| elf.shdr_strtab.get_at(section.sh_name).unwrap_or_default();
        let notes = elf
            .section_headers
            .iter()
            .filter(|section| section.sh_type == SHT_NOTE)
            .map(name);
        let mut notes: Vec<&str> = notes.collect();
        notes.sort_unstable();
        let legacy = path
            .file_stem()
            .is_some_and(|stem| stem.to_string_lossy().ends_with("-e1"));
        let expected: &[&str] = if legacy {
            &[]
        } else {
            &[".note.solo5.abi", ".note.solo5.manifest"]
        };
        assert_eq!(notes, expected, "{}", path.display());
    }
}

fn devices_are_those_that_are_declared() {
    let devices = |name: &str| {
        let document = accepted(&fixture(name));
        let devices = document["devices"].as_array().expect("devices").clone();
        let text =
            |device: &Value, member: &str| device[member].as_str().expect("a string").to_owned();
        let both = document["manifest"]["devices"]
            .as_array()
            .expect("devices")
            .iter()
            .zip(&devices);
        assert!(
            both.clone()
                .all(|(one, other)| one["name"] == other["name"] && one["type"] == other["type"])
        );
        both.map(|(_, device)| (text(device, "type"), text(device, "option")))
            .collect::<Vec<_>>()
    };
    let net = |option: &str| ("NET_BASIC".to_owned(), option.to_owned());
    let block = |option: &str| ("BLOCK_BASIC".to_owned(), option.to_owned());
    assert_eq!(devices("hello"), []);
    assert_eq!(
        devices("net2"),
        [net("--net:service0=IFACE"), net("--net:service1=IFACE")]
    );
    assert_eq!(
        devices("block2"),
        [block("--block:a=PATH"), block("--block:b=PATH")]
    );
    assert_eq!(devices("maxdev").len(), 63);
}

fn a_unikernel_for_another_processor_is_described() {
    let Some(path) = foreign_fixture("hello") else {
        return;
    };
    let other = if cfg!(target_arch = "x86_64") {
        "aarch64"
    } else {
        "x86_64"
    };
    assert_eq!(accepted(&path)["architecture"], other);
    let here = format!("{other} (this host: {})", std::env::consts::ARCH);
    run(&mut inspect(&[], &path))
        .exits(0)
        .is_quiet()
        .prints(&here);
}

fn the_default_output_is_text() {
    let output = run(&mut inspect(&[], &fixture("net2")));
    output.exits(0).is_quiet();
    for arguments in [
        std::env::consts::ARCH,
        "ABI version 2 (Solo5 0.8 and later)",
        "   2  service1  NET_BASIC\n",
        "r-x\n",
        "at least 2 MiB",
        "  tender --mem=64M --net:service0=IFACE --net:service1=IFACE -- ",
    ] {
        output.prints(arguments);
    }
}

/// hello, with another target in its ABI note.
fn of_target(number: u32) -> Vec<u8> {
    let mut bytes = fs::read(fixture("hello")).unwrap();
    let start = [&TYPE_ABI1.to_le_bytes()[..], &NAME].concat();
    let note = bytes
        .windows(start.len())
        .position(|window| window == start)
        .expect("it has an ABI note")
        + 12;
    bytes[note..note + 4].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn a_unikernel_of_another_target_is_described_and_refused() {
    let directory = common::directory();
    let path = directory.path().join("hello.spt");
    fs::write(&path, of_target(target::SPT)).unwrap();
    let output = run(&mut inspect(&["--json"], &path));
    output.fails(&["hello.spt", "spt target"]);
    let document = document(&output);
    assert_eq!(document["abi"]["target"], "spt");
    assert_eq!(document["architecture"], std::env::consts::ARCH);
    assert!(
        document["refused"]
            .as_str()
            .expect("a reason")
            .contains("spt")
            && document["era"].is_null()
    );
    run(&mut inspect(&[], &path))
        .fails(&["spt target"])
        .prints("interface     spt, ABI version 2\n");
}

fn a_file_that_is_no_unikernel_is_refused() {
    let directory = common::directory();
    let path = directory.path().join("hello.txt");
    fs::write(&path, "hello\n").unwrap();
    run(&mut inspect(&[], &path)).is_refused(&["hello.txt", "a text file"]);
    let output = run(&mut inspect(&["--json"], &path));
    output.fails(&["hello.txt", "a text file"]);
    assert!(document(&output)["architecture"].is_null());
    let itself = common::ordinary_program();
    run(&mut inspect(&[], &itself)).fails(&["ordinary program"]);
}

fn an_unreadable_file_is_reported_in_one_line() {
    for arguments in [&[][..], &["--json"]] {
        run(&mut inspect(arguments, Path::new("/nonexistent/app.hvt")))
            .is_refused(&["/nonexistent/app.hvt", "No such file"]);
        run(&mut inspect(arguments, Path::new("/"))).is_refused(&["a directory"]);
        run(&mut inspect(arguments, Path::new("/dev/zero"))).is_refused(&["a device"]);
    }
    run(&mut tender(["inspect"])).is_refused(&["no unikernel", "tender inspect"]);
    run(&mut tender(["inspect", "a", "b"])).is_refused(&["unexpected argument 'b'"]);
    run(&mut tender(["inspect", "--mem=64", "a"])).is_refused(&["--mem"]);
}

fn an_answer_that_cannot_be_written_is_an_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Guest::spawn(inspect(&[], &fixture("hello")).stdout(full)).end();
    output.fails(&["cannot write", "hello.hvt"]);
}

fn a_unikernel_called_inspect_can_be_run() {
    let directory = common::directory();
    for arguments in [&["--", "inspect"][..], &["./inspect"], &["-v", "inspect"]] {
        run(tender(arguments).current_dir(&directory)).is_refused(&["inspect: ", "No such file"]);
    }
    run(tender(["inspect", "inspect"]).current_dir(&directory))
        .is_refused(&["inspect: ", "No such file"]);
}

fn the_suggested_command_line_runs() {
    let document = accepted(&fixture("hello"));
    let arguments = document["command_line"].as_array().expect("a list").iter();
    let arguments: Vec<&str> = arguments
        .map(|word| word.as_str().expect("a word"))
        .collect();
    assert_eq!(arguments[0], "tender");
    run(tender(&arguments[1..]).arg("there"))
        .exits(0)
        .is_quiet()
        .prints("hello: there\n");
}

/// Returns the configuration file that is written for `path`.
#[track_caller]
fn written(path: &Path) -> String {
    let output = run(&mut inspect(&["--toml"], path));
    output.exits(0).is_quiet();
    output.stdout
}

/// The file needs only the name of an image, and lies in another directory than the unikernel.
fn a_configuration_file_is_written() {
    let directory = common::directory();
    let file = directory.path().join("app.toml");
    let with = |arguments: &[&str]| {
        let mut command = tender(["--config", common::text(&file)]);
        run(command.args(arguments))
    };
    fs::write(directory.path().join("data.img"), [0; 4096]).unwrap();
    let text = written(&fixture("block"));
    fs::write(&file, &text).unwrap();
    with(&["--check"])
        .exits(1)
        .prints("missing  block:storage  ")
        .prints("would not start: 1 problem\n");
    let text = text.replace("PATH\"  #", "data.img\"  #");
    let text = text.replace("args = []", "args = [\"nothing\"]");
    fs::write(&file, text).unwrap();
    with(&["--check"])
        .exits(0)
        .prints("ok       arguments      7 bytes")
        .prints("ok       memory         64 MiB\n")
        .prints("would start\n");
    fs::write(&file, written(&fixture("hello"))).unwrap();
    with(&[])
        .exits(0)
        .is_quiet()
        .prints("memory: 67108864 bytes");
    // An interface is to be filled in.
    fs::write(&file, written(&fixture("net"))).unwrap();
    with(&[]).is_refused(&[
        "app.toml:12:7: --net:service=IFACE: a placeholder; replace it with a value of this host",
    ]);
}

fn every_unikernel_gets_a_valid_configuration_file() {
    for path in unikernels() {
        let text = written(&path);
        let devices = &accepted(&path)["devices"];
        let tables = |kind: &str| text.matches(&format!("\n[{kind}.")).count();
        assert_eq!(
            tables("net") + tables("block"),
            devices.as_array().map_or(0, Vec::len),
            "{text}"
        );
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
        let file = common::directory();
        let file = file.path().join("app.toml");
        // Devices of old unikernels are comments.
        let filled = text
            .replace("\n# net", "\nnet")
            .replace("\n# block", "\nblock");
        fs::write(&file, filled.replace("\"IFACE", "\"tap")).unwrap();
        let output = run(&mut tender(["--check", "--config", common::text(&file)]));
        assert!(
            output.stderr.is_empty() && output.stdout.contains("unikernel "),
            "{text}\n{output:#?}"
        );
    }
}

fn annotations_are_those_of_urunc_and_aussi() {
    let annotations = |name: &str| {
        let output = run(&mut inspect(&["--oci"], &fixture(name)));
        output.exits(0).is_quiet();
        serde_json::from_str::<Value>(&output.stdout).expect("JSON")
    };
    assert_eq!(
        annotations("web"),
        serde_json::json!({
            "com.urunc.unikernel.unikernelType": "mirage",
            "com.urunc.unikernel.hypervisor": "hvt",
            "com.urunc.unikernel.binary": "/web.hvt",
            "com.urunc.unikernel.mountRootfs": "false",
            "com.urunc.unikernel.useDMBlock": "false",
            "solo5.mem": "64",
            "solo5.net.service.docker": "eth0",
        })
    );
    let block = annotations("block");
    assert_eq!(block["com.urunc.unikernel.block"], "/storage.img");
    assert_eq!(block["com.urunc.unikernel.blkMntPoint"], "/storage");
    assert_eq!(block["solo5.block.storage"], "/storage.img");
}

fn annotations_contain_no_hostile_device_name() {
    let mut image = fs::read(fixture("block")).unwrap();
    let names: Vec<usize> = (0..image.len())
        .filter(|&start| image[start..].starts_with(b"storage\0"))
        .collect();
    for start in names {
        image[start..start + 7].copy_from_slice(b"../../x");
    }
    let directory = common::directory();
    let path = directory.path().join("app.hvt");
    fs::write(&path, image).unwrap();
    let output = run(&mut inspect(&["--oci"], &path));
    output.exits(1).complains(
        "app.hvt: device '../../x' has a name that no annotation can contain; rename it in manifest.json and rebuild",
    );
    assert_eq!(output.stdout, "");
}

fn a_path_that_is_not_utf_8_has_no_other_form() {
    let directory = common::directory();
    let path = directory.path().join(OsStr::from_bytes(b"a\xff.hvt"));
    fs::copy(fixture("hello"), &path).unwrap();
    for (form, name) in [("--toml", "TOML"), ("--oci", "JSON")] {
        let output = run(&mut inspect(&[form], &path));
        output.exits(1).complains(&format!(
            ".hvt: the path is not UTF-8, which {name} needs; rename the file"
        ));
        assert_eq!(output.stdout, "", "{form}");
    }
}

fn a_rejected_file_gets_no_other_form() {
    let directory = common::directory();
    let path = directory.path().join("app.hvt");
    fs::write(&path, "not a unikernel").unwrap();
    for form in ["--toml", "--oci"] {
        let output = run(&mut inspect(&[form], &path));
        output.exits(1).complains("app.hvt: ");
        assert_eq!(output.stdout, "", "{form}");
    }
}
