use std::ffi::OsString;

use super::super::parse;
use super::*;
use crate::config::{BlockOption, Config, NetOption, NetRing, NetSource, SandboxMode, Verbosity};
use crate::report::message::Message;

mod errors;
mod properties;

/// Combines `args` with the file `text`, at dir/app.toml.
fn complete(args: &[&str], text: &str) -> Result<(Command, Vec<NamedPath>), Error> {
    let line = ["tender", "--config=dir/app.toml"]
        .iter()
        .chain(args)
        .map(OsString::from);
    match parse(line)? {
        Command::Configured(configured) => {
            assert_eq!(configured.file(), Path::new("dir/app.toml"));
            configured.parse(text.as_bytes())
        }
        other => panic!("{other:?}"),
    }
}

fn config(args: &[&str], text: &str) -> Config {
    match complete(args, text) {
        Ok((Command::Run(mut config), _)) => {
            for place in places(&mut config) {
                assert!(place.starts_with("dir/app.toml:"), "{place}");
                *place = PLACE.into();
            }
            config
        }
        other => panic!("{args:?} {text:?}: {other:?}"),
    }
}

fn error(text: &str) -> String {
    match complete(&["app.hvt"], text) {
        Err(error) => Message::of(&error).to_string(),
        other => panic!("{text:?}: {other:?}"),
    }
}

/// Parses a command line.
fn line(args: &[&str]) -> Config {
    match parse(["tender"].iter().chain(args).map(OsString::from)) {
        Ok(Command::Run(config)) => config,
        other => panic!("{args:?}: {other:?}"),
    }
}

/// The place of every device in a file.
const PLACE: &str = "a place";

/// Returns the places of devices that are from a file.
fn places(config: &mut Config) -> impl Iterator<Item = &mut String> {
    let nets = config.nets.iter_mut().map(|net| &mut net.in_file);
    let blocks = config.blocks.iter_mut().map(|block| &mut block.in_file);
    nets.chain(blocks).flatten()
}

/// Parses a command line as the expected configuration of a file: its devices have places.
fn fallback(args: &[&str]) -> Config {
    let mut config = line(args);
    for net in &mut config.nets {
        net.in_file = Some(PLACE.into());
    }
    for block in &mut config.blocks {
        block.in_file = Some(PLACE.into());
    }
    config
}

#[test]
fn a_file_means_the_same_as_a_command_line() {
    let text = r#"
        unikernel = "presentation.hvt"
        args = ["--ipv4=10.0.0.2/24", "a b"]
        engine = "process"
        mem = "64M"
        huge-pages = "off"
        net-ring = "off"
        timeout = 60
        console-rate = "64K"
        sandbox = "strict"
        user = "pirate:kvm"
        chroot = "/var/empty"
        lock-memory = true
        quiet = false
        verbose = 2
        [net.service]
        tap = "tap100"
        mac = "02:00:00:00:00:01"
        [block.storage]
        path = "/var/lib/app.img"
        sector-size = 4096
    "#;
    let args = [
        "--engine=process",
        "--mem=64M",
        "--huge-pages=off",
        "--net-ring=off",
        "--timeout=60",
        "--console-rate=64K",
        "--sandbox=strict",
        "--user=pirate:kvm",
        "--chroot=/var/empty",
        "--lock-memory",
        "-vv",
        "--net:service=tap100",
        "--net-mac:service=02:00:00:00:00:01",
        "--block:storage=/var/lib/app.img",
        "--block-sector-size:storage=4096",
        "--",
        "dir/presentation.hvt",
        "--ipv4=10.0.0.2/24",
        "a b",
    ];
    assert_eq!(config(&[], text), fallback(&args));
}

#[test]
fn keys_may_be_options_with_devices_too() {
    let args = [
        "--net=tap0",
        "--net-mac=02:00:00:00:00:01",
        "--disk=/a.img",
        "--block-sector-size=512",
        "app",
    ];
    let text =
        "net = 'tap0'\nnet-mac = '02:00:00:00:00:01'\ndisk = '/a.img'\nblock-sector-size = 512";
    assert_eq!(config(&["app"], text), fallback(&args));
    let args = [
        "--net:lan=@3",
        "--net:wan=tap1",
        "--net-mac:wan=02:00:00:00:00:01",
        "app",
    ];
    for text in [
        "[net]\nlan = '@3'\nwan = 'tap1'\n[net-mac]\nwan = '02:00:00:00:00:01'",
        "net.lan = '@3'\nnet.wan = { tap = 'tap1', mac = '02:00:00:00:00:01' }",
    ] {
        assert_eq!(config(&["app"], text), fallback(&args));
    }
}

#[test]
fn numbers_may_be_written_as_toml_has_them() {
    assert_eq!(config(&["app"], "mem = 6_4").memory.given, 64 << 20);
    assert_eq!(config(&["app"], "mem = 0x40").memory.given, 64 << 20);
    assert_eq!(config(&["app"], "mem = +64").memory.given, 64 << 20);
    assert_eq!(
        config(&["app"], "gdb = true\ngdb-port = 4321").debugging,
        line(&["--gdb", "--gdb-port=4321", "app"]).debugging
    );
    assert_eq!(
        config(&["app"], "name = 'web'"),
        line(&["--name=web", "app"])
    );
    assert_eq!(
        config(&["app"], "gdb-port = 'unix:@app'").debugging,
        line(&["--gdb-port=unix:@app", "app"]).debugging
    );
    assert!(error("mem = -64").starts_with("dir/app.toml:1:7: --mem=-64: not an amount of memory"));
}

#[test]
fn the_command_line_wins() {
    let text = "unikernel = 'a.hvt'\nargs = ['x']\nmem = 64\nsandbox = 'strict'\nverbose = 2\nnet-ring = 'on'";
    let of = |args: &[&str]| config(args, text);
    assert_eq!(of(&["--mem=32"]).memory.given, 32 << 20);
    assert_eq!(of(&["--sandbox=off"]).sandbox, SandboxMode::Off);
    assert_eq!(of(&["-v"]).verbosity, Verbosity::Verbose);
    assert_eq!(of(&["-q"]).verbosity, Verbosity::Quiet);
    assert_eq!(of(&["--no-net-ring"]).net_ring, NetRing::Off);
    let Config {
        unikernel,
        arguments,
        verbosity,
        ..
    } = of(&["b.hvt"]);
    assert_eq!(
        (unikernel, arguments, verbosity),
        ("b.hvt".into(), vec!["x".into()], Verbosity::Debug)
    );
    let Config {
        unikernel,
        arguments,
        ..
    } = of(&["b.hvt", "y", "z"]);
    assert_eq!(
        (unikernel, arguments),
        ("b.hvt".into(), vec!["y".into(), "z".into()])
    );
}

#[test]
fn it_wins_by_device_and_property() {
    let text = "[net.a]\ntap = 'tap0'\nmac = '02:00:00:00:00:01'\n[net.b]\ntap = 'tap1'";
    let net = |name: &str, tap: Option<&str>, last: Option<u8>, is_in_file: bool| NetOption {
        name: Some(name.into()),
        option: if tap.is_some() { "net" } else { "net-mac" },
        source: tap.map(|tap| NetSource::Interface(tap.into())),
        mac: last.map(|last| [2, 0, 0, 0, 0, last]),
        in_file: is_in_file.then(|| PLACE.into()),
    };
    assert_eq!(
        config(
            &["--net-mac:a=02:00:00:00:00:09", "--net:b=tap9", "app"],
            text
        )
        .nets,
        [
            net("b", Some("tap9"), None, false),
            net("a", None, Some(9), false),
            net("a", Some("tap0"), None, true),
        ]
    );
    let block = |option, path: &str| BlockOption {
        option,
        source: Some(crate::config::BlockSource::Path(path.into())),
        ..BlockOption::default()
    };
    for (option, key) in [
        ("disk", "block"),
        ("block", "disk"),
        ("disk", "disk"),
        ("block", "block"),
    ] {
        let blocks = config(&[&format!("--{option}=x"), "app"], &format!("{key} = '/y'")).blocks;
        assert_eq!(blocks, [block(option, "x")], "{option} {key}");
    }
}

#[test]
fn paths_are_relative_to_the_file() {
    let text = "unikernel = '../a.hvt'\nchroot = 'root'\n[block]\nd = 'd.img'\ne = '/e.img'";
    let (command, paths) = complete(&[], text).unwrap();
    let Command::Run(config) = command else {
        panic!()
    };
    assert_eq!(config.unikernel, Path::new("dir/../a.hvt"));
    assert_eq!(config.chroot, Some("dir/root".into()));
    let found: Vec<_> = paths
        .iter()
        .map(|named| (&*named.key, &*named.path, named.place.line))
        .collect();
    let expected = [
        ("unikernel", Path::new("dir/../a.hvt"), 1),
        ("chroot", Path::new("dir/root"), 2),
        ("block.d", Path::new("dir/d.img"), 4),
        ("block.e", Path::new("/e.img"), 5),
    ];
    assert_eq!(found, expected);
    // Paths on the command line are relative to the current directory; the paths that they replace
    // are not opened.
    let (_, paths) = complete(&["--block:d=x", "--chroot=y", "z"], text).unwrap();
    assert_eq!(
        paths.iter().map(|named| &*named.key).collect::<Vec<_>>(),
        ["block.e"]
    );
}

#[test]
fn where_a_path_is_in_a_value() {
    use super::super::options::Kind;
    use super::entries::path_in;
    assert_eq!(path_in(Kind::File, "a"), Some(("", "a")));
    assert_eq!(path_in(Kind::File, "@3"), None);
    assert_eq!(path_in(Kind::Directory, "@3"), Some(("", "@3")));
    assert_eq!(path_in(Kind::NewFile, "-"), None);
    assert_eq!(path_in(Kind::NewFile, "-a"), Some(("", "-a")));
    assert_eq!(
        path_in(Kind::Socket, "unix:/run/x"),
        Some(("unix:", "/run/x"))
    );
    assert_eq!(path_in(Kind::Socket, "unix:@x"), None);
    assert_eq!(path_in(Kind::Socket, "/run/x"), None);
    assert_eq!(path_in(Kind::Text, "tap0"), None);
    assert_eq!(path_in(Kind::Number, "1"), None);
}

#[test]
fn a_unikernel_is_named_somewhere() {
    assert_eq!(
        complete(&[], "mem = 64")
            .map_err(Message::from)
            .unwrap_err()
            .to_string(),
        "dir/app.toml: no unikernel given; add unikernel = \"NAME.hvt\" to it, or name one on the command line"
    );
    assert_eq!(
        complete(&["--mem", "app"], "")
            .map_err(Message::from)
            .unwrap_err()
            .to_string(),
        "dir/app.toml: no unikernel given: option '--mem' took 'app' as its value (write --mem=SIZE); add \
         unikernel = \"NAME.hvt\" to it, or name one on the command line"
    );
    assert!(
        complete(&["--config=b.toml", "app"], "")
            .map_err(Message::from)
            .unwrap_err()
            .to_string()
            .contains("given twice")
    );
}

#[test]
fn a_check_stays_one() {
    let (command, _) = complete(&["--check"], "unikernel = 'a'").unwrap();
    assert!(matches!(command, Command::Check(_)));
}
