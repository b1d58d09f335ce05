//! What `--version` says, to people and to scripts.

use std::ffi::OsStr;
use std::path::Path;

use super::argv::shown;
use crate::guest::era::Era;

const NUMBER: &str = env!("CARGO_PKG_VERSION");

/// The releases of Solo5 whose tender this one replaces.
const SOLO5: &str = "0.3 to 0.13";

/// For stdout: the version; the ABI versions as upstream's tenders say theirs, newest first; and whose they are.
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

/// Under the name of Solo5's tender: a line with the releases that this one replaces.
fn solo5_line(program: &OsStr) -> String {
    if is_solo5_hvt(program) {
        format!("replaces solo5-hvt {SOLO5}\n")
    } else {
        String::new()
    }
}

/// For stderr, where programs that start upstream's tenders look for it: what those print, which is `NAME tender` with
/// the name that they were called by.
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

/// The name that the program was started by, without the directory.
pub fn name(program: &OsStr) -> &OsStr {
    Path::new(program).file_name().unwrap_or_default()
}

/// Whether `program` is a name of Solo5's tender: `solo5-hvt`, `solo5-hvt.1`, `solo5-hvt-debug`.
pub fn is_solo5_hvt(program: &OsStr) -> bool {
    name(program).as_encoded_bytes().starts_with(b"solo5-hvt")
}

/// Each ABI version on a line of its own, in the form that scripts know. Whoever wants to run a unikernel of some
/// version looks for its line, and takes a tender without it for one that cannot.
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
