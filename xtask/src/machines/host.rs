//! This machine: whether it has a usable /dev/kvm, and commands that use it.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use crate::base::error::{Context, Result, fail};
use crate::build::arch::Arch;
use crate::build::fixtures;

const KVM_GET_API_VERSION: libc::Ioctl = 0xae00_u32 as libc::Ioctl;

/// Checks that KVM can be used here; the error has the reason.
pub fn kvm() -> Result<()> {
    let opened = File::options().read(true).write(true).open("/dev/kvm");
    if opened
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    {
        return fail(
            "/dev/kvm is not for this user; have root run: usermod -aG kvm USER, and log in again",
        );
    }
    let file = opened.context("/dev/kvm cannot be opened")?;
    // SAFETY: the request takes no pointer, and the descriptor is open for as long as `file` lives.
    let version = unsafe { libc::ioctl(file.as_raw_fd(), KVM_GET_API_VERSION, 0) };
    match version {
        12 => Ok(()),
        -1 => fail("/dev/kvm is no KVM device"),
        other => fail(format!(
            "/dev/kvm speaks version {other} of its interface, not 12"
        )),
    }
}

/// Returns this program's hidden `command` with the options [`TENDER`] and [`FIXTURES`].
pub fn inside(command: &str, tender: &Path) -> Result<Command> {
    let arch = Arch::host()?;
    let myself = std::env::current_exe().context("cannot find this program's own file")?;
    let mut inside = Command::new(myself);
    inside.arg(command).arg(TENDER).arg(tender);
    inside.arg(FIXTURES).arg(fixtures::directory(arch));
    Ok(inside)
}

/// Options of the hidden commands: the binary to run, and the directory of the unikernels.
pub const TENDER: &str = "--tender";
pub const FIXTURES: &str = "--fixtures";
