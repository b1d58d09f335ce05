//! Makes archives of trees of files, with the tools of every Debian: tar, gzip, dpkg-deb.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tree::Tree;
use super::{Sources, VERSION, contents};
use crate::base::error::{Context, Result};
use crate::base::process;

/// Maintainer scripts; each explains its purpose.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// `tar` with sorted names, owner 0; then `gzip` without a time.
pub fn tarball(sources: &Sources, to: &Path) -> Result<()> {
    let root = staged(&contents::tarball(sources)?, to, sources.epoch)?;
    let mut tar = Command::new("tar");
    tar.args([
        "--create",
        "--format=ustar",
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
    ]);
    tar.args(["--use-compress-program=gzip -9n", "--file"])
        .arg(to)
        .arg("--directory")
        .arg(&root);
    finish(
        tar.arg(format!("tender-{VERSION}-{}", sources.arch.name())),
        &root,
    )
}

/// `dpkg-deb`, whose archive depends neither on the user nor on the number of processors.
pub fn debian(sources: &Sources, to: &Path) -> Result<()> {
    let mut tree = contents::debian(sources)?;
    let sums = md5sums(&tree, &staged(&tree, to, sources.epoch)?)?;
    let control = contents::read("packaging/debian/control")?
        .replace("@VERSION@", VERSION)
        .replace("@ARCHITECTURE@", sources.arch.debian())
        .replace("@SIZE@", &tree.size().to_string());
    tree.file("DEBIAN/control", control);
    tree.file("DEBIAN/md5sums", sums);
    for script in SCRIPTS {
        tree.program(
            format!("DEBIAN/{script}"),
            contents::read(&format!("packaging/debian/{script}"))?,
        );
    }
    let root = staged(&tree, to, sources.epoch)?;
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.args(["--root-owner-group", "-Zxz", "--build"])
        .arg(&root)
        .arg(to);
    dpkg.env("SOURCE_DATE_EPOCH", sources.epoch.to_string())
        .env("DPKG_DEB_THREADS_MAX", "1");
    finish(&mut dpkg, &root)
}

/// Lays out the tree next to its archive.
fn staged(tree: &Tree, archive: &Path, epoch: u64) -> Result<PathBuf> {
    let root = archive.with_extension("files");
    tree.write(&root, epoch)?;
    Ok(root)
}

fn finish(command: &mut Command, root: &Path) -> Result<()> {
    process::output(command)?;
    std::fs::remove_dir_all(root).context(format_args!("cannot remove {}", root.display()))
}

/// Checksums for `dpkg --verify`.
fn md5sums(tree: &Tree, root: &Path) -> Result<String> {
    let names = tree
        .files()
        .map(|(path, _)| path)
        .filter(|path| !path.starts_with("etc"));
    process::output(Command::new("md5sum").args(names).current_dir(root))
}
