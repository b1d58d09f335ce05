//! Which option belongs to which device, and plans that are refused.

use std::ffi::OsString;

use super::*;
use crate::config::{BlockOption, BlockSource, NetOption, NetSource};
use crate::guest::manifest::{Device, Kind};
use crate::report::message::Message;

fn refused(manifest: &Manifest, nets: &[NetOption], blocks: &[BlockOption]) -> Error {
    Plan::new(manifest, nets, blocks).expect_err("no plan")
}

fn image(path: &str) -> BlockSource {
    BlockSource::Path(path.into())
}

fn mac(name: impl Into<Option<&'static str>>, last: u8) -> NetOption {
    let mac = Some([2, 0, 0, 0, 0, last]);
    NetOption {
        name: name.into().map(String::from),
        mac,
        ..NetOption::default()
    }
}

fn sector_size(name: impl Into<Option<&'static str>>, sector_size: u16) -> BlockOption {
    let sector_size = Some(sector_size);
    BlockOption {
        name: name.into().map(String::from),
        sector_size,
        ..BlockOption::default()
    }
}

#[test]
fn a_unikernel_without_devices_needs_none() {
    let plan = Plan::new(&manifest(&[], &[]), &[], &[]).expect("a plan");
    assert!(plan.nets.is_empty() && plan.blocks.is_empty());
}

#[test]
fn options_find_their_devices_by_name() {
    let manifest = manifest(&["lan", "wan"], &["boot", "data"]);
    let nets = [
        net("wan", NetSource::Fd(7.into())),
        mac("lan", 9),
        net("lan", tap("tap0")),
    ];
    let blocks = [
        sector_size("data", 4096),
        block("data", "b.img"),
        block("boot", "a.img"),
    ];
    let plan = Plan::new(&manifest, &nets, &blocks).expect("a plan");
    let nets: Vec<_> = plan
        .nets
        .iter()
        .map(|net| (net.handle, net.name.as_str(), &net.source, net.mac))
        .collect();
    assert_eq!(
        nets,
        [
            (1, "lan", &tap("tap0"), Some([2, 0, 0, 0, 0, 9])),
            (2, "wan", &NetSource::Fd(7.into()), None)
        ]
    );
    let blocks: Vec<_> = plan
        .blocks
        .iter()
        .map(|block| {
            (
                block.handle,
                block.name.as_str(),
                &block.source,
                block.sector_size,
            )
        })
        .collect();
    assert_eq!(
        blocks,
        [
            (3, "boot", &image("a.img"), None),
            (4, "data", &image("b.img"), Some(4096))
        ]
    );
}

#[test]
fn the_short_forms_mean_the_only_device_of_their_kind() {
    let manifest = manifest(&["service"], &["data"]);
    let plan = Plan::new(
        &manifest,
        &[NetOption {
            mac: Some([2; 6]),
            ..net(None, tap("tap0"))
        }],
        &[BlockOption {
            sector_size: Some(512),
            ..block(None, "a.img")
        }],
    )
    .expect("a plan");
    assert_eq!(
        (plan.nets[0].handle, &plan.nets[0].source, plan.nets[0].mac),
        (1, &tap("tap0"), Some([2; 6]))
    );
    assert_eq!(
        (plan.blocks[0].handle, plan.blocks[0].sector_size),
        (2, Some(512))
    );
}

#[test]
fn short_and_long_forms_for_one_device_are_merged() {
    let manifest = manifest(&["service"], &["data"]);
    for (nets, blocks) in [
        (
            [net(None, tap("tap0")), mac("service", 1)],
            [block("data", "a.img"), sector_size(None, 1024)],
        ),
        (
            [mac(None, 1), net("service", tap("tap0"))],
            [sector_size("data", 1024), block(None, "a.img")],
        ),
    ] {
        let plan = Plan::new(&manifest, &nets, &blocks).expect("a plan");
        assert_eq!(
            (&plan.nets[0].source, plan.nets[0].mac),
            (&tap("tap0"), Some([2, 0, 0, 0, 0, 1]))
        );
        assert_eq!(
            (&plan.blocks[0].source, plan.blocks[0].sector_size),
            (&image("a.img"), Some(1024))
        );
    }
}

#[test]
fn a_short_form_is_ambiguous_unless_there_is_one_device() {
    let two = manifest(&["lan", "wan"], &["data"]);
    let error = refused(&two, &[net(None, tap("tap0"))], &[]);
    assert!(
        matches!(error, Error::Ambiguous { option: "net", .. }),
        "{error:?}"
    );
    assert_eq!(
        Message::of(&error).to_string(),
        "--net= needs a device name: this unikernel declares \
         lan (NET_BASIC), wan (NET_BASIC), data (BLOCK_BASIC); write --net:NAME= or omit it"
    );
    let none = manifest(&["lan"], &[]);
    let error = refused(&none, &[net("lan", tap("tap0"))], &[block(None, "a.img")]);
    assert!(
        matches!(
            error,
            Error::NoneOfKind {
                option: "block",
                ..
            }
        ),
        "{error:?}"
    );
    let disk = BlockOption {
        option: "disk",
        ..block(None, "a.img")
    };
    let disks = manifest(&[], &["a", "b"]);
    let error = Message::from(refused(&disks, &[], &[disk])).to_string();
    assert!(
        error.starts_with("--disk= needs a device name: ")
            && error.contains("write --block:NAME= or "),
        "{error}"
    );
    let nothing =
        Message::from(refused(&manifest(&[], &[]), &[net(None, tap("tap0"))], &[])).to_string();
    assert!(nothing.contains("declares no devices; "), "{nothing}");
}

#[test]
fn an_option_for_a_device_that_is_not_declared_is_refused() {
    let manifest = manifest(&["service"], &["data"]);
    let error = refused(&manifest, &[net("servcie", tap("tap0"))], &[]);
    assert_eq!(
        Message::of(&error).to_string(),
        "there is no NET_BASIC device 'servcie' in this unikernel; it declares service (NET_BASIC), data (BLOCK_BASIC)"
    );
    // The right name of the wrong kind, and options that attach nothing.
    for (nets, blocks) in [
        (vec![net("data", tap("tap0"))], vec![]),
        (vec![], vec![block("service", "a.img")]),
        (vec![mac("x", 1)], vec![]),
        (vec![], vec![sector_size("x", 512)]),
    ] {
        let error = refused(&manifest, &nets, &blocks);
        assert!(
            matches!(error, Error::Unknown { .. }),
            "{nets:?}, {blocks:?}: {error:?}"
        );
    }
}

#[test]
fn names_of_different_kinds_are_different_devices() {
    let manifest = manifest(&["main"], &["main"]);
    let plan = Plan::new(
        &manifest,
        &[net("main", tap("tap0"))],
        &[block("main", "a.img")],
    )
    .expect("a plan");
    assert_eq!((plan.nets[0].handle, plan.blocks[0].handle), (1, 2));
}

#[test]
fn a_device_is_given_once() {
    let manifest = manifest(&["service"], &["data"]);
    let (nets, blocks) = (net(None, tap("tap0")), block(None, "a.img"));
    let twice = |nets: &[NetOption], blocks: &[BlockOption]| match refused(&manifest, nets, blocks)
    {
        Error::Twice { kind, name } => (kind, name),
        other => panic!("{other:?}"),
    };
    let service = (Kind::Net, "service".to_owned());
    let data = (Kind::Block, "data".to_owned());
    assert_eq!(
        twice(&[nets.clone(), net("service", tap("tap1"))], &[]),
        service
    );
    assert_eq!(
        twice(&[nets.clone(), net("service", tap("tap0"))], &[]),
        service
    );
    assert_eq!(
        twice(&[nets.clone(), mac(None, 1), mac("service", 1)], &[]),
        service
    );
    assert_eq!(twice(&[], &[blocks.clone(), block("data", "b.img")]), data);
    assert_eq!(
        twice(
            &[],
            &[blocks, sector_size("data", 512), sector_size(None, 512)]
        ),
        data
    );
    assert_eq!(
        Message::from(refused(
            &manifest,
            &[nets, net("service", tap("tap1"))],
            &[]
        ))
        .to_string(),
        "device 'service' (NET_BASIC) is given twice"
    );
}

#[test]
fn every_declared_device_is_attached() {
    let manifest = manifest(&["service"], &["data"]);
    let without_net = refused(&manifest, &[], &[block("data", "a.img")]);
    assert!(
        matches!(&without_net, Error::NotAttached(Device { handle: 1, .. })),
        "{without_net:?}"
    );
    assert_eq!(
        Message::of(&without_net).to_string(),
        "device 'service' (NET_BASIC) is declared but not attached; add --net:service=IFACE"
    );
    let without_block = refused(&manifest, &[net("service", tap("tap0"))], &[]);
    assert!(
        matches!(&without_block, Error::NotAttached(Device { handle: 2, .. })),
        "{without_block:?}"
    );
    assert_eq!(
        Message::of(&without_block).to_string(),
        "device 'data' (BLOCK_BASIC) is declared but not attached; add --block:data=PATH"
    );
}

#[test]
fn options_that_went_to_the_guest_are_named() {
    let manifest = manifest(&["service"], &[]);
    let message = |arguments: &[&str]| {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let error = refused(&manifest, &[], &[]);
        Message::from(error.with_misplaced(&arguments)).to_string()
    };
    let not_attached = "device 'service' (NET_BASIC) is declared but not attached; ";
    assert_eq!(
        message(&["--mem", "64", "--net:service=tap0", "--net=tap1"]),
        format!(
            "{not_attached}put --net and --mem before the unikernel: arguments after it go to the guest"
        )
    );
    for argument in ["--network=1", "--net-mac=1", "net", "--ipv4=--net"] {
        let message = message(&[argument]);
        assert_eq!(message, format!("{not_attached}add --net:service=IFACE"));
    }
}

#[test]
fn an_address_or_a_sector_size_attaches_nothing() {
    let error = refused(&manifest(&["service"], &[]), &[mac(None, 1)], &[]);
    assert!(
        matches!(&error, Error::NotAttached(device) if device.name == "service"),
        "{error:?}"
    );
    let error = refused(&manifest(&[], &["data"]), &[], &[sector_size("data", 512)]);
    assert!(
        matches!(&error, Error::NotAttached(device) if device.name == "data"),
        "{error:?}"
    );
}

#[test]
fn two_devices_do_not_share_a_source() {
    let manifest = manifest(&["lan", "dmz", "wan"], &[]);
    let plan = |sources: [NetSource; 3]| {
        let [lan, dmz, wan] = sources;
        Plan::new(
            &manifest,
            &[net("wan", wan), net("lan", lan), net("dmz", dmz)],
            &[],
        )
    };
    for same in [tap("tap0"), NetSource::Fd(3.into())] {
        let error = plan([same.clone(), tap("tap9"), same]).expect_err("a shared source");
        assert!(
            matches!(&error, Error::Shared { name } if name == "wan"),
            "{error:?}"
        );
        assert_eq!(
            Message::of(&error).to_string(),
            "device 'wan' shares its interface with another device; give each its own"
        );
    }
    assert!(
        plan([
            tap("tap0"),
            NetSource::Fd(3.into()),
            NetSource::Fd(4.into())
        ])
        .is_ok()
    );
}

#[test]
fn two_devices_cannot_have_one_image() {
    let manifest = manifest(&[], &["boot", "data"]);
    let error = refused(
        &manifest,
        &[],
        &[block("data", "a.img"), block("boot", "a.img")],
    );
    assert_eq!(
        Message::of(&error).to_string(),
        "device 'data': 'a.img' is given to two block devices; give each its own image"
    );
}

#[test]
fn options_of_a_configuration_file_are_fallbacks() {
    use std::slice::from_ref;
    let manifest = manifest(&["service"], &["data"]);
    let file_net = NetOption {
        in_file: Some("app.toml:2:6".into()),
        mac: Some([2; 6]),
        ..net("service", tap("tap9"))
    };
    let file_block = BlockOption {
        in_file: Some("app.toml:2:6".into()),
        sector_size: Some(4096),
        ..block("data", "b.img")
    };
    for name in [None, Some("service")] {
        let plan = Plan::new(
            &manifest,
            &[net(name, tap("tap0")), file_net.clone()],
            from_ref(&file_block),
        );
        let plan = plan.expect("a plan");
        assert_eq!(
            (&plan.nets[0].source, plan.nets[0].mac),
            (&tap("tap0"), Some([2; 6])),
            "{name:?}"
        );
    }
    for name in [None, Some("data")] {
        let plan = Plan::new(
            &manifest,
            from_ref(&file_net),
            &[block(name, "a.img"), file_block.clone()],
        );
        let plan = plan.expect("a plan");
        assert_eq!(
            (&plan.blocks[0].source, plan.blocks[0].sector_size),
            (&image("a.img"), Some(4096))
        );
    }
    // In one place it is still an error to set a property of a device twice.
    let short = NetOption {
        name: None,
        ..file_net.clone()
    };
    let error = Plan::new(&manifest, &[file_net, short], &[file_block]).expect_err("twice");
    assert!(
        matches!(&error, Error::InFile { error, .. }
            if matches!(&**error, Error::Twice { name, .. } if name == "service")),
        "{error:?}"
    );
}

#[test]
fn a_sketch_has_every_error() {
    let manifest = manifest(&["lan", "wan", "dmz"], &["data"]);
    let nets = [
        net("lna", tap("tap0")),
        net("lan", tap("tap1")),
        net("dmz", tap("tap1")),
    ];
    let (plan, errors) = Plan::partial(&manifest, &nets, &[sector_size("data", 512)]);
    assert_eq!(
        plan.nets
            .iter()
            .map(|net| net.name.as_str())
            .collect::<Vec<_>>(),
        ["lan"]
    );
    assert!(plan.blocks.is_empty());
    let [
        Error::Unknown { name, .. },
        Error::NotAttached(wan),
        Error::NotAttached(data),
        Error::Shared { name: shared },
    ] = &errors[..]
    else {
        panic!("{errors:?}")
    };
    assert_eq!(
        [name, &wan.name, &data.name, shared],
        ["lna", "wan", "data", "dmz"]
    );
}

#[test]
fn an_error_of_a_configuration_file_has_its_place() {
    let manifest = manifest(&["service"], &[]);
    let in_file = |name: Option<&'static str>| NetOption {
        in_file: Some("app.toml:2:6".into()),
        ..net(name, tap("tap0"))
    };
    let message = |nets: &[NetOption]| Message::from(refused(&manifest, nets, &[])).to_string();
    assert_eq!(
        message(&[in_file(Some("servic"))]),
        "app.toml:2:6: there is no NET_BASIC device 'servic' in this unikernel; it declares service (NET_BASIC)"
    );
    assert_eq!(
        message(&[in_file(Some("service")), in_file(None)]),
        "app.toml:2:6: device 'service' (NET_BASIC) is given twice"
    );
    assert!(message(&[net("servic", tap("tap0"))]).starts_with("there is no "));
}

#[test]
fn an_option_for_no_device_is_omitted() {
    let message = |nets: &[NetOption], blocks: &[BlockOption], manifest| {
        Message::from(refused(&manifest, nets, blocks)).to_string()
    };
    let net = NetOption {
        option: "net",
        ..net(None, tap("tap0"))
    };
    assert_eq!(
        message(std::slice::from_ref(&net), &[], manifest(&[], &[])),
        "--net= needs a NET_BASIC device, but this unikernel declares no devices; omit it"
    );
    assert_eq!(
        message(&[net], &[], manifest(&[], &["data"])),
        "--net= needs a NET_BASIC device, but this unikernel declares data (BLOCK_BASIC); omit it"
    );
}
