//! The files and directories that the operator names by path, each found once and looked at before it is opened.
//!
//! Paths can lead through the process's own descriptors (`/dev/fd/3`, `/dev/stdin`, `<(…)` of a shell). They are followed
//! before the tender opens or closes anything, so that a number means what it means to the caller. Files are then opened
//! by what was found ([`Look`]), never by path again.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

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

/// What a file is: the device and inode of a regular file, or 0 and the number of a block device. Equal identities mean
/// the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Device that holds the file; 0 for a block device.
    pub device: u64,
    /// Inode of the file; the block device's own number.
    pub inode: u64,
}

impl Identity {
    /// From the fields of a `struct stat`. None for files without bytes to share, such as pipes.
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

    /// That of an open file, if descriptor `fd` is open.
    pub fn of_descriptor(fd: RawFd) -> Option<Identity> {
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the kernel fills the structure if it returns 0.
        let stat = unsafe {
            if libc::fstat(fd, stat.as_mut_ptr()) != 0 {
                return None;
            }
            stat.assume_init()
        };
        Identity::new(stat.st_mode, stat.st_dev, stat.st_ino, stat.st_rdev)
    }
}

/// What a file or directory is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A file, to read it.
    Read,
    /// A file, to write it.
    Write,
    /// A file, to read and write it.
    ReadWrite,
    /// A directory, to be in it.
    Enter,
    /// A directory, to make files in it.
    Make,
}

impl Need {
    /// The flags that `open(2)` takes.
    fn flags(self) -> libc::c_int {
        if matches!(self, Need::Enter | Need::Make) {
            libc::O_DIRECTORY
        } else {
            0
        }
    }

    /// The rights that `access(2)` asks about.
    fn rights(self) -> libc::c_int {
        match self {
            Need::Read => libc::R_OK,
            Need::Write => libc::W_OK,
            Need::ReadWrite => libc::R_OK | libc::W_OK,
            Need::Enter => libc::X_OK,
            Need::Make => libc::W_OK | libc::X_OK,
        }
    }
}

/// Everything that was found and not yet opened.
#[derive(Debug, Default)]
pub struct Files {
    /// The user of `--user`, whose links are not to be followed with the rights of root.
    user: Option<User>,
    /// Why there is no such user.
    no_user: Option<user::Error>,
    found: Vec<(PathBuf, Need, io::Result<Look>)>,
    /// What is read or written whatever the unikernel declares.
    uses: Vec<Use>,
}

/// Where a file is to be written.
#[derive(Debug)]
pub enum Target {
    /// It is there.
    There(Look),
    /// It is yet to be made.
    New(Place),
}

impl Files {
    /// For a run as this user.
    pub fn for_user(option: Option<&UserOption>) -> Files {
        let user = option.map_or(Ok(None), |option| User::other(user::permitted(option)?));
        let (user, no_user) = user.map_or_else(|error| (None, Some(error)), |user| (user, None));
        Files {
            user,
            no_user,
            ..Files::default()
        }
    }

    /// Why there can be no run as the user that is asked for, if there can be none. To be asked before any file is taken.
    ///
    /// # Errors
    /// That there is no such user, or that this process cannot become that user.
    pub fn check_user(&mut self) -> Result<(), user::Error> {
        self.no_user.take().map_or(Ok(()), Err)
    }

    /// Finds every file that `config` names. Call it before anything is opened or closed. Errors are kept until the
    /// file is taken.
    pub fn find(config: &Config, config_file: Option<Use>) -> Files {
        let mut files = Files::for_user(config.user.as_ref());
        files.look(&config.unikernel, Need::Read);
        files.uses.extend(Use::unikernel(
            &config.unikernel,
            files.identity(&config.unikernel),
        ));
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
        for address in [config.output.metrics.as_ref(), config.debugging.socket()]
            .into_iter()
            .flatten()
        {
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
            // Its number was free, so it is not the caller's.
            Some(fd) if self.descriptors().any(|ours| ours == fd) => {
                Err(io::Error::from_raw_os_error(libc::ENOENT))
            }
            _ => guard::look(path, need, self.user.as_ref()),
        };
        self.found.push((path.to_owned(), need, look));
    }

    fn look_at_parent(&mut self, path: &Path) {
        if let Ok((directory, _)) = look::parts(path) {
            self.look(directory, Need::Make);
        }
    }

    /// What is open for them.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.found
            .iter()
            .filter_map(|(_, _, look)| look.as_ref().ok())
            .map(Look::as_raw_fd)
    }

    fn identity(&self, path: &Path) -> Option<Identity> {
        let mut known = self.found.iter().filter(|(known, ..)| known == path);
        known.find_map(|(_, _, look)| look.as_ref().ok()?.identity())
    }

    /// What `path` led to. If that was not looked for yet, it is now.
    ///
    /// # Errors
    /// Those of `open(2)`; and that the user of the run controls the path, but may not use the file.
    pub fn take(&mut self, path: &Path, need: Need) -> io::Result<Look> {
        match self
            .found
            .iter()
            .position(|(known, use_, _)| known == path && *use_ == need)
        {
            Some(index) => self.found.swap_remove(index).2,
            None => guard::look(path, need, self.user.as_ref()),
        }
    }

    /// Where to make the new file `path`.
    ///
    /// # Errors
    /// Its directory cannot be found.
    pub fn place(&mut self, path: &Path) -> io::Result<Place> {
        let (directory, name) = look::parts(path)?;
        Place::new(self.take(directory, Need::Make)?, name)
    }

    /// Where to write the file `path`.
    ///
    /// # Errors
    /// Neither the file nor its directory can be found.
    pub fn target(&mut self, path: &Path) -> io::Result<Target> {
        match self.take(path, Need::Write) {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && descriptor_in(path).is_none() =>
            {
                let place = self.place(path)?;
                place.check_free().map(|()| Target::New(place))
            }
            look => look.map(Target::There),
        }
    }
}

/// The descriptor whose path `path` is, if it is written as one.
pub fn descriptor_in(path: &Path) -> Option<RawFd> {
    let path = path.to_str()?;
    let mut numbers = DESCRIPTORS
        .iter()
        .filter_map(|directory| path.strip_prefix(directory));
    numbers.next()?.parse().ok()
}

/// Where the kernel shows a process its own descriptors.
const DESCRIPTORS: [&str; 3] = ["/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/"];
