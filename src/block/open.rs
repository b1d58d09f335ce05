//! From a path to an image or block device of one's own; and why not, in words.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Identity;

/// Why a block device cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file.
    #[error("there is no file '{path}'; 'truncate -s 64M {path}' makes an empty image")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// This user may not read and write the file.
    #[error(
        "user {user} may not read and write '{path}', which belongs to user {owner} and group {group} (mode {mode:04o})"
    )]
    Denied {
        /// The file.
        path: PathBuf,
        /// This process's user.
        user: u32,
        /// The file's user.
        owner: u32,
        /// The file's group.
        group: u32,
        /// The file's permission bits.
        mode: u32,
    },
    /// Writing what was written to the disk failed.
    #[error("cannot write '{path}' back to its disk")]
    Sync {
        /// The file.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
}

pub(super) fn open(path: &Path) -> Result<(File, Identity), Error> {
    todo!("{path:?}")
}

pub(super) fn lock(file: &File, path: &Path) -> Result<(), Error> {
    todo!("{path:?}{file:?}")
}

pub(super) fn capacity(file: &File, path: &Path, sector_size: u16) -> Result<u64, Error> {
    todo!("{path:?}{file:?}{sector_size}")
}
