//! The child that is a guest: its creation, and requests to it by ptrace.

#![expect(unsafe_code, reason = "clone, ptrace and wait4")]

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;

use libc::{c_int, c_long, c_void, iovec, pid_t};

use super::Cpu;
use super::steps::{self, Stub};
use crate::host::signal;
use crate::memory::GuestMemory;

/// Why a guest cannot run, or go on, as a process.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("--engine=process: cannot create the guest's process: {0}")]
    #[diagnostic(help("raise TasksMax= or ulimit -u"))]
    Clone(io::Error),
    #[error("--engine=process: cannot {step}: {source}")]
    #[diagnostic(help("{hint}"))]
    Step {
        step: &'static str,
        source: io::Error,
        hint: String,
    },
    #[error("--engine=process: ptrace failed: {0}")]
    Registers(io::Error),
    #[error(
        "the guest's process was killed by signal {signal}, sent by another process or, for lack of memory or processor time, by the kernel"
    )]
    #[diagnostic(help("see dmesg, or lower --mem"))]
    Killed { signal: c_int },
}

/// A set of registers of the child that is read and written as a whole, by its note type.
#[derive(Clone, Copy, Debug)]
pub(in crate::arch) struct Set(pub c_int);

/// The child: stopped whenever the tender runs.
#[derive(Debug)]
pub(in crate::arch) struct Child {
    id: pid_t,
    /// How it ended.
    status: Cell<Option<c_int>>,
}

impl Child {
    /// Creates the child, without any right and with the guest's memory alone. It stops before the
    /// guest's first instruction.
    ///
    /// # Errors
    /// The host forbids a step.
    pub(super) fn start(
        memory: &GuestMemory,
        cpu: &Cpu,
        scope: Option<u8>,
    ) -> Result<Child, Error> {
        let parent = std::process::id() as pid_t;
        let failed = |step: &'static str, source: io::Error| Error::Step {
            step,
            hint: hint(step, source.raw_os_error().unwrap_or_default(), scope),
            source,
        };
        let steps = steps::list(memory, cpu);
        let stub = Stub::new(&steps).map_err(|error| failed("reserve memory", error))?;
        stub.make_executable()
            .map_err(|error| failed(steps::PROTECT, error))?;
        // A tracer of the tender would otherwise trace the child too, which has one tracer at most.
        let flags = libc::SIGCHLD | libc::CLONE_UNTRACED;
        let no: c_long = 0;
        // SAFETY: the child has a copy of this process, whose other thread it lacks. It makes the
        // system calls of the stub and nothing else.
        let id = unsafe { libc::syscall(libc::SYS_clone, flags as c_long, no, no, no, no) };
        match id {
            0 => stub.run(parent),
            -1 => return Err(Error::Clone(io::Error::last_os_error())),
            _ => {}
        }
        let child = Child {
            id: id as pid_t,
            status: Cell::new(None),
        };
        match child.wait() {
            // It has unmapped the stub, and cannot fetch its next instruction.
            Ok(libc::SIGSEGV) => {}
            _ => {
                let (step, source) = stub.failure();
                return Err(failed(step, source));
            }
        }
        let options = libc::PTRACE_O_EXITKILL as usize;
        child
            .request(libc::PTRACE_SETOPTIONS as u64, 0, options)
            .map_err(Error::Registers)?;
        signal::interrupts_process(child.id);
        Ok(child)
    }

    /// Returns its process ID.
    pub(super) fn id(&self) -> pid_t {
        self.id
    }

    /// Returns the signal that ended it, if one did.
    pub(super) fn end(&self) -> Option<c_int> {
        let status = self.status.get().or_else(|| {
            let _ = self.wait();
            self.status.get()
        })?;
        libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
    }

    /// Runs it until it stops, one instruction if `step`; returns the signal that stopped it.
    pub(super) fn resume(&self, step: bool) -> io::Result<c_int> {
        let request = if step {
            libc::PTRACE_SINGLESTEP
        } else {
            libc::PTRACE_CONT
        };
        self.request(request as u64, 0, 0)?;
        self.wait()
    }

    /// Waits until it stops; returns the signal that stopped it.
    fn wait(&self) -> io::Result<c_int> {
        let mut status: c_int = 0;
        let no_usage: *mut libc::rusage = std::ptr::null_mut();
        loop {
            // SAFETY: the kernel writes the status.
            let waited = unsafe {
                libc::syscall(
                    libc::SYS_wait4,
                    self.id,
                    &raw mut status,
                    libc::__WALL,
                    no_usage,
                )
            };
            match waited {
                // A handler that requests the end of the run has stopped the child.
                -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                -1 => return Err(io::Error::last_os_error()),
                _ if libc::WIFSTOPPED(status) => return Ok(libc::WSTOPSIG(status)),
                _ => {
                    signal::interrupts_process(0);
                    self.status.set(Some(status));
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
            }
        }
    }

    /// Makes a request of ptrace, and returns its result.
    pub(in crate::arch) fn request(
        &self,
        request: u64,
        address: usize,
        data: usize,
    ) -> io::Result<()> {
        // SAFETY: the requests that pass no pointer change the child alone; `get` and `set` pass
        // pointers to values of the right size.
        let result = unsafe { libc::syscall(libc::SYS_ptrace, request, self.id, address, data) };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Reads registers. `T` must be plain integers.
    pub(in crate::arch) fn get<T: zerocopy::FromBytes>(&self, set: Set) -> io::Result<T> {
        let mut value = MaybeUninit::<T>::zeroed();
        self.get_into(set, value.as_mut_ptr().cast(), size_of::<T>())?;
        // SAFETY: all bytes are initialised, and any are a valid value.
        Ok(unsafe { value.assume_init() })
    }

    /// Writes registers.
    pub(in crate::arch) fn set<T: zerocopy::IntoBytes + zerocopy::Immutable>(
        &self,
        set: Set,
        value: &T,
    ) -> io::Result<()> {
        self.set_bytes(set, value.as_bytes())
    }

    /// Reads registers of any length, at most that of `bytes`; returns their length.
    #[cfg(target_arch = "x86_64")]
    pub(in crate::arch) fn get_bytes(&self, set: Set, bytes: &mut [u8]) -> io::Result<usize> {
        self.get_into(set, bytes.as_mut_ptr().cast(), bytes.len())
    }

    /// Writes registers of any length.
    pub(in crate::arch) fn set_bytes(&self, set: Set, bytes: &[u8]) -> io::Result<()> {
        let mut vector = iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let vector = &raw mut vector;
        self.request(
            libc::PTRACE_SETREGSET as u64,
            set.0 as usize,
            vector as usize,
        )
    }

    fn get_into(&self, set: Set, to: *mut c_void, length: usize) -> io::Result<usize> {
        let mut vector = iovec {
            iov_base: to,
            iov_len: length,
        };
        let pointer = &raw mut vector;
        self.request(
            libc::PTRACE_GETREGSET as u64,
            set.0 as usize,
            pointer as usize,
        )?;
        Ok(vector.iov_len)
    }

    /// Returns why it stopped.
    pub(in crate::arch) fn cause(&self) -> io::Result<libc::siginfo_t> {
        let mut cause = MaybeUninit::<libc::siginfo_t>::zeroed();
        let pointer = cause.as_mut_ptr();
        self.request(libc::PTRACE_GETSIGINFO as u64, 0, pointer as usize)?;
        // SAFETY: the kernel has written it, and zeroed bytes are valid too.
        Ok(unsafe { cause.assume_init() })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        signal::interrupts_process(0);
        if self.status.get().is_some() {
            // Another process may have the ID by now.
            return;
        }
        // SAFETY: the call takes plain numbers. The ID is the child's until it is waited for.
        unsafe { libc::syscall(libc::SYS_kill, self.id, libc::SIGKILL) };
        while self.wait().is_ok() {}
    }
}

/// Returns what to do about a step that failed with `errno`. `scope` is kernel.yama.ptrace_scope.
fn hint(step: &str, errno: c_int, scope: Option<u8>) -> String {
    match (step, errno) {
        ("be traced", _) => match scope {
            Some(2) => "set kernel.yama.ptrace_scope to 1".to_owned(),
            Some(3..) => "kernel.yama.ptrace_scope is 3 until the next boot; boot with 1".to_owned(),
            _ => {
                "allow ptrace in the seccomp profile (of a unit: SystemCallFilter=ptrace) around tender"
                    .to_owned()
            }
        },
        (steps::PROTECT, libc::EACCES | libc::EPERM) => {
            "let memory become executable (of a unit: MemoryDenyWriteExecute=no)".to_owned()
        }
        ("place the guest's memory", _) => "set vm.mmap_min_addr to 65536 or less".to_owned(),
        ("forbid system calls", _) => {
            "use a kernel with seccomp filters (CONFIG_SECCOMP_FILTER)".to_owned()
        }
        (_, libc::ENOMEM) => "raise ulimit -v or vm.max_map_count".to_owned(),
        _ => "a security module or seccomp profile around tender may forbid it".to_owned(),
    }
}
