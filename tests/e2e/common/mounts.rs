//! A private /dev for a command, with only the devices that the test wants.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{LIMIT, host_error, text};

/// The user and group nobody.
const NOBODY: u32 = 65534;

/// A device, named by its path below /dev.
#[derive(Clone, Copy)]
pub enum Device<'n> {
    /// The machine's own device, with its owner and permissions.
    Ours(&'n str),
    /// A device with the same number and these permissions. Only the superuser can make it.
    Made(&'n str, libc::mode_t),
    /// As `Made`, with this group.
    OfGroup(&'n str, libc::mode_t, libc::gid_t),
}

/// Instructions to make a device, in a form that needs no memory allocation.
struct Recipe {
    original: CString,
    copy: CString,
    number: libc::dev_t,
    made: Option<(libc::mode_t, libc::gid_t)>,
}

impl Recipe {
    fn new(device: Device, directory: &Path) -> Recipe {
        let (name, made) = match device {
            Device::Ours(name) => (name, None),
            Device::Made(name, mode) => (name, Some((mode, 0))),
            Device::OfGroup(name, mode, group) => (name, Some((mode, group))),
        };
        let path = format!("/dev/{name}");
        let number = std::fs::metadata(&path).map_or(0, |device| device.rdev());
        Recipe {
            original: string(path),
            copy: string(format!("{}/{name}", text(directory))),
            number,
            made,
        }
    }

    fn make(&self) -> io::Result<()> {
        let (from, to) = (self.original.as_ptr(), self.copy.as_ptr());
        // SAFETY: all are system calls, and both strings end with a NUL.
        unsafe {
            if let Some((mode, group)) = self.made {
                done(libc::mknod(to, libc::S_IFCHR | mode, self.number))?;
                done(libc::chown(to, 0, group))?;
                return done(libc::chmod(to, mode));
            }
            done(libc::mknod(to, libc::S_IFREG | 0o600, 0))?;
            done(libc::mount(
                from,
                to,
                c"none".as_ptr(),
                libc::MS_BIND,
                std::ptr::null(),
            ))
        }
    }
}

/// A root directory for a command, in memory; it ends with the test. Needs a thread in a private
/// mount namespace, which every test in a network namespace has.
pub struct Root(tempfile::TempDir);

impl Root {
    /// An empty root.
    pub fn new() -> Root {
        let root = Root(super::directory());
        mount(Path::new("none"), root.0.path(), c"tmpfs", 0);
        root
    }

    /// Path of `name`, seen from outside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Mounts the file or directory `from` of the host as `name`.
    pub fn show(&self, from: &Path, name: &str) {
        let place = self.path(name);
        if from.is_dir() {
            std::fs::create_dir_all(&place).unwrap();
        } else {
            File::create(&place).unwrap();
        }
        bind(from, &place);
    }

    /// Makes the root read-only; what is mounted in it stays as it is.
    pub fn make_read_only(&self) {
        let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
        let deadline = Instant::now() + LIMIT;
        // A child that another test has just started may have our copies open for writing, until
        // its exec.
        while let Err(error) = try_mount(Path::new("none"), self.0.path(), c"none", flags) {
            assert!(
                Instant::now() < deadline,
                "the root directory cannot be made read-only: {error}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Makes the command start with this as its root directory.
    pub fn enter<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let root = string(text(self.0.path()).into());
        // SAFETY: both are system calls, which are safe between fork and exec, and the strings end
        // with a NUL.
        unsafe {
            command.pre_exec(move || {
                done(libc::chroot(root.as_ptr())).and(done(libc::chdir(c"/".as_ptr())))
            })
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let path = string(text(self.0.path()).into());
        // SAFETY: it is a system call, and the string ends with a NUL. If it fails, the directory
        // cannot be removed.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Mounts the file or directory `from` over `to`, for this thread and its children. Needs a thread
/// in a private mount namespace.
pub fn bind(from: &Path, to: &Path) {
    mount(from, to, c"none", libc::MS_BIND | libc::MS_REC);
}

fn mount(from: &Path, to: &Path, kind: &CStr, flags: libc::c_ulong) {
    try_mount(from, to, kind, flags)
        .unwrap_or_else(|error| panic!("{to:?} cannot be mounted: {error}"));
}

fn try_mount(from: &Path, to: &Path, kind: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    let (from, to) = (string(text(from).into()), string(text(to).into()));
    // SAFETY: it is a system call, and the strings end with a NUL.
    done(unsafe {
        libc::mount(
            from.as_ptr(),
            to.as_ptr(),
            kind.as_ptr(),
            flags,
            std::ptr::null(),
        )
    })
}

fn string(text: String) -> CString {
    CString::new(text).expect("the paths of tests have no NUL")
}

/// Whether a private mount namespace is available: it is not where / is a directory of another
/// root, as in a plain chroot.
pub fn available() -> Result<(), String> {
    // In a separate thread: a namespace is entered permanently.
    let tried =
        std::thread::spawn(|| be_private().map_err(|_| host_error("no private mount namespace")));
    tried
        .join()
        .unwrap_or_else(|_| Err("no private mount namespace".into()))
}

/// Moves this thread, and the children it starts later, into a new mount namespace. Allocates
/// nothing.
pub fn be_private() -> io::Result<()> {
    let (none, flags) = (c"none".as_ptr(), libc::MS_REC | libc::MS_PRIVATE);
    // SAFETY: both are system calls, and the strings end with a NUL.
    unsafe {
        done(libc::unshare(libc::CLONE_NEWNS))?;
        done(libc::mount(
            none,
            c"/".as_ptr(),
            none,
            flags,
            std::ptr::null(),
        ))
    }
}

/// Makes the command start with a /dev that has exactly these devices, assembled in `directory`.
pub fn with_devices<'c>(
    command: &'c mut Command,
    directory: &Path,
    devices: &[Device],
) -> &'c mut Command {
    let recipes: Vec<_> = devices
        .iter()
        .map(|device| Recipe::new(*device, directory))
        .collect();
    let (place, net) = (
        string(text(directory).to_owned()),
        string(format!("{}/net", text(directory))),
    );
    // SAFETY: only system calls are made, which are safe between fork and exec, and all strings end
    // with a NUL.
    unsafe {
        command.pre_exec(move || {
            let (none, nothing) = (c"none".as_ptr(), std::ptr::null());
            be_private()?;
            done(libc::mount(
                none,
                place.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                c"mode=0755".as_ptr().cast(),
            ))?;
            done(libc::mkdir(net.as_ptr(), 0o755))?;
            recipes.iter().try_for_each(Recipe::make)?;
            done(libc::mount(
                place.as_ptr(),
                c"/dev".as_ptr(),
                none,
                libc::MS_BIND | libc::MS_REC,
                nothing,
            ))
        })
    }
}

/// Makes the command run as the user nobody. Earlier `pre_exec` steps run before that, as our user.
pub fn as_nobody(command: &mut Command) -> &mut Command {
    // SAFETY: as above.
    unsafe {
        command.pre_exec(|| {
            done(libc::setgroups(0, std::ptr::null()))?;
            done(libc::setgid(NOBODY))?;
            done(libc::setuid(NOBODY))
        })
    }
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
