//! The files of the packages and their paths: one list for the tarball, one for Debian.

use std::fs;
use std::path::{Path, PathBuf};

use super::links;
use super::tree::Tree;
use super::{Sources, VERSION, epoch};
use crate::base::error::{Context, Result};
use crate::base::process;
use crate::build::arch::Arch;
use crate::build::{cargo, fixtures};

/// Placed next to the binary, under their names in the repository.
const TEXTS: [&str; 6] = [
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "docs",
];

/// The documents of the Debian package.
const DOCUMENTS: &str = "usr/share/doc/tender";

/// Test unikernels to try a new installation with; `docs/operations.md` uses them too.
const UNIKERNELS: [&str; 4] = ["hello.hvt", "web.hvt", "block.hvt", "abort.hvt"];

/// One directory, with version and architecture in its name.
pub fn tarball(sources: &Sources) -> Result<Tree> {
    let mut tree = Tree::default();
    let top = PathBuf::from(format!("tender-{VERSION}-{}", sources.arch.name()));
    tree.program(top.join("tender"), &*sources.binary);
    for name in TEXTS {
        tree.copy(top.join(name), &cargo::root().join(name))?;
    }
    tree.file(top.join("THIRD-PARTY"), &*sources.licences);
    unikernels(&mut tree, &top.join("examples"), sources.arch)?;
    for (name, text) in manual(sources)? {
        let dir = section(&name).map_or("completions", |_| "man");
        tree.file(top.join(dir).join(name), text);
    }
    for entry in packaging()?.into_iter().filter(|path| {
        !["debian", "nix", "opam"]
            .iter()
            .any(|own| path.ends_with(own))
    }) {
        tree.copy(top.join("packaging").join(name(&entry)), &entry)?;
    }
    links::complete(&mut tree, &top);
    Ok(tree)
}

/// As Debian's policy requires: a binary, its manual and completions, units, and documentation with
/// examples.
pub fn debian(sources: &Sources) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.program("usr/bin/tender", &*sources.binary);
    // For the operator's files.
    tree.dir("etc/tender");
    // bash and fish look for a file with the command's name.
    let completions = [
        (
            "tender.bash",
            "usr/share/bash-completion/completions/tender",
        ),
        (
            "tender.bash",
            "usr/share/bash-completion/completions/solo5-hvt",
        ),
        ("tender.zsh", "usr/share/zsh/vendor-completions/_tender"),
        (
            "tender.fish",
            "usr/share/fish/vendor_completions.d/tender.fish",
        ),
        (
            "solo5-hvt.fish",
            "usr/share/fish/vendor_completions.d/solo5-hvt.fish",
        ),
    ];
    for (name, text) in manual(sources)? {
        if let Some(section) = section(&name) {
            tree.file(
                format!("usr/share/man/man{section}/{name}.gz"),
                gzip(&text)?,
            );
        }
        for (_, place) in completions.iter().filter(|(from, _)| *from == name) {
            tree.file(place, &*text);
        }
    }
    unikernels(
        &mut tree,
        Path::new("usr/share/tender/examples"),
        sources.arch,
    )?;
    let places = places()?;
    for (from, to) in &places {
        tree.copy(to, &cargo::root().join(from))?;
    }
    tree.file(
        "usr/share/man/man8/tender-tap.8.gz",
        gzip(read("packaging/network/tender-tap.8")?.as_bytes())?,
    );
    documentation(&mut tree, sources)?;
    links::complete(&mut tree, Path::new(DOCUMENTS));
    tree.rewrite(".md", |_, text| installed(text, &places));
    tree.file(
        "usr/share/lintian/overrides/tender",
        read("packaging/debian/lintian-overrides")?,
    );
    Ok(tree)
}

fn documentation(tree: &mut Tree, sources: &Sources) -> Result<()> {
    let doc = Path::new(DOCUMENTS);
    for name in ["README.md", "SECURITY.md", "docs"] {
        tree.copy(doc.join(name), &cargo::root().join(name))?;
    }
    let mit: Vec<String> = read("LICENSE-MIT")?
        .lines()
        .map(|line| {
            if line.is_empty() {
                " .".into()
            } else {
                format!(" {line}")
            }
        })
        .collect();
    tree.file(
        doc.join("copyright"),
        read("packaging/debian/copyright")?.replace("@MIT@", &mit.join("\n")),
    );
    tree.file(
        doc.join("THIRD-PARTY.gz"),
        gzip(sources.licences.as_bytes())?,
    );
    tree.file(
        doc.join("CHANGELOG.md.gz"),
        gzip(read("CHANGELOG.md")?.as_bytes())?,
    );
    // In the format that Debian's tools read; the changes are in the other file.
    let date = epoch::date(sources.epoch, "%a, %d %b %Y %T +0000")?;
    let changelog = format!(
        "tender ({VERSION}) stable; urgency=medium\n\n  * See CHANGELOG.md.gz next to this file.\n\n -- {}  {date}\n",
        maintainer()?
    );
    tree.file(doc.join("changelog.gz"), gzip(changelog.as_bytes())?);
    Ok(())
}

/// The files below `packaging/` and their installed paths: unit templates go where systemd looks,
/// with the script that one of them runs. Everything else is an example to be copied.
fn places() -> Result<Vec<(String, PathBuf)>> {
    let examples = Path::new("usr/share/doc/tender/examples");
    let mut places = Vec::new();
    for directory in packaging()? {
        let directory = name(&directory);
        for file in listed(&cargo::root().join("packaging").join(&directory))? {
            let file = name(&file);
            let to = match (directory.as_str(), file.as_str()) {
                ("debian" | "opam" | "nix", _) | (_, "tender-tap.8") => continue,
                ("systemd", unit) if unit.contains("@.") => {
                    Path::new("usr/lib/systemd/system").join(unit)
                }
                ("network", "tap") => "usr/sbin/tender-tap".into(),
                ("examples", file) => examples.join(file),
                (directory, file) => examples.join(directory).join(file),
            };
            places.push((format!("packaging/{directory}/{file}"), to));
        }
    }
    Ok(places)
}

/// Replaces paths of the repository in a document by those of the installed files.
fn installed(text: &str, places: &[(String, PathBuf)]) -> String {
    let mut text = text.to_owned();
    for (from, to) in places {
        text = text.replace(from, &format!("/{}", to.display()));
    }
    text.replace("packaging/debian/", "\0")
        .replace("packaging/", "/usr/share/doc/tender/examples/")
        .replace('\0', "packaging/debian/")
}

fn unikernels(tree: &mut Tree, directory: &Path, arch: Arch) -> Result<()> {
    for name in UNIKERNELS {
        let from = fixtures::directory(arch).join(name);
        tree.file(
            directory.join(name),
            fs::read(&from).context(format_args!("cannot read {}", from.display()))?,
        );
    }
    Ok(())
}

/// The manual pages and completions by name, as `manual/` writes them for these sources.
fn manual(sources: &Sources) -> Result<Vec<(String, Vec<u8>)>> {
    let files = listed(&sources.manual)?;
    let read = |path: PathBuf| {
        Ok((
            name(&path),
            fs::read(&path).context(format_args!("cannot read {}", path.display()))?,
        ))
    };
    files.into_iter().map(read).collect()
}

/// Returns the section of a manual page's file name, such as `1` of `tender.1`.
fn section(name: &str) -> Option<char> {
    let (_, section) = name.rsplit_once('.')?;
    section
        .chars()
        .next()
        .filter(|first| first.is_ascii_digit())
}

fn packaging() -> Result<Vec<PathBuf>> {
    listed(&cargo::root().join("packaging"))
}

/// Returns the entries of a directory, sorted.
fn listed(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).context(format_args!("cannot list {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Reads a file of the repository.
pub fn read(name: &str) -> Result<String> {
    fs::read_to_string(cargo::root().join(name)).context(format_args!("cannot read {name}"))
}

fn maintainer() -> Result<String> {
    let control = read("packaging/debian/control")?;
    let line = control
        .lines()
        .find_map(|line| line.strip_prefix("Maintainer: "));
    Ok(line.unwrap_or_default().to_string())
}

/// Compresses without a name or a time.
fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    process::filter(
        std::process::Command::new("gzip").args(["-9", "-n", "-c"]),
        content,
    )
}

/// The file names: the binary and the tarball as in `uname -m`, the Debian package as in Debian.
pub fn file_names(arch: Arch) -> [String; 3] {
    [
        format!("tender-{}", arch.name()),
        format!("tender-{VERSION}-{}.tar.gz", arch.name()),
        format!("tender_{VERSION}_{}.deb", arch.debian()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_documents_name_installed_files() {
        let places = places().unwrap();
        for (from, to) in [
            (
                "`packaging/systemd/tap@.service`",
                "`/usr/lib/systemd/system/tap@.service`",
            ),
            ("`packaging/network/tap up`", "`/usr/sbin/tender-tap up`"),
            (
                "`packaging/network/`",
                "`/usr/share/doc/tender/examples/network/`",
            ),
            ("`packaging/debian/test`", "`packaging/debian/test`"),
        ] {
            assert_eq!(installed(from, &places), to);
        }
    }
}
