//! Descriptions of valid files, of others, and of arbitrary bytes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use ::toml::de::DeTable;
use guest_abi::manifest::{BLOCK_BASIC, Entry, NET_BASIC};
use guest_abi::note::target;
use proptest::prelude::*;

use super::*;
use crate::guest::image::tests::elf::{self, Elf, LEGACY_STRINGS, Program};
use crate::guest::manifest::tests::manifest;
use crate::report::json::Value;

fn report(elf: &Elf) -> Report {
    Report::new(Path::new("app.hvt"), elf.build().as_slice())
}

fn parsed(report: &Report) -> serde_json::Value {
    serde_json::from_str(&report.to_json()).expect("JSON")
}

/// A valid unikernel with these bytes among its constants.
fn with_constants(constants: &[u8]) -> Elf {
    let mut elf = Elf::hvt();
    elf.programs[elf::RODATA].content[0x400..0x400 + constants.len()].copy_from_slice(constants);
    elf
}

#[test]
fn a_valid_unikernel_is_described_with_the_command_that_runs_it() {
    let report = report(&Elf::hvt());
    assert_eq!(
        (report.machine, report.refusal.as_deref()),
        (Some(Machine::Aarch64), None)
    );
    assert_eq!(report.era, Some((Era::Abi2, Recognition::Note)));
    assert_eq!(
        (report.entry, report.end, report.least_memory),
        (Some(0x100020), Some(0x107000), Some(2 << 20))
    );
    let command = [
        "tender",
        "--mem=64M",
        "--block:data=PATH",
        "--net:service=IFACE",
        "--",
        "app.hvt",
    ];
    assert_eq!(report.command_line().expect("it runs"), command);
    let text = report.to_text();
    let toml = report.to_toml().expect("UTF-8");
    for line in [
        "'tender inspect --toml': aarch64, ABI version 2 (Solo5 0.8 and later).\n",
        "/app.hvt\"\nargs = []",
        "\nmem = \"64M\"  # at least 2M\n",
        "\n[block.data]\npath = \"PATH\"",
        "\n[net.service]\ntap = \"IFACE\"",
    ] {
        assert!(toml.contains(line), "{line:?} in\n{toml}");
    }
    for line in [
        "interface     ABI version 2 (Solo5 0.8 and later), from its ABI note\n",
        "entry         0x100020\n",
        "memory        at least 2 MiB\n",
        "   1  data     BLOCK_BASIC\n",
        "   2  service  NET_BASIC\n",
        "  0x00104000               9029          0  rw-\n",
        "  tender --mem=64M --block:data=PATH --net:service=IFACE -- app.hvt\n",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
    let runs = Native::MACHINE == Machine::Aarch64;
    assert_eq!(
        text.contains("engines       kvm, process\n"),
        runs,
        "{text}"
    );
    assert_eq!(report.engines().is_empty(), !runs);
}

#[test]
fn json_has_the_same_content() {
    let document = parsed(&report(&Elf::hvt()));
    assert_eq!(
        document["abi"],
        serde_json::json!({"type": "solo5.abi", "target": "hvt", "version": 2})
    );
    assert_eq!(
        document["manifest"],
        serde_json::json!({"type": "solo5.manifest", "version": 1, "devices": [
            {"name": "data", "type": "BLOCK_BASIC"}, {"name": "service", "type": "NET_BASIC"}
        ]})
    );
    assert_eq!(document["devices"][1]["option"], "--net:service=IFACE");
    assert_eq!(document["segments"][0]["permissions"], "r-x");
    assert_eq!(document["segments"][2]["memory_size"], 0x1200);
    assert_eq!(document["refused"], serde_json::Value::Null);
}

#[test]
fn a_legacy_unikernel_has_the_evidence() {
    let report = report(&Elf::legacy(LEGACY_STRINGS));
    assert_eq!(
        report.era,
        Some((Era::Legacy, Recognition::Evidence(Evidence::Strings)))
    );
    assert_eq!(
        report.command_line().expect("it runs"),
        ["tender", "--mem=64M", "--", "app.hvt"]
    );
    assert_eq!(report.further_options(), ["--net=IFACE", "--disk=PATH"]);
    let document = parsed(&report);
    assert_eq!(document["era"]["name"], "legacy");
    assert_eq!(document["era"]["recognised_by"], "words");
    for member in ["abi", "manifest", "devices"] {
        assert!(document[member].is_null(), "{member}");
    }
    assert!(report.to_text().contains("devices       not declared"));
}

#[test]
fn known_parts_of_a_refused_file_are_described() {
    let mut other = Elf::hvt();
    other.programs[elf::ABI] = Program::note(0x6000, elf::abi(target::XEN, 2));
    let report = report(&other);
    assert_eq!(
        report.refusal.as_deref(),
        Some("Solo5 unikernel for the xen target; rebuild it for hvt")
    );
    assert_eq!(report.command_line(), None);
    let document = parsed(&report);
    assert_eq!(document["abi"]["target"], "xen");
    assert!(document["era"].is_null() && document["command_line"].is_null());
    assert_eq!(document["devices"].as_array().expect("devices").len(), 2);
    assert!(
        report
            .to_text()
            .contains("interface     xen, ABI version 2\n")
    );
}

#[test]
fn a_file_that_is_not_elf_has_no_description() {
    let report = Report::new(Path::new("x"), b"To whom it may concern".as_slice());
    assert_eq!(report.to_text(), "");
    assert!(
        report
            .refusal
            .expect("no unikernel")
            .starts_with("is a text file")
    );
}

#[test]
fn an_image_too_large_for_any_guest_is_refused() {
    let mut huge = Elf::hvt();
    huge.programs[elf::BSS].memsz = (1 << 32) - 0x104000;
    let report = report(&huge);
    assert!(
        report
            .refusal
            .as_deref()
            .expect("too large")
            .contains("needs 4098 MiB of memory")
    );
    assert_eq!(report.command_line(), None);
}

#[test]
fn there_is_memory_for_a_heap_in_the_command() {
    let cases = [
        (2, 64),
        (32, 64),
        (34, 96),
        (64, 96),
        (4094, 4096),
        (4096, 4096),
    ];
    for (least, suggested) in cases {
        assert_eq!(
            suggested_memory(least << 20),
            suggested << 20,
            "{least} MiB"
        );
    }
}

#[test]
fn arguments_are_quoted_for_a_shell() {
    let line = |file: &str| {
        let report = Report::new(Path::new(file), Elf::hvt().build().as_slice());
        let text = report.to_text();
        text.lines()
            .last()
            .expect("a command")
            .split_once(" -- ")
            .expect("a file")
            .1
            .to_owned()
    };
    assert_eq!(line("/srv/app-1.0_x.hvt"), "/srv/app-1.0_x.hvt");
    assert_eq!(line("my app.hvt"), "'my app.hvt'");
    assert_eq!(line("it's;reboot"), r"'it'\''s;reboot'");
    assert_eq!(line("a\n\x1b[2J\u{85}"), r"$'a\012\033[2J\302\205'");
    assert_eq!(line("it's\t1\\2 \u{e9}"), "$'it\\'s\\0111\\\\2 \u{e9}'");
}

#[test]
fn names_that_no_option_can_contain_use_the_short_form() {
    let mut elf = Elf::hvt();
    let entries = [
        Entry::declare("my-net", NET_BASIC),
        Entry::declare("größe\n", BLOCK_BASIC),
    ];
    elf.programs[elf::MFT] = Program::note(0x6000, elf::mft(&manifest(&entries)));
    let report = report(&elf);
    let command = [
        "tender",
        "--mem=64M",
        "--net=IFACE",
        "--block=PATH",
        "--",
        "app.hvt",
    ];
    assert_eq!(report.command_line().expect("it runs"), command);
    assert_eq!(parsed(&report)["devices"][1]["name"], r"größe\n");
    let toml = report.to_toml().expect("UTF-8");
    assert!(
        toml.ends_with("2M\nnet = \"IFACE\"\nblock = \"PATH\"\n"),
        "{toml}"
    );
}

#[test]
fn a_configuration_with_odd_device_names_is_toml() {
    let toml = |entries: &[Entry]| {
        let mut elf = Elf::hvt();
        elf.programs[elf::MFT] = Program::note(0x6000, elf::mft(&manifest(entries)));
        let toml = report(&elf).to_toml().expect("UTF-8");
        assert!(DeTable::parse(&toml).is_ok(), "{toml}");
        toml
    };
    let hostile = "../../../dev/sda";
    let comment =
        "_BASIC: a device has a name that no option can contain, so these cannot be attached\n";
    let text = toml(&[
        Entry::declare("my-net", NET_BASIC),
        Entry::declare("data", BLOCK_BASIC),
        Entry::declare(hostile, BLOCK_BASIC),
        Entry::declare("lan", NET_BASIC),
    ]);
    let start = format!("\n# NET{comment}# BLOCK{comment}\n[block.data]\npath = \"PATH1\"");
    assert!(text.contains(&start), "{text}");
    assert!(text.contains("\n[net.lan]\ntap = \"IFACE2\""), "{text}");
    assert!(!text.contains(hostile), "{text}");
    let text = toml(&[
        Entry::declare("a-b", NET_BASIC),
        Entry::declare("a.b", NET_BASIC),
        Entry::declare(hostile, BLOCK_BASIC),
    ]);
    let end = format!("2M\n# NET{comment}block = \"PATH\"\n");
    assert!(text.ends_with(&end), "{text}");
}

#[test]
fn annotations_contain_no_hostile_device_name() {
    let oci = |name: &str, kind| {
        let mut elf = Elf::hvt();
        let entries = [
            Entry::declare("data", BLOCK_BASIC),
            Entry::declare(name, kind),
        ];
        elf.programs[elf::MFT] = Program::note(0x6000, elf::mft(&manifest(&entries)));
        report(&elf).to_oci()
    };
    assert!(oci("x", BLOCK_BASIC).is_ok());
    for kind in [NET_BASIC, BLOCK_BASIC] {
        for name in ["../x", "my-net"] {
            assert_eq!(oci(name, kind), Err(FormError::Name(name.to_owned())));
        }
    }
}

#[test]
fn a_path_that_is_not_utf_8_has_no_other_form() {
    let path = Path::new(OsStr::from_bytes(b"/srv/\xff/\xfe.hvt"));
    let report = Report::new(path, Elf::hvt().build().as_slice());
    assert_eq!(report.to_toml(), Err(FormError::Path("TOML")));
    assert_eq!(report.to_oci(), Err(FormError::Path("JSON")));
    // Annotations have only the file's name.
    let path = Path::new(OsStr::from_bytes(b"/srv/\xff/app.hvt"));
    let report = Report::new(path, Elf::hvt().build().as_slice());
    assert_eq!(report.to_toml(), Err(FormError::Path("TOML")));
    assert!(report.to_oci().is_ok());
}

#[test]
fn the_version_of_the_bindings_is_near_their_strings() {
    let version = |constants: &[u8]| report(&with_constants(constants)).bindings;
    let known =
        |text: &str| version(format!("\0{text}\0Solo5: Bindings version %s\n\0").as_bytes());
    for text in ["v0.12.1", "v0.6.0", "v0.9.3-12-gabcdef0", "v0.6.5-dirty"] {
        assert_eq!(known(text).as_deref(), Some(text));
    }
    for text in [
        "0.12.1",
        "v0.12",
        "v0.12.1.4",
        "v0.12.x",
        "v0.1234.1",
        "v1.2.3",
        "v0..1",
        "v0.12.1 ",
        "v0.12.1-\x1b",
    ] {
        assert_eq!(known(text), None, "{text}");
    }
    // After the strings; without them; within another string; two that differ; the same one twice.
    assert_eq!(
        version(b"Solo5: Bindings version %s\n\0v0.7.5\0").as_deref(),
        Some("v0.7.5")
    );
    assert_eq!(version(b"\0v0.7.5\0"), None);
    assert_eq!(version(b"libv0.7.5\0Solo5: Bindings version %s\n\0"), None);
    assert_eq!(
        version(b"\0v0.7.5\0v0.16.0\0Solo5: Bindings version %s\n\0"),
        None
    );
    assert_eq!(
        version(b"\0v0.7.5\0v0.7.5\0Solo5: Bindings version %s\n\0").as_deref(),
        Some("v0.7.5")
    );
}

#[test]
fn a_version_far_from_the_strings_is_ignored() {
    let version = |distance: usize| {
        let banner = b"Solo5: Bindings version %s\n\0";
        let constants = [
            LEGACY_STRINGS,
            banner,
            &vec![0; distance],
            b"v0.16.0\0".as_slice(),
        ]
        .concat();
        report(&Elf::legacy(&constants)).bindings
    };
    assert_eq!(version(100).as_deref(), Some("v0.16.0"));
    assert_eq!(version(5000), None);
}

#[test]
fn json_is_formatted_for_reading() {
    let leaf = Value::Object(vec![("a", 1.into()), ("b", Value::Null)]);
    let list: Value = vec!["x", "y"].into();
    let value = Value::Object(vec![
        ("leaf", leaf),
        ("list", list),
        ("none", Vec::<u64>::new().into()),
    ]);
    let nested = Value::Object(vec![("deep", vec![value].into())]);
    assert_eq!(
        nested.to_string(),
        "{\n  \"deep\": [\n    {\n      \"leaf\": {\"a\": 1, \"b\": null},\n      \"list\": [\"x\", \"y\"],\n      \
         \"none\": []\n    }\n  ]\n}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_text_survives_json(text: String) {
        let written = Value::from(text.as_str()).to_string();
        prop_assert!(!written.chars().any(char::is_control));
        prop_assert_eq!(serde_json::from_str::<String>(&written).expect("JSON"), text);
    }

    #[test]
    fn no_file_makes_it_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        old: bool,
    ) {
        let mut file = if old { Elf::legacy(LEGACY_STRINGS) } else { Elf::hvt() }.build();
        for (index, byte) in changes {
            // Three of four offsets are among the headers and notes.
            let reach = if index.index(4) == 0 { file.len() } else { 64 + 11 * 56 };
            file[index.index(reach)] = byte;
        }
        let report = Report::new(Path::new("app.hvt"), file.as_slice());
        let document = parsed(&report);
        prop_assert_eq!(document["refused"].is_null(), report.refusal.is_none());
        prop_assert_eq!(report.command_line().is_some(), report.refusal.is_none());
        let text = report.to_text();
        prop_assert!(!text.replace('\n', "").chars().any(char::is_control));
        let (toml, oci) = (report.to_toml().expect("UTF-8"), report.to_oci());
        prop_assert_eq!(toml.is_empty(), report.refusal.is_some());
        prop_assert!(DeTable::parse(&toml).is_ok(), "{}", toml);
        prop_assert!(!toml.replace('\n', "").chars().any(char::is_control));
        if let Ok(oci) = oci {
            prop_assert_eq!(oci.is_empty(), report.refusal.is_some());
            prop_assert!(oci.is_empty() || serde_json::from_str::<serde_json::Value>(&oci).is_ok());
        }
    }
}
