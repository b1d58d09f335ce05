//! What `--version` says, to people and to scripts.

use crate::era::Era;

const NUMBER: &str = env!("CARGO_PKG_VERSION");

/// For stdout: the version; the newest ABI version as upstream's tenders say theirs; all of them.
pub fn version() -> String {
    let all: Vec<String> = Era::ALL
        .into_iter()
        .map(|era| match era.abi_version() {
            Some(version) => format!("{version} ({})", era.releases()),
            None => format!("none ({})", era.releases()),
        })
        .collect();
    format!("tender {NUMBER}\n{}ABI versions: {}\n", abi_line(), all.join(", "))
}

/// For stderr, where programs that start upstream's tenders look for it: the same two lines as those print.
pub fn upstream_version() -> String {
    format!("tender, version v{NUMBER}\n{}", abi_line())
}

/// The newest ABI version, in the form that scripts know.
fn abi_line() -> String {
    let newest = Era::ALL.into_iter().filter_map(Era::abi_version).max().unwrap_or_default();
    format!("ABI version {newest}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_every_era() {
        let expected = "\nABI version 2\n\
                        ABI versions: none (Solo5 0.3 to 0.4), 1 (Solo5 0.6 to 0.7), 2 (Solo5 0.8 and later)\n";
        assert_eq!(version(), format!("tender {NUMBER}{expected}"));
    }

    #[test]
    fn programs_see_the_two_lines_that_they_know() {
        assert_eq!(upstream_version(), format!("tender, version v{NUMBER}\nABI version 2\n"));
    }
}
