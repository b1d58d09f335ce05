//! Properties of command lines of any arguments, and of memory of any size.

use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;

use std::path::PathBuf;

use super::*;
use crate::config::{BlockOption, BlockSource, Memory, NetSource};
use crate::report::message::Message;

/// An argument that is not an option.
fn plain_argument() -> impl Strategy<Value = OsString> {
    proptest::collection::vec(any::<u8>(), 1..20)
        .prop_map(OsString::from_vec)
        .prop_filter("option", |word| word.as_bytes()[0] != b'-')
}

/// Any argument, often one that looks like an option.
fn any_argument() -> impl Strategy<Value = OsString> {
    let looks = "-{0,3}(net|net-mac|block|block-sector-size|disk|mem|help|v|q|V)?:{0,2}[a-z0-9]{0,3}=?[^ ]{0,6}";
    prop_oneof![
        looks.prop_map(OsString::from),
        plain_argument(),
        Just(OsString::new())
    ]
}

fn device_name() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[A-Za-z0-9]{1,67}")
}

fn option(name: &str, device: Option<&str>, value: &OsStr, joined: bool) -> Vec<OsString> {
    let colon = device
        .map(|device| format!(":{device}"))
        .unwrap_or_default();
    let mut word = OsString::from(format!("--{name}{colon}"));
    if joined {
        word.push("=");
        word.push(value);
        return vec![word];
    }
    vec![word, value.to_owned()]
}

proptest! {
    #[test]
    fn no_arguments_make_it_panic(args in proptest::collection::vec(any_argument(), 0..8)) {
        if let Err(error) = parse(args) {
            let message = Message::of(&error).to_string();
            prop_assert!(!message.is_empty() && !message.contains(char::is_control), "{message}");
        }
    }

    #[test]
    fn guest_arguments_arrive_unchanged(
        unikernel in plain_argument(),
        args in proptest::collection::vec(any_argument(), 0..8),
        dashes: bool,
    ) {
        let start = if dashes { vec!["tender", "-v", "--"] } else { vec!["tender", "-v"] };
        let line = start.into_iter().map(OsString::from).chain([unikernel.clone()]).chain(args.clone());
        let Ok(Command::Run(config)) = parse(line) else { panic!() };
        prop_assert_eq!(config.unikernel, PathBuf::from(unikernel));
        prop_assert_eq!(config.arguments, args);
    }

    #[test]
    fn rendered_options_are_read_back(
        device in device_name(),
        interface in "[a-z][a-z0-9.-]{0,14}",
        tail: [u8; 5],
        path in plain_argument().prop_filter("descriptor", |path| path.as_bytes()[0] != b'@'),
        sector in 9u32..16,
        joined: bool,
    ) {
        let device = device.as_deref();
        let mac = [2, tail[0], tail[1], tail[2], tail[3], tail[4]];
        let pairs = mac.map(|byte| format!("{byte:02x}")).join(":");
        let sector_size = 1u16 << sector;
        let line = [
            vec![OsString::from("tender")],
            option("net-mac", device, pairs.as_ref(), joined),
            option("block-sector-size", device, sector_size.to_string().as_ref(), !joined),
            option("block", device, &path, joined),
            option("net", device, interface.as_ref(), !joined),
            vec!["app".into()],
        ];
        let Ok(Command::Run(config)) = parse(line.concat()) else { panic!() };
        prop_assert_eq!(config.nets, [net(device, Some(NetSource::Interface(interface)), Some(mac))]);
        let expected = BlockOption {
            name: device.map(String::from),
            option: "block",
            source: Some(BlockSource::Path(path.into())),
            sector_size: Some(sector_size),
            in_file: None,
        };
        prop_assert_eq!(config.blocks, [expected]);
    }

    #[test]
    fn memory_is_rounded_down_to_its_step(count: u64, unit in prop::sample::select(vec!["K", "", "MiB", "g"])) {
        let shift = match unit { "K" => 10, "g" => 30, _ => 20 };
        let bytes = u128::from(count) << shift;
        let fits = (u128::from(Memory::STEP)..=u128::from(Memory::MAX)).contains(&bytes);
        match command(&[&format!("--mem={count}{unit}"), "app"]) {
            Ok(Command::Run(config)) => {
                prop_assert!(fits);
                prop_assert_eq!(u128::from(config.memory.asked), bytes);
                prop_assert_eq!(config.memory.given % Memory::STEP, 0);
                prop_assert!(config.memory.asked - config.memory.given < Memory::STEP);
            }
            _ => prop_assert!(!fits),
        }
    }
}

/// Every size of whole KiB that a guest can have; computed in 128 bits, the size is the same.
#[test]
fn every_size_of_memory_is_rounded_down_by_less_than_a_step() {
    for asked in (Memory::STEP..=Memory::MAX).step_by(1024) {
        let Memory { asked: kept, given } = Memory::of(asked);
        assert!(
            kept == asked
                && given % Memory::STEP == 0
                && given <= asked
                && asked - given < Memory::STEP
        );
    }
}

/// Compares with the same calculation in 128 bits, where nothing overflows, for every unit and for
/// the numbers at and around every power of two.
#[test]
fn no_size_of_memory_overflows() {
    let units = [("", 20), ("K", 10), ("MiB", 20), ("g", 30)];
    let numbers = (0..=65).flat_map(|power| (0..3).map(move |by| (1_u128 << power) - 1 + by));
    for (count, (unit, shift)) in numbers.flat_map(|count| units.map(|unit| (count, unit))) {
        let mem = options::named(b"mem").unwrap();
        let given = mem.given(None, format!("{count}{unit}"));
        let bytes = u64::try_from(count << shift).ok();
        let expected = bytes.filter(|bytes| (Memory::STEP..=Memory::MAX).contains(bytes));
        let parsed = value::memory(&given).ok();
        assert_eq!(parsed, expected.map(Memory::of), "{count}{unit}");
    }
}
