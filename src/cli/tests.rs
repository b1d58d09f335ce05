use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use std::path::PathBuf;

use log::LevelFilter;

use super::*;
use crate::config::{
    BlockOption, BlockSource, Config, Engine, EngineChoice, HugePages, Memory, NetOption,
    NetSource, Verbosity,
};
use crate::report::message::Message;

mod debugging;
mod descriptors;
mod isolation;
mod limits;
mod output;
mod properties;

fn command(args: &[&str]) -> Result<Command, Error> {
    parse(
        std::iter::once("tender")
            .chain(args.iter().copied())
            .map(OsString::from),
    )
}

fn config(args: &[&str]) -> Config {
    match command(args) {
        Ok(Command::Run(config)) => config,
        other => panic!("{args:?}: {other:?}"),
    }
}

/// Returns the error of `args` before a unikernel.
fn error(args: &[&str]) -> String {
    match command(&[args, &["app.hvt"]].concat()) {
        Err(error) => Message::of(&error).to_string(),
        other => panic!("{args:?}: {other:?}"),
    }
}

fn net(name: Option<&str>, source: Option<NetSource>, mac: Option<[u8; 6]>) -> NetOption {
    let option = if source.is_some() { "net" } else { "net-mac" };
    NetOption {
        name: name.map(String::from),
        option,
        source,
        mac,
        in_file: None,
    }
}

fn block(name: Option<&str>, path: Option<&str>, sector_size: Option<u16>) -> BlockOption {
    let source = path.map(|path| BlockSource::Path(path.into()));
    let option = if path.is_some() {
        "block"
    } else {
        "block-sector-size"
    };
    BlockOption {
        name: name.map(String::from),
        option,
        source,
        sector_size,
        in_file: None,
    }
}

fn interface(name: &str) -> Option<NetSource> {
    Some(NetSource::Interface(name.into()))
}

#[test]
fn the_documented_command_line_is_parsed() {
    let config = config(&[
        "--net=tap100",
        "--mem=64M",
        "--",
        "presentation_server.hvt",
        "--ipv4=10.0.0.2/24",
    ]);
    assert_eq!(config.unikernel, PathBuf::from("presentation_server.hvt"));
    assert_eq!(config.arguments, ["--ipv4=10.0.0.2/24"]);
    assert_eq!(
        config.memory,
        Memory {
            asked: 64 << 20,
            given: 64 << 20
        }
    );
    assert_eq!(config.nets, [net(None, interface("tap100"), None)]);
    assert_eq!(config.blocks, []);
    assert_eq!(config.verbosity, Verbosity::Normal);
}

#[test]
fn values_follow_an_equals_sign_or_are_the_next_argument() {
    let joined = [
        "--mem=64",
        "--net:a=tap0",
        "--net-mac:a=02:00:00:00:00:01",
        "--block:d=x",
        "app",
    ];
    let apart = [
        "--mem",
        "64",
        "--net:a",
        "tap0",
        "--net-mac:a",
        "02:00:00:00:00:01",
        "--block:d",
        "x",
        "app",
    ];
    assert_eq!(config(&joined), config(&apart));
}

#[test]
fn every_argument_after_the_unikernel_is_the_guests() {
    let args = ["--help", "--", "-v", "--mem=1", "", "--net:x", "app", "--"];
    for start in [&["-v", "app"][..], &["-v", "--", "app"]] {
        assert_eq!(config(&[start, &args].concat()).arguments, args);
    }
    assert_eq!(
        config(&["--", "--mem=64", "x"]).unikernel,
        PathBuf::from("--mem=64")
    );
    assert_eq!(config(&["-", "x"]).unikernel, PathBuf::from("-"));
    assert_eq!(config(&["--", "--", "x"]).unikernel, PathBuf::from("--"));
}

#[test]
fn options_of_a_device_are_merged_in_any_order() {
    let config = config(&[
        "--net-mac:wan=02:00:00:00:00:02",
        "--block-sector-size:data=4096",
        "--net:lan=tap0",
        "--block:data=disk.img",
        "--net:wan=@7",
        "--block:lan=other.img",
        "app",
    ]);
    assert_eq!(
        config.nets,
        [
            net(Some("lan"), interface("tap0"), None),
            net(
                Some("wan"),
                Some(NetSource::Fd(7.into())),
                Some([2, 0, 0, 0, 0, 2])
            ),
        ]
    );
    assert_eq!(
        config.blocks,
        [
            block(Some("data"), Some("disk.img"), Some(4096)),
            block(Some("lan"), Some("other.img"), None)
        ]
    );
}

#[test]
fn disk_is_block() {
    let disk = |path| BlockOption {
        option: "disk",
        ..block(None, Some(path), None)
    };
    assert_eq!(config(&["--disk=a b,c=d", "app"]).blocks, [disk("a b,c=d")]);
    assert_eq!(config(&["--disk", "x", "app"]).blocks, [disk("x")]);
    assert_eq!(
        config(&["--block=x", "app"]).blocks,
        [block(None, Some("x"), None)]
    );
    assert!(error(&["--disk=a", "--block=b"]).contains("same device"));
    assert_eq!(
        error(&["--disk=a", "--disk=b"]),
        "option '--disk' is given twice"
    );
    assert_eq!(
        error(&["--disk:x=a"]),
        "unknown option '--disk:x'; did you mean '--disk'?"
    );
}

#[test]
fn a_device_may_be_called_name() {
    assert_eq!(
        config(&["--net:NAME=tap0", "app"]).nets,
        [net(Some("NAME"), interface("tap0"), None)]
    );
}

#[test]
fn paths_are_bytes() {
    let path = OsStr::from_bytes(b"a\xff b,=c");
    let args = [
        OsStr::new("tender"),
        OsStr::new("--block:d"),
        path,
        path,
        path,
    ];
    let Ok(Command::Run(config)) = parse(args.map(OsStr::to_owned)) else {
        panic!()
    };
    assert_eq!(
        config.blocks[0].source,
        Some(BlockSource::Path(path.into()))
    );
    assert_eq!(config.unikernel, path);
    assert_eq!(config.arguments, [path]);
}

#[test]
fn memory_sizes() {
    let size = |text: &str| config(&[&format!("--mem={text}"), "app"]).memory;
    for (text, mib) in [
        ("64", 64),
        ("64M", 64),
        ("64MiB", 64),
        ("64mib", 64),
        ("64MB", 64),
        ("1gb", 1024),
        ("1g", 1024),
        ("4GiB", 4096),
    ] {
        assert_eq!(
            size(text),
            Memory {
                asked: mib << 20,
                given: mib << 20
            },
            "{text}"
        );
    }
    for (text, mib) in [
        ("2048K", 2),
        ("002", 2),
        ("4096", 4096),
        ("4194304KiB", 4096),
    ] {
        assert_eq!(size(text).given, mib << 20, "{text}");
    }
    assert_eq!(
        size("3"),
        Memory {
            asked: 3 << 20,
            given: 2 << 20
        }
    );
    assert_eq!(
        size("2049K"),
        Memory {
            asked: 2049 << 10,
            given: 2 << 20
        }
    );
    assert_eq!(
        config(&["app"]).memory,
        Memory {
            asked: 512 << 20,
            given: 512 << 20
        }
    );
}

#[test]
fn huge_pages_are_chosen_once() {
    assert_eq!(config(&["app"]).huge_pages, HugePages::Auto);
    for (text, choice) in [
        ("auto", HugePages::Auto),
        ("on", HugePages::On),
        ("off", HugePages::Off),
    ] {
        let option = format!("--huge-pages={text}");
        assert_eq!(config(&[&option, "app"]).huge_pages, choice);
    }
    for text in ["", "On", "always", "true", "on "] {
        assert_eq!(
            error(&[&format!("--huge-pages={text}"), "app"]),
            format!("--huge-pages={text}: expected auto, on or off")
        );
    }
    assert_eq!(
        error(&["--huge-pages=on", "--huge-pages=on", "app"]),
        "option '--huge-pages' is given twice"
    );
}

#[test]
fn an_engine_is_chosen_once() {
    assert_eq!(
        config(&["app"]).engine,
        EngineChoice::Only(Engine::Kvm),
        "a process is never a silent choice"
    );
    for (text, choice) in [
        ("kvm", EngineChoice::Only(Engine::Kvm)),
        ("process", EngineChoice::Only(Engine::Process)),
        ("auto", EngineChoice::Auto),
    ] {
        let option = format!("--engine={text}");
        assert_eq!(config(&[&option, "app"]).engine, choice);
    }
    for text in ["", "KVM", "spt", "true", "kvm "] {
        assert_eq!(
            error(&[&format!("--engine={text}"), "app"]),
            format!("--engine={text}: expected kvm, process or auto")
        );
    }
    assert_eq!(
        error(&["--engine=kvm", "--engine=auto", "app"]),
        "option '--engine' is given twice"
    );
}

#[test]
fn impossible_memory_sizes_are_refused() {
    for text in [
        "", "M", "64foo", "64B", "0x40", "+64", "-1", "1.5G", "64 M", "６４", "64M ",
    ] {
        let message = error(&[&format!("--mem={text}")]);
        assert!(
            message.starts_with(&format!("--mem={text}: not an amount of memory; write")),
            "{message}"
        );
    }
    for text in ["0", "1", "2047K", "0G"] {
        assert!(
            error(&[&format!("--mem={text}")])
                .contains("too little memory; a guest has 2 MiB to 4 GiB")
        );
    }
    assert_eq!(
        error(&["--mem=67108864"]),
        "--mem=67108864: too much memory, as a bare number counts MiB; did you mean 64M?"
    );
    for text in [
        "4097",
        "5G",
        "4194305K",
        "4294967297",
        "99999999999999999999999999999G",
        "18446744073709551615",
    ] {
        assert!(
            error(&[&format!("--mem={text}")])
                .contains("too much memory; a guest has 2 MiB to 4 GiB")
        );
    }
}

#[test]
fn mac_addresses() {
    let mac = |text: &str| config(&[&format!("--net-mac={text}"), "app"]).nets[0].mac;
    assert_eq!(
        mac("02:aB:Cd:00:10:ff"),
        Some([2, 0xab, 0xcd, 0, 0x10, 0xff])
    );
    // As upstream's tenders accept them.
    assert_eq!(mac("2:0:a:00:10:f"), Some([2, 0, 10, 0, 0x10, 15]));
    for text in [
        "",
        "02",
        "02:00:00:00:00",
        "02:00:00:00:00:01:02",
        "002:0:0:0:0:1",
        "2::0:0:0:1",
        "02-00-00-00-00-01",
        "+2:00:00:00:00:01",
    ] {
        assert!(
            error(&[&format!("--net-mac={text}")]).contains("not a MAC address; write six pairs"),
            "{text}"
        );
    }
    assert!(error(&["--net-mac=01:00:5e:00:00:01"]).contains("multicast"));
    assert!(error(&["--net-mac:a=ff:ff:ff:ff:ff:ff"]).contains("multicast"));
    assert!(error(&["--net-mac=00:00:00:00:00:00"]).contains("zero address"));
}

#[test]
fn interfaces_and_descriptors() {
    let source = |text: &str| {
        config(&[&format!("--net={text}"), "app"]).nets[0]
            .source
            .clone()
    };
    assert_eq!(source("tap100"), interface("tap100"));
    assert_eq!(source("fifteen-letters"), interface("fifteen-letters"));
    assert_eq!(source("@0"), Some(NetSource::Fd(0.into())));
    assert_eq!(source("@2147483647"), Some(NetSource::Fd(i32::MAX.into())));
    for text in [
        "",
        "sixteen-letters-",
        "a/b",
        "a b",
        "a\tb",
        "eth0:1",
        ".",
        "..",
        "a\0b",
    ] {
        assert!(
            error(&[&format!("--net={text}")]).contains("not an interface name"),
            "{text}"
        );
    }
    let message = error(&["--net:a=tap0", "--net:b=tap0"]);
    assert_eq!(
        message,
        "--net:b=tap0: another network device already uses 'tap0'; give each its own interface"
    );
}

#[test]
fn sector_sizes() {
    for size in [512, 1024, 2048, 4096, 8192, 16384, 32768] {
        let given = config(&[&format!("--block-sector-size:d={size}"), "app"]).blocks;
        assert_eq!(given, [block(Some("d"), None, Some(size))]);
    }
    for text in [
        "",
        "0",
        "1",
        "256",
        "513",
        "4k",
        "65536",
        "-512",
        "99999999999999999999",
    ] {
        assert!(
            error(&[&format!("--block-sector-size:d={text}")]).contains("not a sector size"),
            "{text}"
        );
    }
}

#[test]
fn names_of_devices() {
    let longest = "a".repeat(67);
    assert_eq!(
        config(&[&format!("--net:{longest}=tap0"), "app"]).nets[0].name,
        Some(longest)
    );
    for name in ["", "a-b", "a:b", "a b", "ä", &"a".repeat(68)] {
        let message = error(&[&format!("--net:{name}=tap0")]);
        assert!(message.contains("is not a device name"), "{message}");
    }
}

#[test]
fn usage_errors_are_one_line_that_names_the_argument() {
    let expected = [
        (
            &["--foo"][..],
            "unknown option '--foo'; 'tender --help' lists them; those of the guest follow the unikernel",
        ),
        (
            &["--foo=1"],
            "unknown option '--foo'; 'tender --help' lists them; those of the guest follow the unikernel",
        ),
        (
            &["--foo:a=1"],
            "unknown option '--foo:a'; 'tender --help' lists them; those of the guest follow the unikernel",
        ),
        (
            &["--mem:a=64"],
            "unknown option '--mem:a'; did you mean '--mem'?",
        ),
        (&["--ne=x"], "unknown option '--ne'; did you mean '--net'?"),
        (
            &["--memory=64"],
            "unknown option '--memory'; did you mean '--mem'?",
        ),
        (
            &["--log_format=json"],
            "unknown option '--log_format'; did you mean '--log-format'?",
        ),
        (
            &["--blk:a=x"],
            "unknown option '--blk:a'; did you mean '--block'?",
        ),
        (
            &["--chek"],
            "unknown option '--chek'; did you mean '--check'?",
        ),
        (
            &["--verbos"],
            "unknown option '--verbos'; did you mean '--verbose'?",
        ),
        (
            &["--ram=64"],
            "unknown option '--ram'; did you mean '--mem'?",
        ),
        (
            &["--kernel=app"],
            "unknown option '--kernel'; 'tender --help' lists them; those of the guest follow the unikernel",
        ),
        (
            &["--ipv4=10.0.0.2/24"],
            "unknown option '--ipv4'; 'tender --help' lists them; those of the guest follow the unikernel",
        ),
        (
            &["--cpus=2"],
            "unknown option '--cpus'; a guest has one vCPU",
        ),
        (&["--smp"], "unknown option '--smp'; a guest has one vCPU"),
        (
            &["-m", "64"],
            "unknown option '-m'; did you mean '--mem=64M'?",
        ),
        (
            &["-m128"],
            "unknown option '-m'; did you mean '--mem=128M'?",
        ),
        (&["-m=1g"], "unknown option '-m'; did you mean '--mem=1g'?"),
        (&["-m"], "unknown option '-m'; did you mean '--mem=64M'?"),
        (
            &["-my"],
            "unknown option '-m'; 'tender --help' lists them; those of the guest follow the unikernel",
        ),
        (
            &["--net=IFACE"],
            "--net=IFACE: a placeholder; replace it with a value of this host",
        ),
        (
            &["--net=IFACE2"],
            "--net=IFACE2: a placeholder; replace it with a value of this host",
        ),
        (
            &["--block:a=PATH"],
            "--block:a=PATH: a placeholder; replace it with a value of this host",
        ),
        (
            &["--mem=SIZE"],
            "--mem=SIZE: a placeholder; replace it with a value of this host",
        ),
        (
            &["-x"],
            "unknown option '-x'; 'tender --help' lists them; those of the guest follow the unikernel",
        ),
        (
            &["-vx"],
            "unknown option '-x'; 'tender --help' lists them; those of the guest follow the unikernel",
        ),
        (&["--mem=64", "--mem=64"], "option '--mem' is given twice"),
        (&["--net=a", "--net=b"], "option '--net' is given twice"),
        (
            &["--net:x=a", "--net:x=a"],
            "option '--net:x' is given twice",
        ),
        (
            &["--net:x=a", "--net:x", "b"],
            "option '--net:x' is given twice",
        ),
        (
            &["--block-sector-size:x=512", "--block-sector-size:x=512"],
            "option '--block-sector-size:x' is given twice",
        ),
        (&["--verbose=1"], "option '--verbose' takes no value"),
        (&["--help=1"], "option '--help' takes no value"),
        (&["-v", "-q"], "'-v' and '-q' conflict"),
        (
            &["--net", "--mem=64"],
            "option '--net' needs a value: --net=IFACE|@FD",
        ),
        (&["--block:x="], "--block:x=: the path is empty"),
    ];
    for (args, message) in expected {
        assert_eq!(error(args), message, "{args:?}");
    }
    assert_eq!(
        command(&["--mem"])
            .map_err(Message::from)
            .unwrap_err()
            .to_string(),
        "option '--mem' needs a value: --mem=SIZE"
    );
}

#[test]
fn no_argument_makes_a_second_line() {
    assert_eq!(
        error(&["--fo\no"]),
        "unknown option '--fo\\no'; 'tender --help' lists them; those of the guest follow the unikernel"
    );
    assert!(error(&["--mem=6\n4\x1b[2J"]).starts_with("--mem=6\\n4\\u{1b}[2J: not an amount"));
    assert!(error(&["--net:a\r=x"]).starts_with("'a\\r' in '--net:a\\r' is not"));
}

#[test]
fn a_missing_unikernel_is_explained() {
    for args in [
        &[][..],
        &["--"],
        &["-v"],
        &["--mem=64"],
        &["--mem", "64"],
        &["--log-format", "json"],
        &["--net", "@3"],
    ] {
        assert!(
            command(args)
                .map_err(Message::from)
                .unwrap_err()
                .to_string()
                .starts_with("no unikernel given; usage: tender [OPTIONS]")
        );
    }
    for args in [&[""][..], &["--disk", "a.img", ""], &["", "app.hvt"]] {
        assert_eq!(command(args), Err(Error::EmptyUnikernel), "{args:?}");
    }
    assert_eq!(
        parse([]),
        Err(Error::NoUnikernel {
            taken: String::new()
        })
    );
}

#[test]
fn a_unikernel_taken_as_a_value_is_reported() {
    for (args, reason) in [
        (
            &["--mem", "app"][..],
            "'--mem' took 'app' as its value (write --mem=SIZE)",
        ),
        (
            &["--net:a", "app"],
            "'--net:a' took 'app' as its value (write --net:a=IFACE|@FD)",
        ),
        (
            &["--block:d", "x", "--user", "a\nb"],
            "'--user' took 'a\\nb' as its value (write --user=USER[:GROUP])",
        ),
        (
            &["--stats", "app", "-v", "--net=tap0", "--"],
            "'--stats' took 'app' as its value (write --stats=FILE|-)",
        ),
    ] {
        let message = command(args)
            .map_err(Message::from)
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with(&format!(
                "no unikernel given: option {reason}; usage: tender "
            )),
            "{message}"
        );
    }
}

#[test]
fn verbosity() {
    let levels = [
        (&["app"][..], LevelFilter::Warn),
        (&["-q", "app"], LevelFilter::Error),
        (&["-qq", "app"], LevelFilter::Error),
        (&["-v", "app"], LevelFilter::Info),
        (&["-v", "--verbose", "app"], LevelFilter::Debug),
        (&["-vvv", "app"], LevelFilter::Trace),
        (&["-vvvvv", "app"], LevelFilter::Trace),
    ];
    for (args, level) in levels {
        assert_eq!(config(args).verbosity.level(), level, "{args:?}");
    }
}

#[test]
fn version_and_help_need_no_unikernel() {
    assert_eq!(
        command(&["--version"]),
        Ok(Command::Version { json: false })
    );
    assert_eq!(
        command(&["-V", "app"]),
        Ok(Command::Version { json: false })
    );
    assert!(matches!(command(&["-h"]), Ok(Command::Help(_))));
}

#[test]
fn help_names_every_option_and_fits_a_terminal() {
    let Ok(Command::Help(text)) = command(&["--mem=64", "--help"]) else {
        panic!()
    };
    for option in [
        "--mem=",
        "--net:NAME=",
        "--net-mac:NAME=",
        "--block:NAME=",
        "--block-sector-size:NAME=",
        "--disk=",
    ] {
        assert!(text.contains(option), "{option}");
    }
    for word in [
        "-v,",
        "-q,",
        "-h,",
        "-V,",
        "Memory:",
        "Network:",
        "Block:",
        "Output:",
        "Examples:",
        "Exit status:",
    ] {
        assert!(text.contains(word), "{word}");
    }
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
}
