//! Names of system calls, for messages.

use libc::c_long;

use crate::arch::{Architecture, Native};

/// Returns the name of a system call, for messages: those of the lists, and those that an attacker
/// might try.
pub fn name(call: c_long) -> Option<&'static str> {
    let known = |table: &[(c_long, &'static str)]| {
        table
            .iter()
            .find(|(number, _)| *number == call)
            .map(|(_, name)| *name)
    };
    known(&NAMES).or_else(|| known(Native::OLD_CALLS))
}

/// Builds a table of names.
macro_rules! names {
    ($($name:literal = $number:ident),* $(,)?) => { [$((libc::$number, $name)),*] };
}

const NAMES: [(c_long, &str); 83] = names! {
    "read" = SYS_read, "write" = SYS_write, "close" = SYS_close, "mmap" = SYS_mmap, "mprotect" = SYS_mprotect,
    "munmap" = SYS_munmap, "mremap" = SYS_mremap, "brk" = SYS_brk, "madvise" = SYS_madvise, "ioctl" = SYS_ioctl,
    "pread64" = SYS_pread64, "pwrite64" = SYS_pwrite64, "readv" = SYS_readv, "writev" = SYS_writev,
    "ppoll" = SYS_ppoll, "epoll_pwait" = SYS_epoll_pwait, "epoll_pwait2" = SYS_epoll_pwait2,
    "epoll_ctl" = SYS_epoll_ctl, "timerfd_settime" = SYS_timerfd_settime, "futex" = SYS_futex, "fdatasync" = SYS_fdatasync, "fsync" = SYS_fsync,
    "rt_sigaction" = SYS_rt_sigaction, "rt_sigprocmask" = SYS_rt_sigprocmask, "sigaltstack" = SYS_sigaltstack,
    "setitimer" = SYS_setitimer, "timer_settime" = SYS_timer_settime, "clock_gettime" = SYS_clock_gettime, "clock_nanosleep" = SYS_clock_nanosleep,
    "tgkill" = SYS_tgkill, "tkill" = SYS_tkill, "kill" = SYS_kill, "getpid" = SYS_getpid, "gettid" = SYS_gettid,
    "openat" = SYS_openat, "openat2" = SYS_openat2, "open_by_handle_at" = SYS_open_by_handle_at, "dup" = SYS_dup,
    "dup3" = SYS_dup3, "fcntl" = SYS_fcntl, "lseek" = SYS_lseek, "statx" = SYS_statx, "fstat" = SYS_fstat,
    "unlinkat" = SYS_unlinkat, "mount" = SYS_mount, "chroot" = SYS_chroot, "socket" = SYS_socket,
    "connect" = SYS_connect, "bind" = SYS_bind, "sendto" = SYS_sendto, "sendmsg" = SYS_sendmsg,
    "recvmsg" = SYS_recvmsg, "execve" = SYS_execve, "execveat" = SYS_execveat, "clone" = SYS_clone,
    "clone3" = SYS_clone3, "ptrace" = SYS_ptrace, "process_vm_readv" = SYS_process_vm_readv,
    "process_vm_writev" = SYS_process_vm_writev, "pidfd_getfd" = SYS_pidfd_getfd, "prctl" = SYS_prctl,
    "seccomp" = SYS_seccomp, "bpf" = SYS_bpf, "io_uring_setup" = SYS_io_uring_setup,
    "userfaultfd" = SYS_userfaultfd, "memfd_create" = SYS_memfd_create, "setuid" = SYS_setuid,
    "setns" = SYS_setns, "unshare" = SYS_unshare, "personality" = SYS_personality, "getrandom" = SYS_getrandom,
    "perf_event_open" = SYS_perf_event_open, "restart_syscall" = SYS_restart_syscall,
    "nanosleep" = SYS_nanosleep, "shutdown" = SYS_shutdown, "accept4" = SYS_accept4, "mincore" = SYS_mincore, "exit" = SYS_exit, "wait4" = SYS_wait4,
    "sched_setaffinity" = SYS_sched_setaffinity, "getcpu" = SYS_getcpu,
    "exit_group" = SYS_exit_group, "rt_sigreturn" = SYS_rt_sigreturn,
};
