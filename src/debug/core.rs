//! `--dumpcore`: the registers and the memory of a guest that came to a bad end, in a file for gdb. For whoever wants
//! to know why it did, and was not there.
//!
//! The file is made when it is needed, from within the sandbox: a run that ends well leaves nothing behind, whatever
//! ends it. What that takes is opened before, and no more is allowed than to make one new file where it lies.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use guest_abi::hypercall::STATUS_ABORT;
use libc::{c_int, c_long};

use crate::arch::{self, Vcpu};
use crate::config::Config;
use crate::host::files::{Files, Need};
use crate::host::signal::{self, Request};
use crate::memory::{GuestAddress, GuestMemory, PAGE_SIZE};
use crate::outcome::{Error as RunError, Outcome};
use crate::sandbox::rules::{CORE_FLAGS, CORE_MODE};

mod elf;

/// Why there could be no core file, found out before the guest runs.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum Error {
    #[error("--dumpcore={}: {source}; give a directory", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error(
        "--dumpcore={}: unprivileged user {user} cannot create files there: {source}; \
         give a directory that this user can write to",
        path.display()
    )]
    Denied {
        path: PathBuf,
        user: u32,
        source: io::Error,
    },
}

/// Where core files go.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The guest's file, to tell how to look at a core.
    unikernel: PathBuf,
    /// Gives no right to its files, but can be made files in.
    fd: OwnedFd,
    /// Keeps a number that the file will have: known to the sandbox before there is a file.
    reserve: OwnedFd,
    /// The number of this process, which cannot be asked for from within the sandbox.
    process: i32,
    /// Whether files are named as solo5-hvt names them.
    as_solo5_hvt: bool,
}

impl Directory {
    /// Opens what `config` asks for, if it does; changes nothing.
    ///
    /// # Errors
    /// [`Error::Directory`].
    pub fn open(config: &Config, files: &mut Files) -> Result<Option<Directory>, Error> {
        let Some(path) = &config.debugging.dumpcore else {
            return Ok(None);
        };
        let both = files
            .take(path, Need::Enter)
            .and_then(|look| Ok((look.once_more()?, look.into())));
        let (fd, reserve) = both.map_err(|source| Error::Directory {
            path: path.clone(),
            source,
        })?;
        let (path, unikernel) = (path.clone(), config.unikernel.clone());
        let (process, as_solo5_hvt) = (std::process::id() as i32, config.debugging.as_solo5_hvt);
        Ok(Some(Directory {
            path,
            unikernel,
            fd,
            reserve,
            process,
            as_solo5_hvt,
        }))
    }

    /// Whether this process may make a file there: to be asked when it is who it will be.
    ///
    /// # Errors
    /// [`Error::Denied`].
    pub fn check(&self) -> Result<(), Error> {
        let needed = libc::W_OK | libc::X_OK;
        // SAFETY: the string ends with a NUL; the descriptor is open.
        let access = || unsafe { libc::faccessat(self.fd.as_raw_fd(), c".".as_ptr(), needed, 0) };
        let allowed = signal::uninterrupted(|| checked(access().into()));
        // SAFETY: the call takes nothing and cannot fail.
        let user = || unsafe { libc::getuid() };
        allowed.map(drop).map_err(|source| Error::Denied {
            path: self.path.clone(),
            user: user(),
            source,
        })
    }

    /// The descriptor of the directory, and the one that a file there will have.
    pub fn descriptors(&self) -> (RawFd, RawFd) {
        (self.fd.as_raw_fd(), self.reserve.as_raw_fd())
    }

    /// Makes the core file of a guest that runs no more, if `outcome` is one that asks for it, and says where it is.
    /// `cookie` is what the guest gave with HALT, or 0. What goes wrong with it is told, and is no matter to the run.
    pub fn leave_core(
        self,
        outcome: &Result<Outcome, RunError>,
        vcpu: &mut Vcpu,
        memory: &GuestMemory,
        cookie: GuestAddress,
    ) {
        let Some(signal) = signal_of(outcome) else {
            return;
        };
        vcpu.settle();
        let program = if self.as_solo5_hvt {
            "solo5-hvt"
        } else {
            "tender"
        };
        let name = format!("core.{program}.{}", self.process);
        let (path, unikernel) = (self.path.join(&name), self.unikernel.clone());
        let (path, unikernel) = (path.display(), unikernel.display());
        let beginning = self
            .beginning(signal, vcpu, memory, cookie)
            .map_err(io::Error::other);
        match beginning.and_then(|beginning| write(&self.make(name)?, &beginning, memory)) {
            Ok(()) => {
                log::warn!("core file written to {path}; open it with: gdb {unikernel} {path}")
            }
            Err(error) => log::warn!("--dumpcore: {path}: {error}; {}", cure(&error)),
        }
    }

    /// All of the file but the memory.
    fn beginning(
        &self,
        signal: c_int,
        vcpu: &Vcpu,
        memory: &GuestMemory,
        cookie: GuestAddress,
    ) -> Result<Vec<u8>, arch::Error> {
        let mut general = vcpu.general_registers()?;
        arch::return_to_trap(&mut general, memory, cookie);
        let floating = vcpu.floating_registers()?;
        let state = elf::State {
            process: self.process,
            signal,
            general: &general,
            floating: &floating,
        };
        Ok(elf::beginning(&state, memory.size()))
    }

    /// A new file of this name, in place of the reserve.
    fn make(self, name: String) -> io::Result<File> {
        let name = CString::new(name)?;
        // SAFETY: the string ends with a NUL. Not by the C library, some of which add to the flags.
        let open = || unsafe {
            libc::syscall(
                libc::SYS_openat,
                self.fd.as_raw_fd(),
                name.as_ptr(),
                CORE_FLAGS,
                CORE_MODE,
            )
        };
        // SAFETY: the descriptor is new and nobody else's.
        let file = unsafe { OwnedFd::from_raw_fd(signal::uninterrupted(|| checked(open()))?) };
        // SAFETY: the call takes numbers, of descriptors that are ours.
        match checked(
            unsafe { libc::dup3(file.as_raw_fd(), self.reserve.as_raw_fd(), libc::O_CLOEXEC) }
                .into(),
        ) {
            Ok(_) => Ok(self.reserve.into()),
            // A filter that was there before refuses it. Then there is none of ours, which alone wants the number.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(file.into()),
            Err(error) => Err(error),
        }
    }
}

fn checked(result: c_long) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as c_int)
    }
}

/// What a program would have died by that came to such an end; none for a guest that ended well, or was ended.
fn signal_of(outcome: &Result<Outcome, RunError>) -> Option<c_int> {
    match outcome {
        Ok(Outcome::Halted(STATUS_ABORT)) => Some(libc::SIGABRT),
        Err(RunError::Timeout { .. }) => Some(libc::SIGALRM),
        Err(RunError::Violation { .. } | RunError::Host { .. }) => Some(libc::SIGSEGV),
        _ => None,
    }
}

fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AlreadyExists => "an existing core file is not overwritten: move it away",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "the core file is incomplete: remove it, and free as much space as the guest has used"
        }
        ErrorKind::Interrupted => {
            "a signal interrupted it and the core file is incomplete: remove it"
        }
        _ => "the core file is missing or incomplete",
    }
}

/// Writes the file: its beginning, and behind it the memory. Pages of zeros become holes, but for the last, which gives
/// the file its length.
///
/// # Errors
/// The file cannot be written; or [`ErrorKind::Interrupted`] once a signal wants the process to end.
fn write(file: &File, beginning: &[u8], memory: &GuestMemory) -> io::Result<()> {
    file.write_all_at(beginning, 0)?;
    let mut page = [0; PAGE_SIZE as usize];
    for address in (0..memory.size()).step_by(page.len()) {
        if let Some(Request::Signal(_)) = signal::received() {
            return Err(ErrorKind::Interrupted.into());
        }
        let bytes = memory
            .bytes(GuestAddress(address), PAGE_SIZE)
            .map_err(io::Error::other)?;
        bytes.copy_to(&mut page);
        if !is_zero(&page) || address + PAGE_SIZE == memory.size() {
            file.write_all_at(&page, beginning.len() as u64 + address)?;
        }
    }
    Ok(())
}

/// Whether the first byte is 0, and each other as the one before it.
fn is_zero(page: &[u8; PAGE_SIZE as usize]) -> bool {
    page[0] == 0 && page[1..] == page[..page.len() - 1]
}

#[cfg(test)]
mod tests;
