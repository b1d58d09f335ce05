//! Properties of files with any content.

use proptest::prelude::*;

use super::*;
use crate::report::message::Message;

/// Text that is valid TOML more often than not.
fn toml() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "engine",
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
        "huge-pages",
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
        "'process'",
        "1979-05-27",
        "\"\\u0000\"",
        "0xffffffffffffffffffffffffff",
        "[[[",
        "{ a = { b = 1 } }",
    ]);
    let line = (key, value, any::<bool>()).prop_map(|(key, value, table)| {
        match table && key.starts_with('[') {
            true => format!("{key}\n"),
            false => format!("{key} = {value}\n"),
        }
    });
    proptest::collection::vec(line, 0..8).prop_map(|lines| lines.concat())
}

/// Any file is a command, or one line with the position of the error.
fn is_understood_or_refused(text: &[u8]) {
    let Ok(Command::Configured(configured)) =
        parse(["tender", "--config=f", "app"].map(OsString::from))
    else {
        panic!()
    };
    if let Err(error) = configured.parse(text) {
        let message = Message::of(&error).to_string();
        let mut parts = message.splitn(4, ':');
        let numbers = [
            parts.next() == Some("f"),
            is_number(parts.next()),
            is_number(parts.next()),
        ];
        assert!(
            numbers == [true; 3] && !message.contains(char::is_control),
            "{message}"
        );
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
    fn quoted_strings_are_read_back(args in proptest::collection::vec("[^\0]{0,12}", 0..4)) {
        let quoted: Vec<String> = args.iter().map(|word| toml_string(word)).collect();
        let config = config(&["app"], &format!("args = [{}]", quoted.join(",")));
        prop_assert_eq!(config.arguments, args.into_iter().map(OsString::from).collect::<Vec<_>>());
    }
}

fn toml_string(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| format!("\\U{:08x}", u32::from(c)))
        .collect();
    format!("\"{escaped}\"")
}

/// Tables within tables, keys of many parts, many keys: none is deep or slow enough to do harm.
#[test]
fn large_files_do_no_harm() {
    let many: String = (0..500)
        .map(|number| format!("net.a{number} = 't{number}'\n"))
        .collect();
    is_understood_or_refused(many.as_bytes());
    is_understood_or_refused(format!("{many}net.b = 't7'\n").as_bytes());
    for open in [
        "[",
        "a = [",
        "a.",
        "a = {b = ",
        "args = [[",
        "\"",
        "'''",
        "\\",
    ] {
        is_understood_or_refused(open.repeat(60_000 / open.len()).as_bytes());
    }
    is_understood_or_refused(
        format!("args = {}{}", "[".repeat(30_000), "]".repeat(30_000)).as_bytes(),
    );
    is_understood_or_refused(format!("x{} = 1", ".a".repeat(30_000)).as_bytes());
}
