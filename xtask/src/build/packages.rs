//! Debian packages that this machine needs: detected by their files, installed as root, otherwise
//! reported.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::error::{Context, Result, fail};
use crate::base::{process, progress};

/// A file that shows that a package (or its equivalent on another distribution) is installed.
#[derive(Clone, Copy, Debug)]
pub enum Brings {
    Program(&'static str),
    File(&'static str),
}

/// A Debian package, `name` or `name:architecture`, and the file needed of it.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    pub name: &'static str,
    pub brings: Brings,
}

impl Package {
    pub const fn program(name: &'static str, program: &'static str) -> Self {
        Package {
            name,
            brings: Brings::Program(program),
        }
    }

    pub const fn file(name: &'static str, path: &'static str) -> Self {
        Package {
            name,
            brings: Brings::File(path),
        }
    }

    pub fn is_there(&self) -> bool {
        match self.brings {
            Brings::Program(program) => process::find_program(program).is_some(),
            Brings::File(path) => Path::new(path).exists(),
        }
    }
}

/// Checks that the packages are installed, or reports the missing ones and how to install them.
pub fn ensure(purpose: &str, wanted: &[Package]) -> Result<()> {
    let missing: Vec<&'static str> = wanted
        .iter()
        .filter(|p| !p.is_there())
        .map(|p| p.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if process::find_program("apt-get").is_none() {
        return fail(format!(
            "{purpose} needs what Debian packages as: {names}; install its like and try again"
        ));
    }
    if !is_root() {
        return fail(format!(
            "{purpose} needs the Debian package(s) {names}; install with: {}",
            recipe(&missing)
        ));
    }
    install(&missing).context(format_args!(
        "{purpose} needs the Debian package(s) {names}"
    ))?;
    match wanted.iter().find(|p| !p.is_there()) {
        None => Ok(()),
        Some(p) => fail(format!(
            "{purpose}: {} is installed but {:?} is not there",
            p.name, p.brings
        )),
    }
}

pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The commands to install them.
fn recipe(names: &[&str]) -> String {
    let mut line = String::new();
    for arch in foreign_architectures(names) {
        line += &format!("sudo dpkg --add-architecture {arch} && ");
    }
    line + "sudo apt-get update && sudo apt-get install --no-install-recommends " + &names.join(" ")
}

fn foreign_architectures(names: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = names
        .iter()
        .filter_map(|name| name.split_once(':'))
        .map(|(_, arch)| arch.to_string())
        .collect();
    found.sort();
    found.dedup();
    found
}

fn install(names: &[&str]) -> Result<()> {
    let mut is_new = false;
    for arch in foreign_architectures(names) {
        is_new |= add_architecture(&arch)?;
    }
    update(is_new);
    let mut apt = apt_get();
    apt.args(["install", "--yes", "--no-install-recommends"])
        .args(names);
    progress::note(format_args!("installing {}", names.join(" ")));
    progress::during("waiting for apt-get install", || process::output(&mut apt)).map(drop)
}

/// Makes apt use packages of another architecture; returns whether it did not before.
fn add_architecture(arch: &str) -> Result<bool> {
    let native = process::output(Command::new("dpkg").arg("--print-architecture"))?;
    let foreign = process::output(Command::new("dpkg").arg("--print-foreign-architectures"))?;
    if native
        .lines()
        .chain(foreign.lines())
        .any(|known| known == arch)
    {
        return Ok(false);
    }
    process::output(Command::new("dpkg").args(["--add-architecture", arch]))?;
    Ok(true)
}

/// Refreshes apt's lists, once per run, and again after an architecture was added. A list that
/// cannot be fetched is no error: the packages may be in another.
fn update(architecture_is_new: bool) {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::Relaxed) && !architecture_is_new {
        return;
    }
    let done = progress::during("waiting for apt-get update", || {
        process::output(apt_get().arg("update"))
    });
    if let Err(error) = done {
        progress::note(format_args!("warning: {error}"));
    }
}

fn apt_get() -> Command {
    let mut apt = Command::new("apt-get");
    // Others may be installing at the same time; downloads go to our directory, where apt's own
    // user has no access.
    apt.args([
        "-qq",
        "-o",
        "DPkg::Lock::Timeout=300",
        "-o",
        "APT::Sandbox::User=root",
    ]);
    apt.env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null());
    apt
}

/// Downloads the newest `name:arch` into `dir` without installing it. Works for any user whose apt
/// lists the package.
pub fn download(name: &str, arch: &str, dir: &Path) -> Result<()> {
    download_version(name, arch, None, dir)
}

/// As [`download`], for a version that is not the newest.
pub fn download_version(name: &str, arch: &str, version: Option<&str>, dir: &Path) -> Result<()> {
    let full = format!(
        "{name}:{arch}{}",
        version.map_or_else(String::new, |version| format!("={version}"))
    );
    if is_root() {
        update(add_architecture(arch)?);
    } else if process::output(Command::new("apt-cache").args(["show", &full])).is_err() {
        return fail(format!(
            "apt does not know {full}; have root run: dpkg --add-architecture {arch} && apt-get update"
        ));
    }
    let what = format!("downloading {full}");
    progress::note(&what);
    let mut apt = apt_get();
    apt.args(["download", &full]).current_dir(dir);
    progress::during(&what, || process::output(&mut apt))
        .context(format_args!("cannot get {full}"))
        .map(drop)
}

/// Returns the versions of a package that apt lists, the newest first.
pub fn versions(name: &str) -> Result<Vec<String>> {
    if is_root() {
        update(false);
    }
    // `name | version | source`, one line each.
    let table = process::output(Command::new("apt-cache").args(["madison", name]))?;
    Ok(table
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(|version| version.trim().to_string())
        .collect())
}

/// Returns the package that a meta-package such as `linux-image-arm64` depends on at present.
pub fn first_dependency(name: &str, arch: &str) -> Result<String> {
    let full = format!("{name}:{arch}");
    if is_root() {
        update(add_architecture(arch)?);
    }
    let text =
        process::output(Command::new("apt-cache").args(["depends", &full])).unwrap_or_default();
    let depends = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "));
    match depends {
        Some(found) => Ok(found.split(':').next().unwrap_or(found).to_string()),
        None => fail(format!(
            "apt does not know {full}; have root run: dpkg --add-architecture {arch} && apt-get update"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_names_the_architecture_once() {
        assert_eq!(
            recipe(&["a:arm64", "b:arm64", "c"]),
            "sudo dpkg --add-architecture arm64 && sudo apt-get update && \
             sudo apt-get install --no-install-recommends a:arm64 b:arm64 c"
        );
    }

    #[test]
    fn installed_packages_need_nothing() {
        ensure(
            "a test",
            &[
                Package::program("dash", "sh"),
                Package::file("base-files", "/etc"),
            ],
        )
        .unwrap();
    }
}
