//! Locks of images, and their owners.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::Error;
use crate::host::files::Identity;
use crate::host::owner::{Owner, read_list};
use crate::host::signal::uninterrupted;

/// Locks an image against other programs that lock it, until it is closed.
///
/// # Errors
/// A program has locked it.
pub(super) fn lock(file: &File, path: &Path) -> Result<(), Error> {
    match uninterrupted(|| Ok(flock(file, FlockOperation::NonBlockingLockExclusive)?)) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(in_use(path, file.metadata()))
        }
        Err(error) => {
            let path = path.display();
            log::warn!("{path}: cannot be locked: {error}; make sure that nothing else uses it");
            Ok(())
        }
    }
}

/// Returns an error for an image that a loop device uses, which locks nothing.
pub(super) fn check_loop_device(file: &File, path: &Path) -> Result<(), Error> {
    match Identity::of_descriptor(file).and_then(loop_device) {
        Some(device) => Err(Error::Loop {
            path: path.to_owned(),
            device,
        }),
        None => Ok(()),
    }
}

/// Finds the loop device that uses an image, if the host shows it. sysfs names the image by a path,
/// which may belong to another root directory. Unused loop devices are not in the list of disks,
/// and so cost nothing.
fn loop_device(image: Identity) -> Option<PathBuf> {
    let disks = read_list("/proc/partitions").ok()?;
    let names = disks
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(3));
    let mut loops = names.filter(|name| name.starts_with("loop"));
    let name = loops.find(|name| {
        let path = fs::read(format!("/sys/block/{name}/loop/backing_file")).unwrap_or_default();
        let path = Path::new(OsStr::from_bytes(path.strip_suffix(b"\n").unwrap_or(&path)));
        fs::metadata(path)
            .is_ok_and(|other| (other.dev(), other.ino()) == (image.device, image.inode))
    })?;
    Some(Path::new("/dev").join(name))
}

/// Returns the error for an image `path` that is in use.
pub(super) fn in_use(path: &Path, metadata: io::Result<Metadata>) -> Error {
    let path = path.to_owned();
    match owner(metadata) {
        Some(owner) if owner.is_us() => Error::GivenTwice { path },
        Some(owner) => Error::InUse { path, owner },
        None => Error::InUseBySomebody { path },
    }
}

/// Finds the process that has locked a file, if the host shows it.
fn owner(metadata: io::Result<Metadata>) -> Option<Owner> {
    let metadata = metadata.ok()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let locks = read_list("/proc/locks").ok()?;
    let file = format!(
        "{:02x}:{:02x}:{inode}",
        libc::major(device),
        libc::minor(device)
    );
    owner_in(&locks, &file).map(Owner::new)
}

/// Finds the owner of the lock on `file` in the lines of /proc/locks, such as
/// `1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF`. A hidden process is 0 there.
pub(super) fn owner_in(locks: &str, file: &str) -> Option<u32> {
    let fields = locks
        .lines()
        .map(|line| line.split_ascii_whitespace().skip(1).collect::<Vec<_>>());
    let pids = fields.filter_map(|fields| match fields[..] {
        ["FLOCK", _, _, pid, locked, ..] if locked == file => pid.parse().ok(),
        _ => None,
    });
    pids.into_iter().find(|&pid| pid != 0)
}
