//! Paths of a run as another user (`--user`), followed with the rights of root.
//!
//! That user may be able to change the path, so root must not reach a file through it that the user
//! could not use. The tender queries the kernel as that user: about the file and, if access is
//! refused, about each directory and link on the way.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, OFlags, PROC_SUPER_MAGIC, accessat, fstatfs, readlinkat};
use rustix::io::Errno;
use rustix::path::Arg;
use rustix::process::Gid;

use super::look::open_at;
use super::{Look, Need};
use crate::host::ids;
use crate::host::user::{self, Identity, acting, check_acting, groups_of};

/// Most links on a path, as in the kernel.
const MOST_LINKS: usize = 40;

/// Why a path is not followed.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[error("user {user} may not use it, but controls '{}', which leads there", component.display())]
pub struct Controlled {
    user: String,
    component: PathBuf,
}

impl Controlled {
    /// Returns whether `error` is this one.
    pub fn is(error: &io::Error) -> bool {
        error
            .get_ref()
            .is_some_and(|error| error.is::<Controlled>())
    }
}

/// The user of a run that root starts.
#[derive(Clone, Debug)]
pub(super) struct User {
    identity: Identity,
    /// All groups that the user's other processes may have.
    groups: Vec<Gid>,
}

impl User {
    /// Returns the user, or `None` if this process already runs as that user.
    ///
    /// # Errors
    /// This process cannot become that user.
    pub(super) fn other(identity: Identity) -> Result<Option<User>, user::Error> {
        if identity.uid == ids::user() {
            return Ok(None);
        }
        let groups = groups_of(identity);
        check_acting(identity, &groups)?;
        Ok(Some(User { identity, groups }))
    }

    /// Returns whether the kernel grants this user the rights for `need`. `path` is relative to the
    /// directory `at`.
    fn may(&self, at: impl AsFd, path: impl Arg, need: Need) -> io::Result<bool> {
        // Without flags, the kernel checks the real user.
        acting(self.identity, &self.groups, || {
            accessat(at, path, need.rights(), AtFlags::empty()).is_ok()
        })
    }

    fn controls(&self, component: &Path) -> io::Error {
        let is_here = component.as_os_str().is_empty();
        io::Error::other(Controlled {
            user: ids::user_name(self.identity.uid),
            component: if is_here { Path::new(".") } else { component }.to_owned(),
        })
    }

    fn owns(&self, metadata: &Metadata) -> bool {
        metadata.uid() == self.identity.uid
    }
}

/// Follows `path` to a file for `need`. In a run as `user`, fails if the rights of root would give
/// that user access.
///
/// # Errors
/// Those of `open(2)`, and [`Controlled`].
pub(super) fn look(path: &Path, need: Need, user: Option<&User>) -> io::Result<Look> {
    let Some(user) = user else {
        return Look::new(path, need.flags());
    };
    match look_as(path, need, user) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let found = Walk::start(user, path.is_absolute())?.follow(path)?;
            if need.flags() == OFlags::DIRECTORY && !found.metadata()?.is_dir() {
                return Err(Errno::NOTDIR.into());
            }
            Look::found(found, path)
        }
        look => look,
    }
}

/// Returns the file that `user` finds, if that user has the rights for `need`.
fn look_as(path: &Path, need: Need, user: &User) -> io::Result<Look> {
    let look = acting(user.identity, &user.groups, || {
        Look::new(path, need.flags())
    })??;
    if user.may(CWD, look.proc_path(), need)? {
        Ok(look.of_user(user.identity))
    } else {
        Err(Errno::ACCESS.into())
    }
}

/// A path that is followed component by component.
struct Walk<'u> {
    user: &'u User,
    /// The current directory, and the path to it.
    at: File,
    shown: PathBuf,
    /// The directory is sticky: the user may create files there, but not replace those of others.
    is_sticky: bool,
    /// Remaining components of the path, last first.
    rest: Vec<OsString>,
    links: usize,
}

impl<'u> Walk<'u> {
    /// Starts at the root directory, or at the working directory, whose path is empty.
    fn start(user: &'u User, is_root: bool) -> io::Result<Walk<'u>> {
        let (directory, shown) = if is_root { ("/", "/") } else { (".", "") };
        let at = pin(CWD, directory, OFlags::empty())?;
        let mut walk = Walk {
            user,
            at: at.try_clone()?,
            shown: PathBuf::new(),
            is_sticky: false,
            rest: Vec::new(),
            links: 0,
        };
        walk.enter(at, PathBuf::from(shown))?;
        Ok(walk)
    }

    /// Follows all of the path. Returns the file or directory at its end.
    fn follow(mut self, path: &Path) -> io::Result<File> {
        self.turn_to(path)?;
        while let Some(name) = self.rest.pop() {
            let shown = self.shown.join(&name);
            let entry = pin(&self.at, &name, OFlags::NOFOLLOW)?;
            let metadata = entry.metadata()?;
            if self.is_sticky && !metadata.is_dir() {
                return Err(self.user.controls(&self.shown));
            }
            if self.user.owns(&metadata) {
                return Err(self.user.controls(&shown));
            }
            let entry = if metadata.is_symlink() {
                self.follow_link(&entry, &name)?
            } else {
                Some(entry)
            };
            match entry {
                Some(entry) if entry.metadata()?.is_dir() => self.enter(entry, shown)?,
                Some(entry) if self.rest.is_empty() => return self.end(entry, &name, &shown),
                Some(_) => return Err(Errno::NOTDIR.into()),
                None => {}
            }
        }
        Ok(self.at)
    }

    /// Puts `path` in front of the remaining path.
    fn turn_to(&mut self, path: &Path) -> io::Result<()> {
        if path.is_absolute() {
            let root = Walk::start(self.user, true)?;
            (self.at, self.shown, self.is_sticky) = (root.at, root.shown, root.is_sticky);
        }
        let names = path.components().rev();
        let names =
            names.filter(|name| matches!(name, Component::Normal(_) | Component::ParentDir));
        self.rest
            .extend(names.map(|name| name.as_os_str().to_owned()));
        Ok(())
    }

    /// Returns the file of a magic link of the kernel, such as /proc/self/fd/3. Another link is put
    /// in front of the remaining path.
    fn follow_link(&mut self, link: &File, name: &OsStr) -> io::Result<Option<File>> {
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::LOOP.into());
        }
        if is_of_proc(link)? {
            return pin(&self.at, name, OFlags::empty()).map(Some);
        }
        let target = readlinkat(link, c"", Vec::new())?;
        self.turn_to(&PathBuf::from(OsString::from_vec(target.into_bytes())))?;
        Ok(None)
    }

    /// Enters a directory, which the user must not control.
    fn enter(&mut self, directory: File, shown: PathBuf) -> io::Result<()> {
        let metadata = directory.metadata()?;
        // In /proc write permission is meaningless: only the kernel creates files there.
        let may_write = !is_of_proc(&directory)? && self.user.may(&directory, c".", Need::Make)?;
        self.is_sticky = may_write && metadata.mode() & libc::S_ISVTX != 0;
        if self.user.owns(&metadata) || may_write && !self.is_sticky {
            return Err(self.user.controls(&shown));
        }
        (self.at, self.shown) = (directory, shown);
        Ok(())
    }

    /// Returns the file at the end, which the user must not control.
    fn end(self, file: File, name: &OsStr, shown: &Path) -> io::Result<File> {
        let owns = self.user.owns(&file.metadata()?);
        if owns || self.user.may(&self.at, name, Need::Write)? {
            Err(self.user.controls(shown))
        } else {
            Ok(file)
        }
    }
}

fn pin(at: impl AsFd, name: impl Arg + Clone, flags: OFlags) -> io::Result<File> {
    open_at(at, name, OFlags::PATH | flags)
}

fn is_of_proc(file: &File) -> io::Result<bool> {
    Ok(fstatfs(file)?.f_type == PROC_SUPER_MAGIC)
}
