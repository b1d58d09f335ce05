//! `--dumpcore`: writes registers and memory of a crashed guest into a file for gdb, for an
//! analysis after the fact.
//!
//! The file is created when it is needed, from within the sandbox: a run that ends well leaves
//! nothing behind. The directory is opened before, and the sandbox allows only the creation of one
//! new file in it.

#![expect(
    unsafe_code,
    reason = "openat to a descriptor that the sandbox expects"
)]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use guest_abi::hypercall::STATUS_ABORT;
use libc::c_int;
use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::{DupFlags, Errno, dup3};

use crate::arch::{self, CoreRegisters, Vcpu};
use crate::config::Debugging;
use crate::host::files::{Files, Need};
use crate::host::ids;
use crate::host::signal::{self, Request};
use crate::memory::{GuestAddress, GuestMemory, PAGE_SIZE};
use crate::outcome::{Error as RunError, Outcome};
use crate::report::message::Message;
use crate::sandbox::rules::{CORE_FLAGS, CORE_MODE};

mod elf;

/// Errors of `--dumpcore`, found before the guest runs.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub(crate) enum Error {
    #[error("--dumpcore={}: {source}", path.display())]
    #[diagnostic(help("give a directory"))]
    Directory { path: PathBuf, source: io::Error },
    #[error(
        "--dumpcore={}: unprivileged user {user} cannot create files there: {source}",
        path.display()
    )]
    #[diagnostic(help("give a directory that this user can write to"))]
    Denied {
        path: PathBuf,
        user: u32,
        source: io::Error,
    },
}

/// The directory for core files.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Path of the unikernel, for the gdb command in the log.
    unikernel: PathBuf,
    /// An `O_PATH` descriptor of the directory: it gives no access to files, but files can be
    /// created in it.
    fd: OwnedFd,
    /// Reserves the descriptor number of the core file, so that the sandbox knows it in advance.
    reserve: OwnedFd,
    /// PID of this process, which cannot be queried from within the sandbox.
    process: i32,
    /// Whether files have solo5-hvt's names.
    as_solo5_hvt: bool,
}

impl Directory {
    /// Opens the directory of `--dumpcore`, if given; changes nothing.
    ///
    /// # Errors
    /// [`Error::Directory`].
    pub(crate) fn open(
        debugging: &Debugging,
        unikernel: &Path,
        files: &mut Files,
    ) -> Result<Option<Directory>, Error> {
        let Some(path) = debugging.dumpcore.clone() else {
            return Ok(None);
        };
        let both = files
            .take(&path, Need::Enter)
            .and_then(|look| Ok((look.reopen()?, look.into())));
        match both {
            Ok((fd, reserve)) => Ok(Some(Directory {
                path,
                unikernel: unikernel.to_owned(),
                fd,
                reserve,
                process: std::process::id() as i32,
                as_solo5_hvt: debugging.as_solo5_hvt,
            })),
            Err(source) => Err(Error::Directory { path, source }),
        }
    }

    /// Checks that this process may create a file there. Call after the switch to the final user.
    ///
    /// # Errors
    /// [`Error::Denied`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        let needed = Access::WRITE_OK | Access::EXEC_OK;
        let access = || Ok(accessat(&self.fd, c".", needed, AtFlags::empty())?);
        signal::uninterrupted(access).map_err(|source| Error::Denied {
            path: self.path.clone(),
            user: ids::user(),
            source,
        })
    }

    /// Returns the descriptor of the directory, and the one that the core file will have.
    pub(crate) fn descriptors(&self) -> (RawFd, RawFd) {
        (self.fd.as_raw_fd(), self.reserve.as_raw_fd())
    }

    /// Writes the core file of a stopped guest, if `outcome` calls for one, and logs its path.
    /// `cookie` is the value that the guest passed with HALT, or 0. Errors are logged and do not
    /// affect the outcome.
    // Inlined, its frame would be a part of the run's, two pages of stack for each guest.
    #[cold]
    #[inline(never)]
    pub(crate) fn write_core(
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
        let headers = self
            .headers(signal, vcpu, memory, cookie)
            .map_err(|error| io::Error::other(Message::of(&error).to_string()));
        match headers.and_then(|headers| write(&self.create(name)?, &headers, memory)) {
            Ok(()) => {
                log::warn!("core file written to {path}; open it with: gdb {unikernel} {path}")
            }
            Err(error) => log::warn!("--dumpcore: {path}: {error}; {}", hint(&error)),
        }
    }

    /// Returns the part of the file before the memory.
    fn headers(
        &self,
        signal: c_int,
        vcpu: &Vcpu,
        memory: &GuestMemory,
        cookie: GuestAddress,
    ) -> Result<Vec<u8>, arch::Error> {
        let mut general = vcpu.general_registers()?;
        Vcpu::return_to_trap(&mut general, memory, cookie);
        let floating = vcpu.floating_registers()?;
        let state = elf::State {
            process: self.process,
            signal,
            general: &general,
            floating: &floating,
        };
        Ok(elf::headers(&state, memory.size()))
    }

    /// Creates a file of this name with the reserved descriptor number.
    fn create(mut self, name: String) -> io::Result<File> {
        let name = CString::new(name)?;
        let open = || {
            // SAFETY: the string ends with a NUL; a new descriptor is owned by nothing else. The
            // call bypasses libraries, because some add flags.
            unsafe {
                let (directory, name) = (self.fd.as_raw_fd(), name.as_ptr());
                match libc::syscall(libc::SYS_openat, directory, name, CORE_FLAGS, CORE_MODE) {
                    -1 => Err(io::Error::last_os_error()),
                    fd => Ok(OwnedFd::from_raw_fd(fd as RawFd)),
                }
            }
        };
        let file = signal::uninterrupted(open)?;
        match dup3(&file, &mut self.reserve, DupFlags::CLOEXEC) {
            Ok(()) => Ok(self.reserve.into()),
            // An inherited seccomp filter refuses it. Then there is no filter of our own, which is
            // the only reason for the number.
            Err(Errno::NOSYS) => Ok(file.into()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the signal that would have killed a program in the same way; none for a guest that ended
/// well or was stopped.
fn signal_of(outcome: &Result<Outcome, RunError>) -> Option<c_int> {
    match outcome {
        Ok(Outcome::Halted(STATUS_ABORT)) => Some(libc::SIGABRT),
        Err(RunError::Timeout { .. }) => Some(libc::SIGALRM),
        Err(RunError::Violation { .. } | RunError::Host { .. }) => Some(libc::SIGSEGV),
        _ => None,
    }
}

fn hint(error: &io::Error) -> &'static str {
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

/// Writes the headers, and after them the memory. Pages of zeros become holes, except the last,
/// which gives the file its length.
///
/// # Errors
/// The file cannot be written; or [`ErrorKind::Interrupted`] if a signal requests the end of the
/// process.
fn write(file: &File, headers: &[u8], memory: &GuestMemory) -> io::Result<()> {
    file.write_all_at(headers, 0)?;
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
            file.write_all_at(&page, headers.len() as u64 + address)?;
        }
    }
    Ok(())
}

/// Returns whether the page is zero: the first byte is 0, and each other byte equals the one before
/// it.
fn is_zero(page: &[u8; PAGE_SIZE as usize]) -> bool {
    page[0] == 0 && page[1..] == page[..page.len() - 1]
}

#[cfg(test)]
mod tests;
