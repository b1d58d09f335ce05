//! Messages about errors in a file.

use super::*;
use crate::report::message::Message;

/// Checks the error of each of these texts, after the file's name.
#[track_caller]
fn are_reported(expected: &[(&str, &str)]) {
    for (text, message) in expected {
        assert_eq!(error(text), format!("dir/app.toml:{message}"), "{text}");
    }
}

#[test]
fn unknown_keys_are_reported_with_their_position() {
    are_reported(&[
        ("mme = 64", "1:1: unknown key 'mme'; did you mean 'mem'?"),
        (
            "\u{feff}mme = 64",
            "1:1: unknown key 'mme'; did you mean 'mem'?",
        ),
        (
            "\n  unikernl = 'a'",
            "2:3: unknown key 'unikernl'; did you mean 'unikernel'?",
        ),
        ("arg = []", "1:1: unknown key 'arg'; did you mean 'args'?"),
        (
            "net_mac = ''",
            "1:1: unknown key 'net_mac'; did you mean 'net-mac'?",
        ),
        (
            "memory = 64",
            "1:1: unknown key 'memory'; did you mean 'mem'?",
        ),
        (
            "[networks]",
            "1:2: unknown key 'networks'; did you mean 'net'?",
        ),
        (
            "[block-storage]",
            "1:2: unknown key 'block-storage'; did you mean 'block'?",
        ),
        ("[blk.x]", "1:2: unknown key 'blk'; did you mean 'block'?"),
        ("ram = 64", "1:1: unknown key 'ram'; did you mean 'mem'?"),
        (
            "loglevel = 'debug'",
            "1:1: unknown key 'loglevel'; did you mean 'verbose'?",
        ),
        (
            "log-level = 2",
            "1:1: unknown key 'log-level'; did you mean 'verbose'?",
        ),
        (
            "log_level = 2",
            "1:1: unknown key 'log_level'; did you mean 'verbose'?",
        ),
        (
            "arguments = []",
            "1:1: unknown key 'arguments'; did you mean 'args'?",
        ),
        (
            "frobnicate = 1",
            "1:1: unknown key 'frobnicate'; keys are option names; 'tender --help' lists them",
        ),
        ("cpus = 2", "1:1: unknown key 'cpus'; a guest has one vCPU"),
        (
            "config = 'x'",
            "1:1: 'config' is for the command line only; write 'tender --config' there",
        ),
        (
            "check = true",
            "1:1: 'check' is for the command line only; write 'tender --check' there",
        ),
        (
            "[net.a]\nmca = 'x'",
            "2:1: unknown key 'net.a.mca'; did you mean 'net.a.mac'?",
        ),
        (
            "[net.a]\niface = 'x'",
            "2:1: unknown key 'net.a.iface'; a device has tap, mac",
        ),
        (
            "[block.a]\nsector_size = 5",
            "2:1: unknown key 'block.a.sector_size'; did you mean 'block.a.sector-size'?",
        ),
    ]);
}

#[test]
fn values_of_the_wrong_type_are_reported_with_their_position() {
    are_reported(&[
        (
            "verbose = 4",
            "1:11: 'verbose' is a whole number; expected true, false, or how often: 0 to 3",
        ),
        (
            "[mem]\na = 1",
            "1:1: 'mem' is a table; expected a whole number or a string: SIZE",
        ),
        (
            "mem = 6.4",
            "1:7: 'mem' is a number with a point; expected a whole number or a string: SIZE",
        ),
        (
            "net-ring = true",
            "1:12: 'net-ring' is true or false; expected a string: auto|on|off",
        ),
        (
            "net = 5",
            "1:7: 'net' is a whole number; expected a string: IFACE|@FD, or a table of devices",
        ),
        (
            "[disk.x]\npath = 'a'",
            "1:2: 'disk' is a table; expected a string: PATH|@FD; a device with a name is [block.NAME]",
        ),
        (
            "disk = 5",
            "1:8: 'disk' is a whole number; expected a string: PATH|@FD",
        ),
        (
            "net.a = ['x']",
            "1:9: 'net.a' is a list; expected a string: IFACE|@FD",
        ),
        (
            "net-mac.a.b = 'x'",
            "1:9: 'net-mac.a' is a table; expected a string: MAC",
        ),
        (
            "timeout = 1979-05-27",
            "1:11: 'timeout' is a date or a time; expected a whole number or a string: DURATION",
        ),
        (
            "lock-memory = 1",
            "1:15: 'lock-memory' is a whole number; expected true or false",
        ),
        (
            "verbose = -1",
            "1:11: 'verbose' is a whole number; expected true, false, or how often: 0 to 3",
        ),
        (
            "args = '--ipv4'",
            "1:8: 'args' is a string; expected a list of strings, such as [\"--ipv4=10.100.0.2/24\"]",
        ),
        (
            "args = ['a',\n 1]",
            "2:2: 'args[1]' is a whole number; expected a string",
        ),
        (
            "unikernel = 5",
            "1:13: 'unikernel' is a whole number; expected a string: the path of an hvt unikernel",
        ),
        (
            "args = [\"a\\u0000b\"]",
            "1:9: 'args[0]' contains a NUL character; remove it",
        ),
    ]);
}

#[test]
fn values_that_options_refuse_are_reported_with_their_position() {
    are_reported(&[
        (
            "unikernel = ''",
            "1:13: the unikernel's path is empty; give the path of an hvt unikernel",
        ),
        (
            "[net]\n'a-b' = 'tap0'",
            "2:1: 'a-b' in '--net:a-b' is not a device name; write 1 to 67 letters and digits",
        ),
        (
            "user = 'n'\nsandbox = 'none'\n",
            "2:11: --sandbox=none: expected strict, best-effort or off",
        ),
        (
            "# ü\nmem = 1 # ü",
            "2:7: --mem=1: too little memory; give 2M to 4G; a bare number counts MiB",
        ),
        ("block = ''", "1:9: --block=: the path is empty"),
        ("verbose = 1\nquiet = true", "2:9: '-v' and '-q' conflict"),
        (
            "net-ring = 'on'\nno-net-ring = true",
            "2:15: option '--net-ring' is given twice",
        ),
        (
            "[net.a]\ntap = 't'\nmac = '02:00:00:00:00:01'\n[net-mac]\na = '02:00:00:00:00:01'",
            "5:5: option '--net-mac:a' is given twice",
        ),
        (
            "[net]\na = 'tap0'\nb = 'tap1'\nc = 'tap0'\nd = 'tap0'",
            "4:5: --net:c=tap0: another network device already uses 'tap0'; give each its own interface; \
             dir/app.toml:5:5: --net:d=tap0: another network device already uses 'tap0'; give each its own interface",
        ),
    ]);
}

#[test]
fn strings_without_quotes_are_quoted() {
    are_reported(&[
        (
            "mem = 64\nnet = tap100 # the tap",
            "2:7: not TOML; put strings in quotes: net = \"tap100\"",
        ),
        (
            "unikernel=fx/hello.hvt",
            "1:11: not TOML; put strings in quotes: unikernel = \"fx/hello.hvt\"",
        ),
        (
            "mem = 64M",
            "1:7: not TOML; put strings in quotes: mem = \"64M\"",
        ),
        (
            "args = [--ipv4=10.0.0.2/24, -l]",
            "1:10: not TOML; put strings in quotes: args = [\"--ipv4=10.0.0.2/24\", \"-l\"]",
        ),
        (
            "args = [\"a\", b]",
            "1:14: not TOML; put strings in quotes: args = [\"a\", \"b\"]",
        ),
        (
            "args = [-l, \"x\"]",
            "1:9: not TOML; put strings in quotes: args = [\"-l\", \"x\"]",
        ),
        (
            "[net.a]\ntap = tap0",
            "2:7: not TOML; put strings in quotes: tap = \"tap0\"",
        ),
        (
            "lock-memory = yes",
            "1:15: not TOML; write true or false: lock-memory = true",
        ),
        (
            "quiet = No # comment",
            "1:9: not TOML; write true or false: quiet = false",
        ),
    ]);
    // A line that quotes do not correct, or that needs none, has the parser's message only.
    for text in [
        "mem = = 5",
        "mem = ",
        "net = { tap = tap0 }",
        "a = \"b",
        "args = hello world",
        "args = hello",
        "net = [tap0]",
        "mem = 64 M B",
        "timeout = a=b",
        "args = [\"a,b\", c]",
        &format!("unikernel = {}.hvt", "a".repeat(120)),
        "mem = 1\nmem = 2",
    ] {
        let message = error(text);
        assert!(message.contains(": not TOML: "), "{text}: {message}");
    }
}

#[test]
fn a_property_without_a_device_is_reported() {
    are_reported(&[
        (
            "[net]\ntap = 'tap0'",
            "2:1: 'net.tap' names no device; write it in [net.NAME]",
        ),
        (
            "net.mac = '02:00:00:00:00:01'",
            "1:5: 'net.mac' names no device; write it in [net.NAME]",
        ),
        (
            "[block]\nsector-size = 512",
            "2:1: 'block.sector-size' names no device; write it in [block.NAME]",
        ),
    ]);
    // A device may have such a name.
    let nets = config(&["app"], "[net.tap]\ntap = 'tap0'").nets;
    assert_eq!(nets[0].name.as_deref(), Some("tap"));
}

#[test]
fn all_errors_are_reported_in_their_order() {
    let of = |text: &str| complete(&["app"], text).unwrap_err().messages();
    assert_eq!(
        of("mme = 64\nsandbox = 'none'\n[net.a]\nmca = 'x'\n[block]\n'a-b' = 'x'\nc = 5"),
        [
            "dir/app.toml:1:1: unknown key 'mme'; did you mean 'mem'?",
            "dir/app.toml:2:11: --sandbox=none: expected strict, best-effort or off",
            "dir/app.toml:4:1: unknown key 'net.a.mca'; did you mean 'net.a.mac'?",
            "dir/app.toml:6:1: 'a-b' in '--block:a-b' is not a device name; write 1 to 67 letters and digits",
            "dir/app.toml:7:5: 'block.c' is a whole number; expected a string: PATH|@FD",
        ]
    );
    assert_eq!(
        of("net = tap0\nmem = 64\nuser = pirate"),
        [
            "dir/app.toml:1:7: not TOML; put strings in quotes: net = \"tap0\"",
            "dir/app.toml:3:8: not TOML; put strings in quotes: user = \"pirate\"",
        ]
    );
}

#[test]
fn the_number_of_printed_errors_is_limited() {
    let of = |text: &str| complete(&["app"], text).unwrap_err().messages();
    let lines =
        |number: usize, of: fn(usize) -> String| -> String { (0..number).map(of).collect() };
    let more = "dir/app.toml: more errors follow; fix these first";
    for text in [
        lines(9, |key| format!("k{key} = 1\n")),
        lines(5000, |key| format!("k{key} = 1\n")),
        lines(5000, |key| format!("k{key} = x\n")),
        format!(
            "[net]\n{}",
            lines(3000, |name| format!("'n{name}' = '/'\n"))
        ),
        format!(
            "[net.a]\n{}",
            lines(3000, |name| format!("n{name} = '/'\n"))
        ),
        format!("args = [{}]", lines(9, |_| "1,".to_owned())),
    ] {
        let messages = of(&text);
        assert_eq!(messages.len(), 9, "{messages:?}");
        assert!(messages[..8].iter().all(|message| message != more));
        assert_eq!(messages[8], more);
    }
    let eight = lines(8, |key| format!("k{key} = 1\n"));
    assert!(of(&eight).len() == 8 && !of(&eight).contains(&more.to_owned()));
    // Several errors of a line count once.
    let text = format!("{} = 1\nmem = tap0", "= ".repeat(20));
    let messages = of(&text);
    assert!(
        messages.len() == 2 && messages[1].starts_with("dir/app.toml:2:7: "),
        "{messages:?}"
    );
}

#[test]
fn invalid_toml_is_reported_with_its_position() {
    for (text, place) in [
        ("mem", "1:"),
        ("mem = 64\nmem = 32", "2:1"),
        ("\n\nmem = \"64", "3:"),
        ("= 1", "1:1"),
        ("[net", "1:"),
    ] {
        let message = error(text);
        assert!(
            message.starts_with(&format!("dir/app.toml:{place}"))
                && message.contains(": not TOML: "),
            "{message}"
        );
    }
    let Ok(Command::Configured(configured)) =
        parse(["tender", "--config", "a"].map(OsString::from))
    else {
        panic!()
    };
    let error = configured
        .parse(b"# x\n  \xff")
        .map_err(Message::from)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "a:2:3: not UTF-8; save the file as UTF-8");
}

#[test]
fn errors_are_reported_even_where_the_command_line_wins() {
    let error = complete(&["--mem=64", "app"], "mem = 'lots'")
        .map_err(Message::from)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("dir/app.toml:1:7: --mem=lots: "),
        "{error}"
    );
}

#[test]
fn an_error_of_the_command_line_has_no_position() {
    let error = complete(&["--mem=1", "app"], "mem = 64")
        .map_err(Message::from)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("--mem=1: too little"), "{error}");
}

#[test]
fn an_error_has_the_log_format_of_the_file() {
    let format = |args: &[&str], text: &str| {
        let line = ["tender", "--config=a"]
            .iter()
            .chain(args)
            .map(OsString::from);
        let Ok(Command::Configured(configured)) = parse(line) else {
            panic!("{args:?}")
        };
        configured.log_format(text.as_bytes())
    };
    for text in [
        "log-format = 'json'",
        "mme = 64\nlog-format = 'json'\nmem = 'lots'",
        "log-format = 'json'\nmem = 64\nmem = ",
        "mem = = 5\nlog-format = \"json\"\n[net",
    ] {
        assert_eq!(format(&["app"], text), LogFormat::Json, "{text}");
        assert_eq!(
            format(&["--log-format=journald", "app"], text),
            LogFormat::Journald,
            "{text}"
        );
        assert_eq!(
            format(&["--log-format", "text", "app"], text),
            LogFormat::Text,
            "{text}"
        );
    }
    for text in [
        "",
        "log-format = 'xml'",
        "log-format = 1",
        "[net]\nlog-format = 'json'",
        "[",
    ] {
        assert_eq!(format(&["app"], text), LogFormat::Text, "{text}");
        assert_eq!(
            format(&["--log-format=json"], text),
            LogFormat::Json,
            "{text}"
        );
    }
}
