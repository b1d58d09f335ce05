//! `cargo xtask apt-repo`: makes `target/dist/` an apt repository, by Debian's own tools. Any web
//! server can serve the files; apt reads them with `deb URL /`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::base::error::{Context, Result};
use crate::base::options::Options;
use crate::base::{process, progress};
use crate::build::packages::{self, Package};

/// Names the key that signs, as gpg finds it; without it the repository is unsigned.
const KEY: &str = "TENDER_APT_KEY";

/// A key of gpg, and gpg's directory if it is not the user's.
pub struct Key {
    pub name: String,
    pub home: Option<PathBuf>,
}

const TOOLS: &[Package] = &[Package::program("apt-utils", "apt-ftparchive")];
const SIGNER: &[Package] = &[Package::program("gpg", "gpg")];

pub fn run(options: &mut Options) -> Result<()> {
    options.finish()?;
    let key = std::env::var(KEY).ok().filter(|name| !name.is_empty());
    let key = key.map(|name| Key { name, home: None });
    index(&super::dir(), key.as_ref())?;
    println!("target/dist: an apt repository, for 'deb URL /'");
    Ok(())
}

/// Writes the lists of the packages in `dir`, and signs them.
pub fn index(dir: &Path, key: Option<&Key>) -> Result<()> {
    packages::ensure("making an apt repository", TOOLS)?;
    // Files of an earlier run, which the lists must not contain.
    for old in ["Packages", "Release", "InRelease", "tender.asc"] {
        let _ = std::fs::remove_file(dir.join(old));
    }
    let list = process::output(archive(dir).args(["packages", "."]))?;
    // Not every web server resolves `./` in an address.
    write(
        dir,
        "Packages",
        &list.replace("\nFilename: ./", "\nFilename: "),
    )?;
    let release = process::output(
        archive(dir)
            .args(["-o", "APT::FTPArchive::Release::Origin=tender"])
            .args(["-o", "APT::FTPArchive::Release::Label=tender"])
            .args(["-o", "APT::FTPArchive::Release::Architectures=amd64 arm64"])
            .args(["release", "."]),
    )?;
    write(dir, "Release", &release)?;
    let Some(key) = key else {
        progress::note(format_args!(
            "the apt repository is unsigned; {KEY}=KEY signs it with a key of gpg"
        ));
        return Ok(());
    };
    packages::ensure("signing an apt repository", SIGNER)?;
    let signed = gpg(dir, key, &["--clearsign", "--output", "-", "Release"])?;
    write(dir, "InRelease", &signed)?;
    let public = gpg(dir, key, &["--armor", "--export", &key.name])?;
    write(dir, "tender.asc", &public)
}

fn archive(dir: &Path) -> Command {
    let mut archive = Command::new("apt-ftparchive");
    archive.current_dir(dir);
    archive
}

fn gpg(dir: &Path, key: &Key, arguments: &[&str]) -> Result<String> {
    let mut gpg = Command::new("gpg");
    if let Some(home) = &key.home {
        gpg.arg("--homedir").arg(home);
    }
    gpg.args(["--batch", "--local-user", &key.name])
        .args(arguments);
    process::output(gpg.current_dir(dir))
}

fn write(dir: &Path, name: &str, text: &str) -> Result<()> {
    std::fs::write(dir.join(name), text).context(format_args!("cannot write {name}"))
}
