//! A file that is examined before it is opened: opening a tape, a watchdog or a pipe has effects.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use super::Identity as FileIdentity;
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
    pub(super) fn new(path: &Path, flags: libc::c_int) -> io::Result<Look> {
        let pin = File::options()
            .read(true)
            .custom_flags(libc::O_PATH | flags)
            .open(path)?;
        Look::found(pin, path)
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
        FileIdentity::new(
            self.metadata.mode(),
            self.metadata.dev(),
            self.metadata.ino(),
            self.metadata.rdev(),
        )
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
        let same = |metadata: &Metadata| {
            (
                metadata.dev(),
                metadata.ino(),
                metadata.mode() & libc::S_IFMT,
            )
        };
        if same(&metadata) == same(&self.metadata) {
            return Ok(file);
        }
        Err(io::Error::other(
            "the path leads to a different file than before",
        ))
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
        Ok(open_at(self.as_raw_fd(), c".", libc::O_PATH | libc::O_DIRECTORY)?.into())
    }

    /// Checks that this process, as the user that it acts for, has these rights to the file.
    ///
    /// # Errors
    /// It has not.
    pub fn check(&self, rights: libc::c_int) -> io::Result<()> {
        let path = CString::new(self.proc_path().into_os_string().into_vec())?;
        access(libc::AT_FDCWD, &path, rights)
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

fn access(at: RawFd, path: &CStr, rights: libc::c_int) -> io::Result<()> {
    uninterrupted(|| {
        // SAFETY: the path ends with a NUL, and the rest are numbers.
        match unsafe { libc::faccessat(at, path.as_ptr(), rights, libc::AT_EACCESS) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    })
}

/// Opens a file in the directory `at`. A new one gets the permissions that the umask leaves.
pub(super) fn open_at(at: RawFd, name: &CStr, flags: libc::c_int) -> io::Result<File> {
    let fd = uninterrupted(|| {
        // SAFETY: the name ends with a NUL.
        match unsafe { libc::openat(at, name.as_ptr(), flags | libc::O_CLOEXEC, 0o666) } {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(fd),
        }
    })?;
    // SAFETY: the descriptor is new and owned by nothing else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// A name in a directory, for a file that is yet to be created.
#[derive(Debug)]
pub struct Place {
    directory: OwnedFd,
    name: CString,
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
    let name = name.ok_or(io::Error::from_raw_os_error(libc::EISDIR))?;
    let directory = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty());
    Ok((directory.unwrap_or(Path::new(".")), name))
}

impl Place {
    pub(super) fn new(directory: Look, name: &OsStr) -> io::Result<Place> {
        let owner = directory.user;
        Ok(Place {
            directory: directory.into(),
            name: CString::new(name.as_bytes())?,
            owner,
        })
    }

    /// Returns a path to it that leads through no link of the operator's path and is valid as long
    /// as this value lives. `None` without /proc.
    pub fn path(&self) -> Option<PathBuf> {
        let directory = PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd()));
        directory
            .exists()
            .then(|| directory.join(OsStr::from_bytes(self.name.as_bytes())))
    }

    /// Checks that no file has this name, such as a dangling link.
    ///
    /// # Errors
    /// There is one.
    pub(super) fn check_free(&self) -> io::Result<()> {
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        let (directory, flags) = (self.directory.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
        // SAFETY: the name ends with a NUL; the kernel writes one structure.
        match unsafe { libc::fstatat(directory, self.name.as_ptr(), stat.as_mut_ptr(), flags) } {
            0 => Err(io::Error::other("this is a link that leads to no file")),
            _ => Ok(()),
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
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let file = open_at(self.directory.as_raw_fd(), &self.name, flags)?;
        if let Some(Identity { uid, gid }) = self.owner {
            fchown(&file, Some(uid), Some(gid)).inspect_err(|_| self.remove())?;
        }
        Ok(file)
    }

    /// Removes the file. It may be gone already.
    pub fn remove(&self) {
        // SAFETY: the name ends with a NUL; the descriptor is open.
        unsafe { libc::unlinkat(self.directory.as_raw_fd(), self.name.as_ptr(), 0) };
    }

    /// Checks that this process may create and remove a file there.
    ///
    /// # Errors
    /// It may not.
    pub fn check(&self) -> io::Result<()> {
        access(self.directory.as_raw_fd(), c".", libc::W_OK | libc::X_OK)
    }
}
