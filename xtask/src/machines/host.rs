//! What this machine has: a usable /dev/kvm, and the unikernels in the repository.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use crate::base::error::{Context, Result, fail};
use crate::build::arch::Arch;
use crate::build::cargo;
use crate::machines::initramfs::Archive;

const KVM_GET_API_VERSION: libc::Ioctl = 0xae00_u32 as libc::Ioctl;

/// Checks that unikernels can run here; the error has the reason.
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

/// Directory of the built unikernels of this architecture.
pub fn fixtures(arch: Arch) -> PathBuf {
    cargo::root().join("fixtures/bin").join(arch.name())
}

/// Puts the unikernels into /fixtures of an emulated machine.
pub fn pack_fixtures(archive: &mut Archive, arch: Arch) -> Result<()> {
    let dir = fixtures(arch);
    for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".hvt") {
            archive.copy(&format!("fixtures/{name}"), &entry.path())?;
        }
    }
    Ok(())
}
