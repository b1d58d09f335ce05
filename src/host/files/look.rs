//! A file that is examined before it is opened: opening a tape, a watchdog or a pipe has effects.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::path::Arg;

use super::{Identity as FileIdentity, Need};
use crate::host::ids;
use crate::host::signal::uninterrupted;
use crate::host::user::Identity;

/// A file or directory that a path led to. It stays the same one if the path changes.
#[derive(Debug)]
pub struct Look {
    /// Opened with `O_PATH`: grants no access to the content, and has no effect on it.
    pin: File,
    path: PathBuf,
    metadata: Metadata,
    /// The user whose rights were checked, if any.
    user: Option<Identity>,
}

impl Look {
    /// Follows `path`; `flags` may be `O_DIRECTORY`.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub(super) fn new(path: &Path, flags: OFlags) -> io::Result<Look> {
        Look::found(open_at(CWD, path, OFlags::PATH | flags)?, path)
    }

    /// Returns the file at `path`, pinned by `pin`.
    pub(super) fn found(pin: File, path: &Path) -> io::Result<Look> {
        let metadata = uninterrupted(|| pin.metadata())?;
        Ok(Look {
            pin,
            path: path.to_owned(),
            metadata,
            user: None,
        })
    }

    /// Marks the file as checked for this user.
    pub(super) fn of_user(self, user: Identity) -> Look {
        Look {
            user: Some(user),
            ..self
        }
    }

    /// Returns the path as the operator wrote it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the metadata of the file when it was found.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Returns the file's identity, for files that can be used for two purposes.
    pub fn identity(&self) -> Option<FileIdentity> {
        let Look { metadata, .. } = self;
        let (device, inode) = (metadata.dev(), metadata.ino());
        FileIdentity::new(metadata.mode(), device, inode, metadata.rdev())
    }

    /// Opens the file through its pin, not by its path.
    ///
    /// # Errors
    /// Those of `open(2)`. Without /proc, also that the path leads to another file now.
    pub fn open(&self, options: &OpenOptions) -> io::Result<File> {
        match options.open(self.proc_path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.open_by_path(options),
            opened => opened,
        }
    }

    /// Fallback without /proc: opens a file that replaced this one in the meantime, but does not
    /// return it.
    fn open_by_path(&self, options: &OpenOptions) -> io::Result<File> {
        let file = options.open(&self.path)?;
        let metadata = uninterrupted(|| file.metadata())?;
        let of = |file: &Metadata| (file.dev(), file.ino(), file.file_type());
        if of(&metadata) != of(&self.metadata) {
            let message = "the path leads to a different file than before";
            return Err(io::Error::other(message));
        }
        Ok(file)
    }

    pub(super) fn proc_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.pin.as_raw_fd()).into()
    }

    /// Returns another descriptor of the directory. Opens it again, because a system call filter
    /// may reject dup.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn reopen(&self) -> io::Result<OwnedFd> {
        Ok(open_at(self, c".", OFlags::PATH | OFlags::DIRECTORY)?.into())
    }

    /// Checks that this process, as the user that it acts for, has the rights for `need`.
    ///
    /// # Errors
    /// It has not.
    pub fn check(&self, need: Need) -> io::Result<()> {
        access(CWD, self.proc_path(), need)
    }
}

impl AsFd for Look {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pin.as_fd()
    }
}

impl AsRawFd for Look {
    fn as_raw_fd(&self) -> RawFd {
        self.pin.as_raw_fd()
    }
}

impl From<Look> for OwnedFd {
    /// Returns the pin, for calls that take a directory's descriptor.
    fn from(look: Look) -> OwnedFd {
        look.pin.into()
    }
}

fn access(at: impl AsFd, path: impl Arg + Clone, need: Need) -> io::Result<()> {
    uninterrupted(|| {
        path.clone()
            .into_with_c_str(|path| Ok(ids::access(&at, path, need.rights())))
            .map_err(io::Error::from)?
    })
}

/// Opens a file in the directory `at`. A new one gets the permissions that the umask leaves.
pub(super) fn open_at(at: impl AsFd, name: impl Arg + Clone, flags: OFlags) -> io::Result<File> {
    let (flags, mode) = (flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o666));
    let file = retry_on_intr(|| rustix::fs::openat(&at, name.clone(), flags, mode))?;
    Ok(file.into())
}

/// A name in a directory, for a file that is yet to be created.
#[derive(Debug)]
pub struct Place {
    directory: OwnedFd,
    name: OsString,
    /// Owner of the new file.
    owner: Option<Identity>,
}

/// Splits `path` into the directory and the name.
///
/// # Errors
/// It names a directory.
pub(super) fn parts(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let is_directory = path.as_os_str().as_bytes().ends_with(b"/");
    let name = path.file_name().filter(|_| !is_directory);
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
    Ok((
        directory.unwrap_or(Path::new(".")),
        name.ok_or(Errno::ISDIR)?,
    ))
}

impl Place {
    pub(super) fn new(directory: Look, name: &OsStr) -> Place {
        Place {
            owner: directory.user,
            directory: directory.into(),
            name: name.to_owned(),
        }
    }

    /// Returns a path to it that leads through no link of the operator's path and is valid as long
    /// as this value lives. `None` without /proc.
    pub fn path(&self) -> Option<PathBuf> {
        let directory = PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd()));
        directory.exists().then(|| directory.join(&self.name))
    }

    /// Checks that no file has this name, such as a dangling link.
    ///
    /// # Errors
    /// There is one.
    pub(super) fn check_free(&self) -> io::Result<()> {
        match rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(io::Error::other("this is a link that leads to no file")),
            Err(_) => Ok(()),
        }
    }

    /// Returns whether the user of the run may create files there as well.
    pub fn is_of_user(&self) -> bool {
        self.owner.is_some()
    }

    /// Creates the file for writing. If the user of the run may create files there, the user
    /// becomes its owner and can use it in the next run.
    ///
    /// # Errors
    /// Those of `open(2)`; something exists already, even a link.
    pub fn create_new(&self) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = open_at(&self.directory, &self.name, flags)?;
        if let Some(Identity { uid, gid }) = self.owner {
            fchown(&file, Some(uid), Some(gid)).inspect_err(|_| self.remove())?;
        }
        Ok(file)
    }

    /// Removes the file. It may be gone already.
    pub fn remove(&self) {
        let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
    }

    /// Checks that this process may create and remove a file there.
    ///
    /// # Errors
    /// It may not.
    pub fn check(&self) -> io::Result<()> {
        access(&self.directory, c".", Need::Make)
    }
}
