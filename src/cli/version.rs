//! The output of `--version`, for people and scripts.

use std::ffi::OsStr;
use std::path::Path;

use super::argv::shown;
use crate::config::Engine;
use crate::guest::era::Era;
use crate::report::json::Value;

const NUMBER: &str = env!("CARGO_PKG_VERSION");

/// Version of the JSON format, a contract: see `docs/version.schema.json`. Raise it with every
/// change other than an additional member.
const FORMAT: u64 = 1;

/// Releases of Solo5 whose tender this one replaces.
const SOLO5: &str = "0.3 to 0.13";

/// Returns the text for stdout: the version; the ABI versions in the format of upstream's tenders,
/// newest first; and the Solo5 releases that use them.
pub fn version(program: &OsStr) -> String {
    let all: Vec<String> = Era::ALL
        .into_iter()
        .map(|era| match era.abi_version() {
            Some(version) => format!("{version} ({})", era.releases()),
            None => format!("none ({})", era.releases()),
        })
        .collect();
    format!(
        "tender {NUMBER}\n{}ABI versions: {}\n{}",
        abi_lines(),
        all.join(", "),
        solo5_line(program)
    )
}

/// Returns the same as one JSON object, with a newline at its end.
#[cold]
pub fn version_json() -> String {
    let era = |era: Era| {
        Value::Object(vec![
            ("name", era.name().into()),
            ("abi", era.abi_version().map(u64::from).into()),
            ("releases", era.releases().into()),
        ])
    };
    let engines = Engine::ALL.into_iter().map(|engine| engine.name().into());
    let document = Value::Object(vec![
        ("type", "tender.version".into()),
        ("format", FORMAT.into()),
        ("version", NUMBER.into()),
        ("architecture", std::env::consts::ARCH.into()),
        ("eras", Value::List(Era::ALL.into_iter().map(era).collect())),
        ("engines", Value::List(engines.collect())),
        ("replaces", format!("solo5-hvt {SOLO5}").into()),
    ]);
    format!("{document}\n")
}

/// Returns the line with the replaced releases, if started under the name of Solo5's tender.
fn solo5_line(program: &OsStr) -> String {
    if is_solo5_hvt(program) {
        format!("replaces solo5-hvt {SOLO5}\n")
    } else {
        String::new()
    }
}

/// Returns the text for stderr, where programs that start upstream's tenders look for it. Those
/// tenders print `NAME tender`, with the name they were started under.
pub fn upstream_version(program: &OsStr) -> String {
    let name = shown(name(program).as_encoded_bytes());
    let name = if name.is_empty() || name == "tender" {
        "tender".into()
    } else {
        format!("{name} tender")
    };
    format!(
        "{name}, version v{NUMBER}\n{}{}",
        abi_lines(),
        solo5_line(program)
    )
}

/// Returns the name under which the program was started, without the directory.
pub fn name(program: &OsStr) -> &OsStr {
    Path::new(program).file_name().unwrap_or_default()
}

/// Returns whether `program` is a name of Solo5's tender: `solo5-hvt`, `solo5-hvt.1`,
/// `solo5-hvt-debug`.
pub fn is_solo5_hvt(program: &OsStr) -> bool {
    name(program).as_encoded_bytes().starts_with(b"solo5-hvt")
}

/// Returns one line per ABI version, in the format that scripts know. A script that runs a
/// unikernel of some version looks for its line, and rejects a tender without it.
fn abi_lines() -> String {
    let versions = Era::ALL.into_iter().rev().filter_map(Era::abi_version);
    let mut lines: Vec<String> = versions
        .map(|version| format!("ABI version {version}\n"))
        .collect();
    lines.dedup();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_lists_every_era() {
        let expected = "\nABI version 2\nABI version 1\n\
                        ABI versions: none (Solo5 0.3 to 0.4), 1 (Solo5 0.6 to 0.7), 2 (Solo5 0.8 and later)\n";
        assert_eq!(
            version(OsStr::new("tender")),
            format!("tender {NUMBER}{expected}")
        );
        let expected = format!("tender {NUMBER}{expected}replaces solo5-hvt 0.3 to 0.13\n");
        assert_eq!(version(OsStr::new("/usr/bin/solo5-hvt")), expected);
    }

    #[test]
    fn the_lines_that_programs_parse_are_there() {
        for (program, name) in [
            ("tender", "tender"),
            ("", "tender"),
            ("/usr/local/bin/solo5-hvt", "solo5-hvt tender"),
            ("solo5-hvt.1", "solo5-hvt.1 tender"),
            ("a\nb", "a\\nb tender"),
        ] {
            let solo5 = if name.starts_with("solo5") {
                "replaces solo5-hvt 0.3 to 0.13\n"
            } else {
                ""
            };
            let expected =
                format!("{name}, version v{NUMBER}\nABI version 2\nABI version 1\n{solo5}");
            assert_eq!(upstream_version(OsStr::new(program)), expected);
        }
    }
}
