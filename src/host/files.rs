//! The files and directories that the operator names by path. Each is found once, and examined
//! before it is opened.
//!
//! Paths can lead through the process's own descriptors (`/dev/fd/3`, `/dev/stdin`, `<(…)` of a
//! shell). They are resolved before the tender opens or closes anything, so that a number refers to
//! the caller's descriptor. Files are then opened through the result ([`Look`]), never by path
//! again.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags, fstat};
use rustix::io::Errno;

use crate::config::BlockSource;
use crate::config::{Config, SocketAddress, StatsTarget, UserOption};
use crate::host::user;

mod guard;
mod look;
mod shared;
#[cfg(test)]
mod tests;

pub use guard::Controlled;
use guard::User;
pub use look::{Look, Place};
pub use shared::{Shared, Use};

/// Identity of a file: the device and inode of a regular file, or 0 and the number of a block
/// device. Files with equal identities share their content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Device that holds the file; 0 for a block device.
    pub device: u64,
    /// Inode of the file; the block device's own number.
    pub inode: u64,
}

impl Identity {
    /// Returns the identity for fields of a `struct stat`; `None` for files without shared content,
    /// such as pipes.
    fn new(mode: u32, device: u64, inode: u64, number: u64) -> Option<Identity> {
        match mode & libc::S_IFMT {
            libc::S_IFREG => Some(Identity { device, inode }),
            libc::S_IFBLK => Some(Identity {
                device: 0,
                inode: number,
            }),
            _ => None,
        }
    }

    /// Returns the identity of an open file.
    pub fn of_descriptor(fd: impl AsFd) -> Option<Identity> {
        let stat = fstat(fd).ok()?;
        Identity::new(stat.st_mode, stat.st_dev, stat.st_ino, stat.st_rdev)
    }
}

/// Intended use of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Read a file.
    Read,
    /// Write a file.
    Write,
    /// Read and write a file.
    ReadWrite,
    /// Enter a directory.
    Enter,
    /// Create files in a directory.
    Make,
}

impl Need {
    /// Returns the flags for `open(2)`.
    fn flags(self) -> OFlags {
        match self {
            Need::Enter | Need::Make => OFlags::DIRECTORY,
            _ => OFlags::empty(),
        }
    }

    /// Returns the rights for `access(2)`.
    fn rights(self) -> Access {
        match self {
            Need::Read => Access::READ_OK,
            Need::Write => Access::WRITE_OK,
            Need::ReadWrite => Access::READ_OK | Access::WRITE_OK,
            Need::Enter => Access::EXEC_OK,
            Need::Make => Access::WRITE_OK | Access::EXEC_OK,
        }
    }
}

/// Files that were found and are not opened yet.
#[derive(Debug, Default)]
pub struct Files {
    /// The user of `--user`, whose links must not be followed with the rights of root.
    user: Option<User>,
    /// The error of looking up that user.
    no_user: Option<user::Error>,
    found: Vec<(PathBuf, Need, io::Result<Look>)>,
    /// Files that are read or written regardless of the unikernel's devices.
    uses: Vec<Use>,
}

/// Where a file is to be written.
#[derive(Debug)]
pub enum Target {
    /// An existing file.
    There(Look),
    /// A file that is yet to be created.
    New(Place),
}

impl Files {
    /// Returns an empty set for a run as this user.
    pub fn for_user(option: Option<&UserOption>) -> Files {
        let user = option.map_or(Ok(None), |option| User::other(user::permitted(option)?));
        let (user, no_user) = user.map_or_else(|error| (None, Some(error)), |user| (user, None));
        Files {
            user,
            no_user,
            ..Files::default()
        }
    }

    /// Returns the error of `--user`, if any. Call it before any file is taken.
    ///
    /// # Errors
    /// There is no such user, or this process cannot become that user.
    pub fn check_user(&mut self) -> Result<(), user::Error> {
        self.no_user.take().map_or(Ok(()), Err)
    }

    /// Finds every file that `config` names. Call it before anything is opened or closed. An error
    /// is kept until its file is taken.
    pub fn find(config: &Config, config_file: Option<Use>) -> Files {
        let mut files = Files::for_user(config.user.as_ref());
        let unikernel = &config.unikernel;
        files.look(unikernel, Need::Read);
        let identity = files.identity(unikernel);
        files
            .uses
            .extend(identity.map(|identity| Use::unikernel(unikernel, identity)));
        files.uses.extend(config_file);
        files.uses.extend(Use::standard_streams());
        for block in &config.blocks {
            if let Some(BlockSource::Path(path)) = &block.source {
                files.look(path, Need::ReadWrite);
            }
        }
        if let Some(StatsTarget::File(path)) = &config.output.stats {
            files.look(path, Need::Write);
            files.look_at_parent(path);
        }
        let sockets = [config.output.metrics.as_ref(), config.debugging.socket()];
        for address in sockets.into_iter().flatten() {
            if let SocketAddress::Path(path) = address {
                files.look_at_parent(path);
            }
        }
        for path in config.debugging.dumpcore.iter().chain(&config.chroot) {
            files.look(path, Need::Enter);
        }
        files
    }

    fn look(&mut self, path: &Path, need: Need) {
        let look = match descriptor_in(path) {
            // The number was free at the start, so this descriptor is not the caller's.
            Some(fd) if self.descriptors().any(|ours| ours == fd) => Err(Errno::NOENT.into()),
            _ => guard::look(path, need, self.user.as_ref()),
        };
        self.found.push((path.to_owned(), need, look));
    }

    fn look_at_parent(&mut self, path: &Path) {
        if let Ok((directory, _)) = look::parts(path) {
            self.look(directory, Need::Make);
        }
    }

    /// Returns the descriptors that are open for these files.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let found = self.found.iter();
        found.filter_map(|(_, _, look)| Some(look.as_ref().ok()?.as_raw_fd()))
    }

    fn identity(&self, path: &Path) -> Option<Identity> {
        let mut known = self.found.iter().filter(|(known, ..)| known == path);
        known.find_map(|(_, _, look)| look.as_ref().ok()?.identity())
    }

    /// Returns the file at `path`, which is looked up now if it was not before.
    ///
    /// # Errors
    /// Those of `open(2)`; and that the user of the run controls the path, but may not use the
    /// file.
    pub fn take(&mut self, path: &Path, need: Need) -> io::Result<Look> {
        let mut found = self.found.iter();
        match found.position(|(known, known_need, _)| known == path && *known_need == need) {
            Some(index) => self.found.swap_remove(index).2,
            None => guard::look(path, need, self.user.as_ref()),
        }
    }

    /// Returns where to create the new file `path`.
    ///
    /// # Errors
    /// Its directory cannot be found.
    pub fn place(&mut self, path: &Path) -> io::Result<Place> {
        let (directory, name) = look::parts(path)?;
        Ok(Place::new(self.take(directory, Need::Make)?, name))
    }

    /// Returns where to write the file `path`.
    ///
    /// # Errors
    /// Neither the file nor its directory can be found.
    pub fn target(&mut self, path: &Path) -> io::Result<Target> {
        match self.take(path, Need::Write) {
            Err(error) if is_missing(&error) && descriptor_in(path).is_none() => {
                let place = self.place(path)?;
                place.check_free().map(|()| Target::New(place))
            }
            look => look.map(Target::There),
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Returns the descriptor that `path` refers to, if it is a path of a descriptor.
pub fn descriptor_in(path: &Path) -> Option<RawFd> {
    let path = path.to_str()?;
    // The directories of a process's own descriptors.
    let number = path
        .strip_prefix("/dev/fd/")
        .or_else(|| path.strip_prefix("/proc/self/fd/"))
        .or_else(|| path.strip_prefix("/proc/thread-self/fd/"));
    number?.parse().ok()
}
