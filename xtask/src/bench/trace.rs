//! Counts the system calls of a tender by ptrace: those before its guest first runs, and those for
//! each hypercall.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::base::error::{Context, Result, fail};

/// The counters of one run.
#[derive(Debug, Default)]
pub struct Count {
    /// System calls from exec up to the first entry of the guest.
    pub start: u64,
    /// System calls after that, by number, without KVM_RUN.
    pub later: BTreeMap<u64, u64>,
    /// Entries of the guest.
    pub entries: u64,
}

const KVM_RUN: u64 = 0xae80;
const PTRACE_GET_SYSCALL_INFO: libc::c_uint = 0x420e;
const PTRACE_SYSCALL_INFO_ENTRY: u8 = 1;

/// Start of the kernel's `struct ptrace_syscall_info`, up to the fields for an entry.
#[repr(C)]
#[derive(Default)]
struct SyscallInfo {
    op: u8,
    pad: [u8; 3],
    arch: u32,
    instruction_pointer: u64,
    stack_pointer: u64,
    number: u64,
    arguments: [u64; 6],
}

/// Runs `command` to its end and counts.
pub fn count(command: &mut Command) -> Result<Count> {
    let pid = spawn(command)?;
    let mut count = Count::default();
    // The first stop is the exec itself.
    while let Some(signal) = wait(pid)? {
        if signal == libc::SIGTRAP | 0x80 {
            count.note(pid)?;
        }
        // SAFETY: both requests take only numbers; the child is stopped, and ours.
        unsafe {
            libc::ptrace(
                libc::PTRACE_SETOPTIONS,
                pid,
                0,
                libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL,
            );
            let pass_on = if signal & !0x80 == libc::SIGTRAP {
                0
            } else {
                signal
            };
            libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, pass_on);
        }
    }
    if count.entries == 0 {
        fail("the traced tender never ran its guest")
    } else {
        Ok(count)
    }
}

/// Starts a child that is traced, without input and output. It first stops at its exec.
pub fn spawn(command: &mut Command) -> Result<libc::pid_t> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: between fork and exec only ptrace is called, which allocates nothing.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    let child = command
        .spawn()
        .context("cannot start the tender to be traced")?;
    Ok(child.id() as libc::pid_t)
}

/// Returns the signal that stopped the child, or `None` once it has ended.
pub fn wait(pid: libc::pid_t) -> Result<Option<libc::c_int>> {
    let mut status = 0;
    // SAFETY: `status` is ours for the kernel to write.
    if unsafe { libc::waitpid(pid, &mut status, 0) } < 0 {
        return Err(std::io::Error::last_os_error()).context("cannot wait for the traced tender");
    }
    Ok(libc::WIFSTOPPED(status).then(|| libc::WSTOPSIG(status)))
}

impl Count {
    fn note(&mut self, pid: libc::pid_t) -> Result<()> {
        let mut info = SyscallInfo::default();
        // SAFETY: the kernel writes at most the size passed, which is that of `info`; the child is
        // stopped.
        let result = unsafe {
            libc::ptrace(
                PTRACE_GET_SYSCALL_INFO,
                pid,
                size_of::<SyscallInfo>(),
                &raw mut info,
            )
        };
        if result < 0 {
            return Err(std::io::Error::last_os_error())
                .context("cannot look at a traced system call");
        }
        if info.op != PTRACE_SYSCALL_INFO_ENTRY {
            return Ok(());
        }
        if info.number == libc::SYS_ioctl as u64 && info.arguments[1] == KVM_RUN {
            self.entries += 1;
        } else if self.entries == 0 {
            self.start += 1;
        } else {
            *self.later.entry(info.number).or_default() += 1;
        }
        Ok(())
    }
}

/// Returns the name of a system call that tenders make; others are shown by number.
pub fn name(number: u64) -> String {
    const KNOWN: [(libc::c_long, &str); 12] = [
        (libc::SYS_read, "read"),
        (libc::SYS_write, "write"),
        (libc::SYS_pread64, "pread"),
        (libc::SYS_pwrite64, "pwrite"),
        (libc::SYS_ppoll, "ppoll"),
        (libc::SYS_epoll_pwait, "epoll_pwait"),
        (libc::SYS_timerfd_settime, "timerfd_settime"),
        (libc::SYS_clock_gettime, "clock_gettime"),
        (libc::SYS_lseek, "lseek"),
        (libc::SYS_ioctl, "ioctl"),
        (libc::SYS_futex, "futex"),
        (libc::SYS_setitimer, "setitimer"),
    ];
    let known = KNOWN.iter().find(|(known, _)| *known as u64 == number);
    known.map_or_else(
        || format!("number {number}"),
        |(_, name)| (*name).to_string(),
    )
}
