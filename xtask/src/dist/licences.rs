//! The crates in the static binary, and the licences that must accompany it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::base::error::{Context, Result, fail};
use crate::base::process;
use crate::build::cargo;

const HEAD: &str = "\
tender is linked statically. In addition to its own code it contains the crates listed here, Rust's standard library (MIT or
Apache-2.0) and the C library of the target: the GNU C Library (LGPL-2.1 or later, https://www.gnu.org/software/libc/),
or musl (MIT) where it was built for a musl target. It can be linked again with another version of any of them, from
tender's own sources: the repository that it was built in.
";

/// Returns the crates with their licences, and each licence text once, under the names of its
/// crates.
pub fn third_party(triple: &str) -> Result<String> {
    let sources = sources()?;
    let mut text = format!("{HEAD}\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, licence) in crates(triple)? {
        text += &format!("{name}: {licence}\n");
        let Some(dir) = sources.get(&name) else {
            return fail(format!(
                "cargo metadata has no path of the sources of {name}"
            ));
        };
        for licence in licence_files(dir)? {
            texts.entry(licence).or_default().push(name.clone());
        }
    }
    for (licence, names) in texts {
        text += &format!(
            "\n{:-<78}\n{}\n\n{}\n",
            "",
            names.join(", "),
            licence.trim_end()
        );
    }
    Ok(text)
}

/// Returns `name-version` and licence of every crate in the binary, sorted.
fn crates(triple: &str) -> Result<BTreeMap<String, String>> {
    let mut tree = cargo::cargo("tree");
    tree.args([
        "--locked",
        "--package",
        "tender-vmm",
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
    ]);
    tree.args(["--no-dedupe", "--target", triple, "--format", "{p}|{l}"]);
    let text = process::output(&mut tree)?;
    Ok(text.lines().filter_map(parse).collect())
}

/// Parses `name vVERSION|LICENCE`; crates of this repository have a path after the version.
fn parse(line: &str) -> Option<(String, String)> {
    let (package, licence) = line.split_once('|')?;
    let (name, version) = package.split_once(" v")?;
    (!version.contains(' ')).then(|| (format!("{name}-{version}"), licence.replace('/', " OR ")))
}

/// Returns the directory of the sources of each `name-version`.
fn sources() -> Result<BTreeMap<String, PathBuf>> {
    let mut metadata: Command = cargo::cargo("metadata");
    let text = process::output(metadata.args(["--locked", "--format-version", "1"]))?;
    let manifests = text
        .split(r#""manifest_path":""#)
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let dirs = manifests.filter_map(|path| Path::new(path).parent().map(Path::to_path_buf));
    Ok(dirs
        .filter_map(|dir| Some((dir.file_name()?.to_string_lossy().into_owned(), dir.clone())))
        .collect())
}

/// Returns the texts of the files with a licence's name.
fn licence_files(dir: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(dir)
        .context(format_args!("cannot list {}", dir.display()))?
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().to_uppercase();
        let is_licence = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"]
            .iter()
            .any(|stem| name.starts_with(stem));
        if is_licence && entry.path().is_file() {
            let text = std::fs::read_to_string(entry.path());
            texts.push(text.context(format_args!("cannot read {}", entry.path().display()))?);
        }
    }
    texts.sort();
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_from_elsewhere_are_listed() {
        let entry = parse("plain v0.2.3|MIT/Apache-2.0").unwrap();
        assert_eq!(entry, ("plain-0.2.3".into(), "MIT OR Apache-2.0".into()));
        assert_eq!(
            parse("guest-abi v0.1.0 (/tender/guest-abi)|MIT OR Apache-2.0"),
            None
        );
    }
}
