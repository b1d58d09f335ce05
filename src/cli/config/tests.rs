use proptest::prelude::*;

use super::super::{BlockOption, Config, NetOption, NetRing, SandboxMode, Verbosity, parse};
use super::*;
use crate::net::NetSource;

/// What the file `text`, at dir/app.toml, comes to with `words` beside it.
fn complete(words: &[&str], text: &str) -> Result<(Command, Vec<NamedPath>), Error> {
    let line = ["tender", "--config=dir/app.toml"].iter().chain(words).map(OsString::from);
    match parse(line)? {
        Command::Configured(configured) => {
            assert_eq!(configured.file(), Path::new("dir/app.toml"));
            configured.parse(text.as_bytes())
        }
        other => panic!("{other:?}"),
    }
}

fn config(words: &[&str], text: &str) -> Config {
    match complete(words, text) {
        Ok((Command::Run(config), _)) => config,
        other => panic!("{words:?} {text:?}: {other:?}"),
    }
}

fn error(text: &str) -> String {
    match complete(&["app.hvt"], text) {
        Err(error) => error.to_string(),
        other => panic!("{text:?}: {other:?}"),
    }
}

/// The configuration of a command line.
fn line(words: &[&str]) -> Config {
    match parse(["tender"].iter().chain(words).map(OsString::from)) {
        Ok(Command::Run(config)) => config,
        other => panic!("{words:?}: {other:?}"),
    }
}

/// What a file is to come to: as the command line that says the same, its devices giving way.
fn fallback(words: &[&str]) -> Config {
    let mut config = line(words);
    config.nets.iter_mut().for_each(|net| net.fallback = true);
    config.blocks.iter_mut().for_each(|block| block.fallback = true);
    config
}

#[test]
fn a_file_says_what_a_command_line_says() {
    let text = r#"
        unikernel = "presentation.hvt"
        args = ["--ipv4=10.0.0.2/24", "a b"]
        mem = "64M"
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
    let words = [
        "--mem=64M",
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
    assert_eq!(config(&[], text), fallback(&words));
}

#[test]
fn keys_may_be_options_with_devices_too() {
    let words = ["--net=tap0", "--net-mac=02:00:00:00:00:01", "--disk=/a.img", "--block-sector-size=512", "app"];
    let text = "net = 'tap0'\nnet-mac = '02:00:00:00:00:01'\ndisk = '/a.img'\nblock-sector-size = 512";
    assert_eq!(config(&["app"], text), fallback(&words));
    let words = ["--net:lan=@3", "--net:wan=tap1", "--net-mac:wan=02:00:00:00:00:01", "app"];
    for text in [
        "[net]\nlan = '@3'\nwan = 'tap1'\n[net-mac]\nwan = '02:00:00:00:00:01'",
        "net.lan = '@3'\nnet.wan = { tap = 'tap1', mac = '02:00:00:00:00:01' }",
    ] {
        assert_eq!(config(&["app"], text), fallback(&words));
    }
}

#[test]
fn numbers_may_be_written_as_toml_has_them() {
    assert_eq!(config(&["app"], "mem = 6_4").memory.given, 64 << 20);
    assert_eq!(config(&["app"], "mem = 0x40").memory.given, 64 << 20);
    assert_eq!(config(&["app"], "mem = +64").memory.given, 64 << 20);
    assert!(error("mem = -64").starts_with("dir/app.toml:1:7: --mem=-64: not an amount of memory"));
}

#[test]
fn the_command_line_wins() {
    let text = "unikernel = 'a.hvt'\nargs = ['x']\nmem = 64\nsandbox = 'strict'\nverbose = 2\nnet-ring = 'on'";
    let of = |words: &[&str]| config(words, text);
    assert_eq!(of(&["--mem=32"]).memory.given, 32 << 20);
    assert_eq!(of(&["--sandbox=off"]).sandbox, SandboxMode::Off);
    assert_eq!(of(&["-v"]).verbosity, Verbosity::Verbose);
    assert_eq!(of(&["-q"]).verbosity, Verbosity::Quiet);
    assert_eq!(of(&["--no-net-ring"]).net_ring, NetRing::Off);
    let Config { unikernel, arguments, verbosity, .. } = of(&["b.hvt"]);
    assert_eq!((unikernel, arguments, verbosity), ("b.hvt".into(), vec!["x".into()], Verbosity::Debug));
    let Config { unikernel, arguments, .. } = of(&["b.hvt", "y", "z"]);
    assert_eq!((unikernel, arguments), ("b.hvt".into(), vec!["y".into(), "z".into()]));
}

#[test]
fn it_wins_by_device_and_property() {
    let text = "[net.a]\ntap = 'tap0'\nmac = '02:00:00:00:00:01'\n[net.b]\ntap = 'tap1'";
    let net = |name: &str, tap: Option<&str>, last: Option<u8>, fallback| NetOption {
        name: Some(name.into()),
        option: if tap.is_some() { "net" } else { "net-mac" },
        source: tap.map(|tap| NetSource::Interface(tap.into())),
        mac: last.map(|last| [2, 0, 0, 0, 0, last]),
        fallback,
    };
    assert_eq!(
        config(&["--net-mac:a=02:00:00:00:00:09", "--net:b=tap9", "app"], text).nets,
        [net("b", Some("tap9"), None, false), net("a", None, Some(9), false), net("a", Some("tap0"), None, true),]
    );
    let block = |option, path: &str| BlockOption {
        option,
        source: Some(crate::block::BlockSource::Path(path.into())),
        ..BlockOption::default()
    };
    for (option, key) in [("disk", "block"), ("block", "disk"), ("disk", "disk"), ("block", "block")] {
        let blocks = config(&[&format!("--{option}=x"), "app"], &format!("{key} = '/y'")).blocks;
        assert_eq!(blocks, [block(option, "x")], "{option} {key}");
    }
}

#[test]
fn paths_are_from_where_the_file_lies() {
    let text = "unikernel = '../a.hvt'\nchroot = 'root'\n[block]\nd = 'd.img'\ne = '/e.img'";
    let (command, paths) = complete(&[], text).unwrap();
    let Command::Run(config) = command else { panic!() };
    assert_eq!(config.unikernel, Path::new("dir/../a.hvt"));
    assert_eq!(config.chroot, Some("dir/root".into()));
    let found: Vec<_> = paths.iter().map(|named| (&*named.key, &*named.path, named.place.line)).collect();
    let expected = [
        ("unikernel", Path::new("dir/../a.hvt"), 1),
        ("chroot", Path::new("dir/root"), 2),
        ("block.d", Path::new("dir/d.img"), 4),
        ("block.e", Path::new("/e.img"), 5),
    ];
    assert_eq!(found, expected);
    // Those of the command line are from where the tender was started, and what they replace is not looked for.
    let (_, paths) = complete(&["--block:d=x", "--chroot=y", "z"], text).unwrap();
    assert_eq!(paths.iter().map(|named| &*named.key).collect::<Vec<_>>(), ["block.e"]);
}

#[test]
fn where_a_path_is_in_a_value() {
    use super::entries::path_in;
    assert_eq!(path_in("PATH", "a"), Some(("", "a")));
    assert_eq!(path_in("FILE|-", "-"), None);
    assert_eq!(path_in("FILE|-", "-a"), Some(("", "-a")));
    assert_eq!(path_in("unix:PATH", "unix:/run/x"), Some(("unix:", "/run/x")));
    assert_eq!(path_in("unix:PATH", "/run/x"), None);
    assert_eq!(path_in("PATH|@FD", "@3"), None);
    assert_eq!(path_in("IFACE|@FD", "tap0"), None);
    assert_eq!(path_in("auto|on|off", "on"), None);
    assert_eq!(path_in("", "on"), None);
}

#[test]
fn mistakes_are_told_with_their_place() {
    let expected = [
        ("mme = 64", "1:1: unknown key 'mme'; did you mean 'mem'?"),
        ("\u{feff}mme = 64", "1:1: unknown key 'mme'; did you mean 'mem'?"),
        ("unikernel = ''", "1:13: the path of the unikernel is empty; give that of an hvt unikernel"),
        ("\n  unikernl = 'a'", "2:3: unknown key 'unikernl'; did you mean 'unikernel'?"),
        ("arg = []", "1:1: unknown key 'arg'; did you mean 'args'?"),
        ("net_mac = ''", "1:1: unknown key 'net_mac'; did you mean 'net-mac'?"),
        ("memory = 64", "1:1: unknown key 'memory'; did you mean 'mem'?"),
        ("[networks]", "1:2: unknown key 'networks'; did you mean 'net'?"),
        ("[block-storage]", "1:2: unknown key 'block-storage'; did you mean 'block'?"),
        ("[blk.x]", "1:2: unknown key 'blk'; did you mean 'block'?"),
        ("arguments = []", "1:1: unknown key 'arguments'; did you mean 'args'?"),
        ("verbose = 4", "1:11: 'verbose' is a whole number; it has to be true, false, or how often: 0 to 3"),
        (
            "frobnicate = 1",
            "1:1: unknown key 'frobnicate'; keys are named as options are, and those 'tender --help' lists",
        ),
        ("config = 'x'", "1:1: 'config' is for the command line only; write 'tender --config' there"),
        ("check = true", "1:1: 'check' is for the command line only; write 'tender --check' there"),
        ("[net.a]\nmca = 'x'", "2:1: unknown key 'net.a.mca'; did you mean 'net.a.mac'?"),
        ("[net.a]\niface = 'x'", "2:1: unknown key 'net.a.iface'; a device there has tap, mac"),
        ("[block.a]\nsector_size = 5", "2:1: unknown key 'block.a.sector_size'; did you mean 'block.a.sector-size'?"),
        ("[mem]\na = 1", "1:1: 'mem' is a table; it has to be a whole number or a string: SIZE"),
        ("mem = 6.4", "1:7: 'mem' is a number with a point; it has to be a whole number or a string: SIZE"),
        ("net-ring = true", "1:12: 'net-ring' is true or false; it has to be a string: auto|on|off"),
        ("net = 5", "1:7: 'net' is a whole number; it has to be a string: IFACE|@FD, or a table of devices"),
        ("net.a = ['x']", "1:9: 'net.a' is a list; it has to be a string: IFACE|@FD"),
        ("net-mac.a.b = 'x'", "1:9: 'net-mac.a' is a table; it has to be a string: MAC"),
        (
            "timeout = 1979-05-27",
            "1:11: 'timeout' is a date or a time; it has to be a whole number or a string: SECONDS",
        ),
        ("lock-memory = 1", "1:15: 'lock-memory' is a whole number; it has to be true or false"),
        ("verbose = -1", "1:11: 'verbose' is a whole number; it has to be true, false, or how often: 0 to 3"),
        (
            "args = '--ipv4'",
            "1:8: 'args' is a string; it has to be a list of strings, such as [\"--ipv4=10.0.0.2/24\"]",
        ),
        ("args = ['a',\n 1]", "2:2: 'args[1]' is a whole number; it has to be a string"),
        ("unikernel = 5", "1:13: 'unikernel' is a whole number; it has to be a string: the path of an hvt unikernel"),
        (
            "[net]\n'a-b' = 'tap0'",
            "2:1: 'a-b' in '--net:a-b' cannot be a device's name: those are 1 to 67 letters and digits",
        ),
        (
            "args = [\"a\\u0000b\"]",
            "1:9: 'args[0]' has a NUL character in it, which no option, path or argument can have",
        ),
        ("user = 'n'\nsandbox = 'none'\n", "2:11: --sandbox=none: the sandbox is strict, best-effort or off"),
        (
            "# ü\nmem = 1 # ü",
            "2:7: --mem=1: too little memory; a guest has 2 MiB to 4 GiB, and a bare number counts MiB",
        ),
        ("block = ''", "1:9: --block=: the path is empty"),
        ("verbose = 1\nquiet = true", "2:9: '-v' asks for more words and '-q' for fewer; give one of them"),
        ("net-ring = 'on'\nno-net-ring = true", "2:15: option '--net-ring' is given twice"),
        (
            "[net.a]\ntap = 't'\nmac = '02:00:00:00:00:01'\n[net-mac]\na = '02:00:00:00:00:01'",
            "5:5: option '--net-mac:a' is given twice",
        ),
        (
            "[net]\na = 'tap0'\nb = 'tap1'\nc = 'tap0'\nd = 'tap0'",
            "4:5: --net:c=tap0: another network device has 'tap0' already; each needs an interface of its own",
        ),
    ];
    for (text, message) in expected {
        assert_eq!(error(text), format!("dir/app.toml:{message}"), "{text}");
    }
}

#[test]
fn what_is_no_toml_is_told_with_its_place() {
    for (text, place) in
        [("mem", "1:"), ("mem = 64\nmem = 32", "2:1"), ("\n\nmem = \"64", "3:"), ("= 1", "1:1"), ("[net", "1:")]
    {
        let message = error(text);
        assert!(message.starts_with(&format!("dir/app.toml:{place}")) && message.contains(": not TOML: "), "{message}");
    }
    let Ok(Command::Configured(configured)) = parse(["tender", "--config", "a"].map(OsString::from)) else { panic!() };
    let error = configured.parse(b"# x\n  \xff").unwrap_err().to_string();
    assert_eq!(error, "a:2:3: not UTF-8, which a configuration file has to be");
}

#[test]
fn a_file_that_is_wrong_is_wrong_even_where_the_command_line_wins() {
    let error = complete(&["--mem=64", "app"], "mem = 'lots'").unwrap_err().to_string();
    assert!(error.starts_with("dir/app.toml:1:7: --mem=lots: "), "{error}");
}

#[test]
fn a_mistake_of_the_command_line_has_no_place() {
    let error = complete(&["--mem=1", "app"], "mem = 64").unwrap_err().to_string();
    assert!(error.starts_with("--mem=1: too little"), "{error}");
}

#[test]
fn a_unikernel_is_named_somewhere() {
    assert_eq!(
        complete(&[], "mem = 64").unwrap_err().to_string(),
        "dir/app.toml: no unikernel given; add unikernel = \"NAME.hvt\" to it, or name one on the command line"
    );
    assert!(complete(&["--config=b.toml", "app"], "").unwrap_err().to_string().contains("given twice"));
}

#[test]
fn a_check_stays_one() {
    let (command, _) = complete(&["--check"], "unikernel = 'a'").unwrap();
    assert!(matches!(command, Command::Check(_)));
}

/// Text that is TOML more often than not.
fn toml() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "mem",
        "net",
        "net.a",
        "net.a.tap",
        "net.a.mac",
        "[net]",
        "[net.b]",
        "tap",
        "block",
        "block.a.path",
        "disk",
        "args",
        "unikernel",
        "verbose",
        "quiet",
        "lock-memory",
        "timeout",
        "net-ring",
        "no-net-ring",
        "x",
        "'a b'",
        "\"\"",
        "config",
    ]);
    let value = prop::sample::select(vec![
        "64",
        "-1",
        "'64M'",
        "'tap0'",
        "'@3'",
        "['a', 'b']",
        "[1]",
        "{}",
        "{ tap = 'tap1' }",
        "true",
        "1.5",
        "nan",
        "''",
        "'02:00:00:00:00:01'",
        "'on'",
        "1979-05-27",
        "\"\\u0000\"",
        "0xffffffffffffffffffffffffff",
        "[[[",
        "{ a = { b = 1 } }",
    ]);
    let line = (key, value, any::<bool>()).prop_map(|(key, value, table)| match table && key.starts_with('[') {
        true => format!("{key}\n"),
        false => format!("{key} = {value}\n"),
    });
    proptest::collection::vec(line, 0..8).prop_map(|lines| lines.concat())
}

/// Whatever is in a file, it comes to a command, or to one line that says where it is wrong.
fn is_understood_or_refused(text: &[u8]) {
    let Ok(Command::Configured(configured)) = parse(["tender", "--config=f", "app"].map(OsString::from)) else {
        panic!()
    };
    if let Err(error) = configured.parse(text) {
        let message = error.to_string();
        let mut parts = message.splitn(4, ':');
        let numbers = [parts.next() == Some("f"), is_number(parts.next()), is_number(parts.next())];
        assert!(numbers == [true; 3] && !message.contains(char::is_control), "{message}");
    }
}

fn is_number(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.parse().is_ok_and(|number: usize| number > 0))
}

proptest! {
    #[test]
    fn any_lines_are_understood_or_refused(text in toml()) {
        is_understood_or_refused(text.as_bytes());
    }

    #[test]
    fn any_bytes_are_understood_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        is_understood_or_refused(&bytes);
    }

    #[test]
    fn what_is_quoted_arrives(words in proptest::collection::vec("[^\0]{0,12}", 0..4)) {
        let quoted: Vec<String> = words.iter().map(|word| toml_string(word)).collect();
        let config = config(&["app"], &format!("args = [{}]", quoted.join(",")));
        prop_assert_eq!(config.arguments, words.into_iter().map(OsString::from).collect::<Vec<_>>());
    }
}

fn toml_string(text: &str) -> String {
    let escaped: String = text.chars().map(|c| format!("\\U{:08x}", u32::from(c))).collect();
    format!("\"{escaped}\"")
}

/// Tables within tables, keys of many parts, many keys: none of it is deep or slow enough to do harm.
#[test]
fn large_files_do_no_harm() {
    let many: String = (0..500).map(|number| format!("net.a{number} = 't{number}'\n")).collect();
    is_understood_or_refused(many.as_bytes());
    is_understood_or_refused(format!("{many}net.b = 't7'\n").as_bytes());
    for open in ["[", "a = [", "a.", "a = {b = ", "args = [[", "\"", "'''", "\\"] {
        is_understood_or_refused(open.repeat(60_000 / open.len()).as_bytes());
    }
    is_understood_or_refused(format!("args = {}{}", "[".repeat(30_000), "]".repeat(30_000)).as_bytes());
    is_understood_or_refused(format!("x{} = 1", ".a".repeat(30_000)).as_bytes());
}
