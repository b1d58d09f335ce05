//! A file that is looked at before it is opened: to open a tape, a watchdog or a pipe has effects.

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

/// A file or directory that a path led to. It stays the same one, whatever becomes of the path.
#[derive(Debug)]
pub struct Look {
    /// Opened with `O_PATH`: gives no right to the content, and has no effect on it.
    pin: File,
    path: PathBuf,
    metadata: Metadata,
    /// The user who may use it so, if it was looked at for one.
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

    /// What `path` was found to be.
    pub(super) fn found(pin: File, path: &Path) -> io::Result<Look> {
        let metadata = uninterrupted(|| pin.metadata())?;
        Ok(Look {
            pin,
            path: path.to_owned(),
            metadata,
            user: None,
        })
    }

    /// The same as a file of this user's.
    pub(super) fn of_user(self, user: Identity) -> Look {
        Look {
            user: Some(user),
            ..self
        }
    }

    /// The path, as the operator wrote it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file was when it was looked at.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What the file is, if that can be a file of two purposes.
    pub fn identity(&self) -> Option<FileIdentity> {
        FileIdentity::new(
            self.metadata.mode(),
            self.metadata.dev(),
            self.metadata.ino(),
            self.metadata.rdev(),
        )
    }

    /// Opens the file, by its pin and not by its path.
    ///
    /// # Errors
    /// Those of `open(2)`. Where there is no /proc, also that the path leads to another file meanwhile.
    pub fn open(&self, options: &OpenOptions) -> io::Result<File> {
        match options.open(self.proc_path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.open_by_path(options),
            opened => opened,
        }
    }

    /// Where there is no /proc, a file that replaces this one right now is opened, but not used.
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
            "the path leads to another file than a moment ago",
        ))
    }

    pub(super) fn proc_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.pin.as_raw_fd()).into()
    }

    /// Another descriptor of the directory. It is opened, as a filter of system calls may refuse to duplicate one.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn once_more(&self) -> io::Result<OwnedFd> {
        Ok(open_at(self.as_raw_fd(), c".", libc::O_PATH | libc::O_DIRECTORY)?.into())
    }

    /// Whether this process, as the user that it acts for, has these rights to the file.
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
    /// The pin, for calls that take a directory's descriptor.
    fn from(look: Look) -> OwnedFd {
        look.pin.into()
    }
}

fn access(at: RawFd, path: &CStr, rights: libc::c_int) -> io::Result<()> {
    // SAFETY: the path ends with a NUL, and the rest are numbers.
    uninterrupted(|| {
        match unsafe { libc::faccessat(at, path.as_ptr(), rights, libc::AT_EACCESS) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    })
}

/// Opens a file of the directory `at`. A new one gets the permissions that the process's mask leaves.
pub(super) fn open_at(at: RawFd, name: &CStr, flags: libc::c_int) -> io::Result<File> {
    // SAFETY: the name ends with a NUL.
    let fd = uninterrupted(|| {
        match unsafe { libc::openat(at, name.as_ptr(), flags | libc::O_CLOEXEC, 0o666) } {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(fd),
        }
    })?;
    // SAFETY: the descriptor is new and owned by nothing else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// A name in a directory, for a file that is yet to be made.
#[derive(Debug)]
pub struct Place {
    directory: OwnedFd,
    name: CString,
    /// Who gets what is made.
    owner: Option<Identity>,
}

/// The directory and the name that `path` consists of.
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

    /// A path to it that leads through no link of the operator's path, and works as long as this value lives. Nothing
    /// where there is no /proc.
    pub fn path(&self) -> Option<PathBuf> {
        let directory = PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd()));
        directory
            .exists()
            .then(|| directory.join(OsStr::from_bytes(self.name.as_bytes())))
    }

    /// Checks that there is no file of this name, as a link that leads to nothing would be.
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

    /// Whether the user of the run may make files there as well.
    pub fn is_of_user(&self) -> bool {
        self.owner.is_some()
    }

    /// Makes the file, for writing. Where the user of the run may do so as well, it gets the file, and may use it the
    /// next time.
    ///
    /// # Errors
    /// Those of `open(2)`; something is there already, be it a link.
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

    /// Whether this process may make, and remove, a file there.
    ///
    /// # Errors
    /// It may not.
    pub fn check(&self) -> io::Result<()> {
        access(self.directory.as_raw_fd(), c".", libc::W_OK | libc::X_OK)
    }
}
