//! One test per rule, on manifests made from bytes.

use proptest::prelude::*;

use super::*;
use crate::report::message::Message;
use guest_abi::manifest::NAME_SIZE;

/// The content of a manifest note that declares `devices`, after the reserved entry.
pub(crate) fn manifest(devices: &[Entry]) -> Vec<u8> {
    raw(
        VERSION,
        devices.len() as u32 + 1,
        &[&[Entry::reserved()], devices].concat(),
    )
}

fn raw(version: u32, count: u32, entries: &[Entry]) -> Vec<u8> {
    [
        Header {
            version,
            entries: count,
        }
        .as_bytes(),
        entries.as_bytes(),
    ]
    .concat()
}

fn parse(devices: &[Entry]) -> Result<Manifest, Error> {
    Manifest::parse(&manifest(devices))
}

fn net(name: &str) -> Entry {
    Entry::declare(name, NET_BASIC)
}

fn block(name: &str) -> Entry {
    Entry::declare(name, BLOCK_BASIC)
}

fn refused(content: &[u8]) -> Error {
    Manifest::parse(content).expect_err("a broken manifest")
}

/// Returns the error of a manifest whose first device is `net0` after `change`.
fn changed(change: impl FnOnce(&mut Entry)) -> Error {
    let mut entry = net("net0");
    change(&mut entry);
    parse(&[entry]).expect_err("a broken entry")
}

#[test]
fn a_manifest_lists_its_devices_with_their_handles() {
    let manifest = parse(&[net("service"), block("data")]).unwrap();
    let device = |handle, kind, name: &str| Device {
        handle,
        kind,
        name: name.into(),
    };
    assert_eq!(
        manifest.devices(),
        [
            device(1, Kind::Net, "service"),
            device(2, Kind::Block, "data")
        ]
    );
}

#[test]
fn a_manifest_may_declare_nothing() {
    assert!(parse(&[]).unwrap().devices().is_empty());
}

#[test]
fn a_manifest_has_a_header() {
    let whole = manifest(&[]);
    for size in 0..8 {
        assert_eq!(refused(&whole[..size]), Error::Short { size });
    }
    assert_eq!(
        Message::from(refused(&[])).to_string(),
        "the manifest has 0 bytes; its header alone needs 8"
    );
}

#[test]
fn a_manifest_has_version_1() {
    for version in [0, 2, u32::MAX] {
        assert_eq!(
            refused(&raw(version, 1, &[Entry::reserved()])),
            Error::Version(version)
        );
    }
}

#[test]
fn a_manifest_has_1_to_64_entries() {
    assert_eq!(refused(&raw(1, 0, &[])), Error::Count(0));
    assert_eq!(
        refused(&raw(1, 65, &[Entry::reserved(); 65])),
        Error::Count(65)
    );
    assert_eq!(refused(&raw(1, u32::MAX, &[])), Error::Count(u32::MAX));
    let devices: Vec<Entry> = (1..64).map(|number| net(&format!("net{number}"))).collect();
    let full = parse(&devices).unwrap();
    assert_eq!(full.devices().len(), 63);
    assert!(
        full.devices()
            .iter()
            .enumerate()
            .all(|(index, device)| device.handle == index + 1)
    );
}

#[test]
fn a_manifest_is_as_long_as_its_entries() {
    let content = manifest(&[net("net0")]);
    for size in [8, 9, 8 + 104, content.len() - 1] {
        assert_eq!(
            refused(&content[..size]),
            Error::Size {
                size,
                entries: 2,
                needed: 216
            }
        );
    }
    let longer = [content.as_slice(), &[0]].concat();
    assert_eq!(
        refused(&longer),
        Error::Size {
            size: 217,
            entries: 2,
            needed: 216
        }
    );
    assert_eq!(
        Message::from(refused(&longer)).to_string(),
        "the manifest has 217 bytes; with its number of entries, 2, it needs exactly 216"
    );
}

#[test]
fn entry_0_is_the_reserved_one() {
    for kind in [
        0,
        BLOCK_BASIC,
        NET_BASIC,
        RESERVED_FIRST - 1,
        RESERVED_FIRST + 1,
    ] {
        assert_eq!(
            refused(&raw(1, 1, &[Entry::declare("", kind)])),
            Error::First,
            "{kind:#x}"
        );
    }
    assert_eq!(
        refused(&raw(1, 1, &[Entry::declare("x", RESERVED_FIRST)])),
        Error::First
    );
}

#[test]
fn a_name_ends_within_its_68_bytes() {
    assert_eq!(
        changed(|entry| entry.name = [b'x'; NAME_SIZE]),
        Error::Name(1)
    );
    // Its last byte is a NUL even if the name ends before.
    assert_eq!(
        changed(|entry| entry.name[NAME_SIZE - 1] = b'x'),
        Error::Name(1)
    );
    let mut reserved = Entry::reserved();
    reserved.name[NAME_SIZE - 1] = 1;
    assert_eq!(refused(&raw(1, 1, &[reserved])), Error::Name(0));
    let longest = "x".repeat(67);
    assert_eq!(parse(&[net(&longest)]).unwrap().devices()[0].name, longest);
}

#[test]
fn bytes_after_the_end_of_a_name_do_not_matter() {
    let mut entry = net("net0");
    entry.name[5..67].fill(b'z');
    assert_eq!(parse(&[entry]).unwrap().devices()[0].name, "net0");
}

#[test]
fn a_name_cannot_write_on_the_operators_terminal() {
    let name = |entry| parse(&[entry]).unwrap().devices()[0].name.clone();
    assert_eq!(name(net("a\n\x1b[2Jb")), r"a\n\u{1b}[2Jb");
    let mut foreign = net("");
    foreign.name[..3].copy_from_slice(b"a\xffb");
    assert_eq!(name(foreign), "a\u{fffd}b");
    assert_eq!(name(net("größe-0.1")), "größe-0.1");
}

#[test]
fn nothing_is_attached_in_the_file() {
    for attached in [1, 2, 0x80, 0xff] {
        assert_eq!(
            changed(|entry| entry.attached = attached),
            Error::Attached(1)
        );
    }
    let attached = Entry {
        attached: 1,
        ..Entry::reserved()
    };
    assert_eq!(refused(&raw(1, 1, &[attached])), Error::Attached(0));
    assert_eq!(
        refused(&raw(1, 2, &[Entry::reserved(), attached])),
        Error::Attached(1)
    );
}

#[test]
fn devices_are_of_a_known_type() {
    for kind in [0, 3, 0x3fff_ffff] {
        assert_eq!(
            changed(|entry| entry.kind = kind),
            Error::Kind {
                index: 1,
                name: "net0".into(),
                kind
            }
        );
    }
    assert_eq!(
        Message::from(changed(|entry| entry.kind = 3)).to_string(),
        "manifest entry 1 ('net0') has unknown device type 3; known are 1 (block) and 2 (network)"
    );
}

#[test]
fn entries_of_reserved_types_are_no_devices() {
    let reserved = |kind| Entry::declare("later", kind);
    let manifest = parse(&[reserved(RESERVED_FIRST), net("net0"), reserved(u32::MAX)]).unwrap();
    assert_eq!(
        manifest.devices(),
        [Device {
            handle: 2,
            kind: Kind::Net,
            name: "net0".into()
        }]
    );
}

#[test]
fn two_devices_of_a_type_have_two_names() {
    let error = parse(&[net("a"), block("a"), net("b"), net("a")]).unwrap_err();
    assert_eq!(
        error,
        Error::Duplicate {
            kind: Kind::Net,
            name: "a".into()
        }
    );
    assert_eq!(
        Message::of(&error).to_string(),
        "the manifest declares two NET_BASIC devices named 'a'"
    );
    assert_eq!(parse(&[net("a"), block("a")]).unwrap().devices().len(), 2);
}

#[test]
fn a_manifest_of_attached_devices_needs_no_declaration() {
    let kinds = |net, block| {
        let devices = Manifest::unnamed(net, block).devices().to_vec();
        devices
            .iter()
            .map(|device| (device.handle, device.kind))
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds(false, false), []);
    assert_eq!(kinds(true, false), [(LEGACY_NET, Kind::Net)]);
    assert_eq!(kinds(false, true), [(LEGACY_BLOCK, Kind::Block)]);
    assert_eq!(
        kinds(true, true),
        [(LEGACY_NET, Kind::Net), (LEGACY_BLOCK, Kind::Block)]
    );
    // Its handles work like those of a file.
    let attached = [
        (LEGACY_NET, Properties::net([2; 6], 1500)),
        (LEGACY_BLOCK, Properties::block(512, 512)),
    ];
    let manifest = Manifest::unnamed(true, true);
    assert_eq!(manifest.to_bytes(attached).len(), 8 + 3 * 104);
}

#[test]
fn a_device_names_the_option_that_attaches_it() {
    let options = |manifest: &Manifest| {
        manifest
            .devices()
            .iter()
            .map(Device::option)
            .collect::<Vec<_>>()
    };
    let named = parse(&[
        net("service"),
        block("data"),
        net("with-dash"),
        block(""),
        net("a\n"),
    ])
    .unwrap();
    assert_eq!(
        options(&named),
        [
            "--net:service=IFACE",
            "--block:data=PATH",
            // No option can contain these names; the short form means the only device.
            "--net=IFACE",
            "--block=PATH",
            "--net=IFACE",
        ]
    );
    assert_eq!(
        options(&Manifest::unnamed(true, true)),
        ["--net=IFACE", "--block=PATH"]
    );
}

#[test]
fn an_attached_network_device_has_its_address_and_mtu() {
    let parsed = parse(&[block("data"), net("net0")]).unwrap();
    let properties = Properties::net([2, 3, 4, 5, 6, 7], 0x1234);
    let mut expected = manifest(&[block("data"), net("net0")]);
    let entry = 8 + 2 * 104;
    expected[entry + 72..entry + 80].copy_from_slice(&[2, 3, 4, 5, 6, 7, 0x34, 0x12]);
    expected[entry + 96] = 1;
    assert_eq!(parsed.to_bytes([(2, properties)]), expected);
}

#[test]
fn an_attached_block_device_has_its_capacity_and_block_size() {
    let parsed = parse(&[block("data"), net("net0")]).unwrap();
    let properties = Properties::block(0x0102_0304_0506_0708, 0x200);
    let mut expected = manifest(&[block("data"), net("net0")]);
    let entry = 8 + 104;
    expected[entry + 72..entry + 82].copy_from_slice(&[8, 7, 6, 5, 4, 3, 2, 1, 0, 2]);
    expected[entry + 96] = 1;
    assert_eq!(parsed.to_bytes([(1, properties)]), expected);
}

#[test]
fn properties_in_the_file_do_not_outlive_the_attachment() {
    let mut entry = net("net0");
    entry.properties = [0xff; 16];
    let parsed = parse(&[entry]).unwrap();
    let bytes = parsed.to_bytes([(1, Properties::net([0; 6], 0))]);
    assert_eq!(bytes[8 + 104 + 72..][..16], [0; 16]);
}

/// Entries as in a file: mostly valid.
fn entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![8 => 1u32..3, 1 => Just(RESERVED_FIRST), 1 => any::<u32>()];
    (
        "[a-c]{0,2}",
        kind,
        any::<[u8; 16]>(),
        proptest::bool::weighted(0.05),
    )
        .prop_map(|(name, kind, properties, attached)| Entry {
            properties,
            attached: attached.into(),
            ..Entry::declare(&name, kind)
        })
}

proptest! {
    #[test]
    fn any_bytes_make_an_error_or_a_manifest(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        prop_assert!(Manifest::parse(&bytes).is_err());
    }

    #[test]
    fn an_accepted_manifest_keeps_the_rules_and_its_bytes(entries in proptest::collection::vec(entry(), 0..5)) {
        let content = manifest(&entries);
        let Ok(parsed) = Manifest::parse(&content) else { return Ok(()) };
        prop_assert_eq!(parsed.to_bytes([]), content);
        let devices = parsed.devices();
        prop_assert_eq!(devices.len(), entries.iter().filter(|entry| entry.kind < RESERVED_FIRST).count());
        for (index, device) in devices.iter().enumerate() {
            let entry = &entries[device.handle - 1];
            prop_assert!(entry.name.starts_with(device.name.as_bytes()));
            prop_assert_eq!(entry.kind, if device.kind == Kind::Net { NET_BASIC } else { BLOCK_BASIC });
            let same = |other: &&Device| (other.kind, &other.name) == (device.kind, &device.name);
            prop_assert_eq!(devices.iter().find(same).map(|other| other.handle), Some(devices[index].handle));
        }
    }
}

/// Whatever the file has in those fields, the guest finds zeros, and no host data.
#[test]
fn the_tenders_own_fields_are_zero() {
    let filled = |entry: Entry| Entry {
        host: [0xa5; 8],
        pad: [0xa5; 7],
        ..entry
    };
    let manifest = parse(&[filled(net("service")), filled(block("data"))]).unwrap();
    let bytes = manifest.to_bytes([
        (1, Properties::net([2, 0, 0, 0, 0, 1], 1500)),
        (2, Properties::block(0x1122_3344, 512)),
    ]);
    let mut expected = [filled(net("service")), filled(block("data"))].map(|entry| Entry {
        attached: 1,
        ..entry
    });
    for entry in &mut expected {
        (entry.host, entry.pad) = ([0; 8], [0; 7]);
    }
    expected[0].properties[..8].copy_from_slice(&[2, 0, 0, 0, 0, 1, 0xdc, 5]);
    expected[1].properties[..10].copy_from_slice(&[0x44, 0x33, 0x22, 0x11, 0, 0, 0, 0, 0, 2]);
    assert_eq!(
        bytes,
        raw(VERSION, 3, &[&[Entry::reserved()], &expected[..]].concat())
    );
}
