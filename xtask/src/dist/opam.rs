//! `cargo xtask opam-repo`: makes `target/dist/` an opam repository, for `opam repository add`. Its
//! one package installs the static binaries of both architectures.

use std::process::Command;

use super::tree::Tree;
use super::{VERSION, contents, dir, epoch};
use crate::base::error::{Context, Result};
use crate::base::options::Options;
use crate::base::process;
use crate::build::arch::Arch;

/// The name that opam fetches.
const INDEX: &str = "index.tar.gz";

pub fn run(options: &mut Options) -> Result<()> {
    options.finish()?;
    let mut package =
        contents::read("packaging/opam/solo5-tender.opam")?.replace("@VERSION@", VERSION);
    for arch in Arch::ALL {
        let [binary, ..] = contents::file_names(arch);
        let sum = process::output(Command::new("sha256sum").arg(dir().join(&binary)))
            .context("'cargo xtask dist' makes the binaries")?;
        let sum = sum.split(' ').next().unwrap_or_default();
        package = package.replace(&format!("@{}@", arch.name()), sum);
    }
    let mut tree = Tree::default();
    tree.file("repo", "opam-version: \"2.0\"\n");
    tree.file(
        format!("packages/solo5-tender/solo5-tender.{VERSION}/opam"),
        package,
    );
    let root = dir().join("opam.files");
    tree.write(&root, epoch::epoch()?)?;
    let mut tar = Command::new("tar");
    tar.args([
        "--create",
        "--gzip",
        "--sort=name",
        "--owner=0",
        "--group=0",
    ])
    .arg("--file")
    .arg(dir().join(INDEX));
    process::output(tar.arg("--directory").arg(&root).args(["packages", "repo"]))?;
    std::fs::remove_dir_all(&root).context(format_args!("cannot remove {}", root.display()))?;
    println!("target/dist/{INDEX}: an opam repository");
    Ok(())
}
