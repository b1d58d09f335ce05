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
