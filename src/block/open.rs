//! Opens a path as an image or disk, or explains why not.

#![expect(unsafe_code, reason = "an ioctl of block devices")]

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fcntl_setfl};

use super::adopt::adopt;
use super::lock::in_use;
use crate::config::BlockSource;
use crate::guest::era::DiskTail;
use crate::guest::formats::{Format, LOOKED_AT};
use crate::host::descriptors;
use crate::host::files::{self, Controlled, Files, Look, Need};
use crate::host::ids::{group_name, user, user_name};
use crate::host::owner::Owner;
use crate::host::signal::uninterrupted;
use crate::report::counters::Count;

/// Queries whether a disk is read-only. `_IO(0x12, 94)` of Linux's `fs.h`; libc lacks it.
const BLKROGET: u32 = 0x125e;

/// Why a block device cannot be attached.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("there is no file '{path}'")]
    #[diagnostic(help("'truncate -s 64M {}' makes an empty image", path.display()))]
    Missing { path: PathBuf },
    #[error("there is no disk '{path}'")]
    #[diagnostic(help("'lsblk' lists those of this host"))]
    MissingDisk { path: PathBuf },
    #[error("'{path}' is {kind}")]
    #[diagnostic(help("give an image file or a disk"))]
    NotDisk { path: PathBuf, kind: &'static str },
    #[error("user {user} may not read and write '{path}', which belongs to {owner}")]
    #[diagnostic(help("change its owner or mode (chown, chmod), or run tender as another user"))]
    Denied {
        path: PathBuf,
        user: String,
        owner: String,
    },
    #[error("user {user} may not enter a directory on the way to '{path}'")]
    #[diagnostic(help("'namei -l {}' shows which", path.display()))]
    Hidden { path: PathBuf, user: String },
    #[error(
        "'{path}' is on a read-only file system, but a unikernel may write to its block devices"
    )]
    #[diagnostic(help("copy it elsewhere, or let it be written (ReadWritePaths= of a unit)"))]
    ReadOnly { path: PathBuf },
    #[error("disk '{path}' is read-only, but a unikernel may write to its block devices")]
    #[diagnostic(help("'blockdev --setrw {}'", path.display()))]
    ReadOnlyDisk { path: PathBuf },
    #[error("disk '{path}' is mounted or otherwise in use by the host")]
    #[diagnostic(help("'lsblk {}' shows by what", path.display()))]
    Mounted { path: PathBuf },
    #[error("'{path}' is in use by {owner}")]
    #[diagnostic(help("end that process, or give each unikernel its own image"))]
    InUse { path: PathBuf, owner: Owner },
    #[error("'{path}' is in use by another process")]
    #[diagnostic(help(
        "find that process with 'lslocks' as root and end it, or give each unikernel its own image"
    ))]
    InUseBySomebody { path: PathBuf },
    #[error("'{path}' is in use by {device}")]
    #[diagnostic(help("unmount that device and 'losetup -d {}', or use another image", device.display()))]
    Loop { path: PathBuf, device: PathBuf },
    #[error("'{path}' is given to two block devices")]
    #[diagnostic(help("give each its own image"))]
    GivenTwice { path: PathBuf },
    #[error("'{path}' is empty")]
    #[diagnostic(help("'truncate -s 64M {}' makes it an image of that size", path.display()))]
    Empty { path: PathBuf },
    #[error(
        "'{path}' has {}, not a multiple of its sectors of {sector_size}",
        Count(*size, "byte")
    )]
    #[diagnostic(help("{hint}"))]
    PartialSector {
        path: PathBuf,
        size: u64,
        sector_size: u16,
        hint: String,
    },
    #[error("{sector_size} is not a sector size")]
    #[diagnostic(help("write a power of two from 512 to 32768"))]
    SectorSize { sector_size: u16 },
    #[error(transparent)]
    #[diagnostic(transparent)]
    InheritedFd(#[from] descriptors::Error),
    #[error("'{path}': file descriptor {fd} was not passed to tender")]
    #[diagnostic(help("the caller must open it without O_CLOEXEC"))]
    NoDescriptor { path: PathBuf, fd: RawFd },
    #[error("'{path}': this user may not open the file of descriptor {fd} again")]
    #[diagnostic(help("give the descriptor itself, @{fd}"))]
    ByDescriptor { path: PathBuf, fd: RawFd },
    #[error("--user: '{path}': {error}")]
    #[diagnostic(help("give a path that this user cannot change, or a descriptor (@FD)"))]
    Controlled { path: PathBuf, error: io::Error },
    #[error("'{path}', passed as {inherited}, {rule}")]
    #[diagnostic(help("{fix}"))]
    Mode {
        path: PathBuf,
        inherited: String,
        rule: &'static str,
        fix: &'static str,
    },
    #[error("cannot open '{path}' for reading and writing: {error}")]
    Open { path: PathBuf, error: io::Error },
    #[error("cannot determine the size of '{path}': {error}")]
    Size { path: PathBuf, error: io::Error },
    #[error("cannot sync '{path}': {error}; recent writes may be lost")]
    Sync { path: PathBuf, error: io::Error },
}

/// Opens the operator's source, an image file or a disk, for reading and writing; returns also its
/// path for messages.
pub(super) fn open(source: &BlockSource, files: &mut Files) -> Result<(File, PathBuf), Error> {
    match source {
        BlockSource::Path(path) => {
            let file = open_path(path, files.take(path, Need::ReadWrite))?;
            Ok((file, path.clone()))
        }
        BlockSource::Fd(inherited) => adopt(inherited),
    }
}

fn open_path(path: &Path, look: io::Result<Look>) -> Result<File, Error> {
    let look = look.map_err(|error| refusal(path, None, error))?;
    let kind = look.metadata().file_type();
    check_kind(path, kind)?;
    // For a disk, O_EXCL fails if it is mounted.
    let flags = if kind.is_block_device() {
        libc::O_EXCL
    } else {
        0
    };
    let file = look.open(
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags),
    );
    let file = file.map_err(|error| refusal(path, Some(look.metadata()), error))?;
    check_writable(&file, kind, path)?;
    disable_atime(&file);
    Ok(file)
}

/// Disables updates of the access time, which cost writes to the host's disk. Only the owner of the
/// file or device node may do that; for other users nothing changes.
fn disable_atime(file: &File) {
    // The file was opened without any of the flags that can be set.
    let _ = fcntl_setfl(file, OFlags::NOATIME);
}

/// Returns an error for a read-only disk: the kernel opens it for writing, but rejects writes.
pub(super) fn check_writable(disk: &File, kind: FileType, path: &Path) -> Result<(), Error> {
    if !kind.is_block_device() {
        return Ok(());
    }
    let mut read_only: libc::c_int = 0;
    // SAFETY: the ioctl writes one number.
    let is_known = unsafe { libc::ioctl(disk.as_raw_fd(), BLKROGET as _, &raw mut read_only) } == 0;
    if is_known && read_only != 0 {
        Err(Error::ReadOnlyDisk { path: path.into() })
    } else {
        Ok(())
    }
}

pub(super) fn check_kind(path: &Path, kind: FileType) -> Result<(), Error> {
    let kind = match kind {
        kind if kind.is_file() || kind.is_block_device() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_char_device() => "a character device",
        kind if kind.is_fifo() => "a pipe (save its content as a file first)",
        _ => "a socket",
    };
    Err(Error::NotDisk {
        path: path.into(),
        kind,
    })
}

/// Returns the reason why the host did not open the file at `path`, from its error.
fn refusal(path: &Path, found: Option<&Metadata>, error: io::Error) -> Error {
    let descriptor = files::descriptor_in(path);
    let path = path.to_owned();
    match (error.raw_os_error(), descriptor, found) {
        _ if Controlled::is(&error) => Error::Controlled { path, error },
        (Some(libc::ENOENT), Some(fd), _) => Error::NoDescriptor { path, fd },
        (Some(libc::EACCES | libc::EPERM), Some(fd), Some(_)) => Error::ByDescriptor { path, fd },
        (Some(libc::ENOENT), ..) if path.starts_with("/dev") && !path.starts_with("/dev/shm") => {
            Error::MissingDisk { path }
        }
        (Some(libc::ENOENT), ..) => Error::Missing { path },
        (Some(libc::EACCES), ..) => denied(path, found),
        (Some(libc::EROFS), ..) => Error::ReadOnly { path },
        // Another tender opens a disk with O_EXCL, and also locks it.
        (Some(libc::EBUSY), _, Some(found)) => match in_use(&path, Ok(found.clone())) {
            Error::InUseBySomebody { path } => Error::Mounted { path },
            in_use => in_use,
        },
        _ => Error::Open { path, error },
    }
}

fn denied(path: PathBuf, found: Option<&Metadata>) -> Error {
    let user = user_name(user());
    match found {
        Some(file) => Error::Denied {
            path,
            user,
            owner: format!(
                "user {} and group {}, mode {:04o}",
                user_name(file.uid()),
                group_name(file.gid()),
                file.mode() & 0o7777
            ),
        },
        None => Error::Hidden { path, user },
    }
}

/// Returns the size of an image or disk in bytes: at least one sector and, unless `tail` is kept,
/// only whole sectors.
pub(super) fn capacity(
    mut file: &File,
    path: &Path,
    sector_size: u16,
    tail: DiskTail,
) -> Result<u64, Error> {
    if !sector_size.is_power_of_two() || !(512..=32768).contains(&sector_size) {
        return Err(Error::SectorSize { sector_size });
    }
    // A disk's metadata has size 0; seeking to its end gives the size.
    let size = uninterrupted(|| file.seek(SeekFrom::End(0))).map_err(|error| Error::Size {
        path: path.into(),
        error,
    })?;
    let sector = u64::from(sector_size);
    let hint = || {
        if file.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return "give a smaller --block-sector-size".to_owned();
        }
        // Never suggests to change a file that is no raw image.
        match format(file) {
            Some(format) => format!("it is {}: {}", format.name, format.hint()),
            None => format!(
                "'truncate -s {} {}' fills the last one",
                size.next_multiple_of(sector),
                path.display()
            ),
        }
    };
    match tail {
        _ if size == 0 => Err(Error::Empty { path: path.into() }),
        _ if size % sector == 0 => Ok(size),
        DiskTail::Kept if size > sector => {
            log::warn!(
                "'{}' has {}, not a multiple of its sectors of {sector_size}; the guest gets them all, as with Solo5 up to \
                 0.7.3 (0.7.4 and later refuse); {}",
                path.display(),
                Count(size, "byte"),
                hint()
            );
            Ok(size)
        }
        DiskTail::Ignored if size > sector => Ok(size - size % sector),
        _ => Err(Error::PartialSector {
            path: path.into(),
            size,
            sector_size,
            hint: hint(),
        }),
    }
}

/// Returns the format of a file by its first bytes, if known.
fn format(file: &File) -> Option<Format> {
    let mut start = [0; LOOKED_AT];
    let length = uninterrupted(|| file.read_at(&mut start, 0)).ok()?;
    Format::of(&start[..length])
}

/// Warns of a file that is clearly no raw image: the guest would read its headers as sectors, and
/// overwrite them.
pub(super) fn warn_of_format(file: &File, path: &Path) {
    if let Some(format) = format(file).filter(|format| format.is_no_disk()) {
        let path = path.display();
        log::warn!(
            "'{path}' is {}, and the guest gets its raw bytes; {}",
            format.name,
            format.hint()
        );
    }
}
