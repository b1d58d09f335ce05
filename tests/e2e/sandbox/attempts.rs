//! An attacker's attempts: system calls by a thread that may not make them.

mod cores;

pub use cores::{CORE, FORBIDDEN_WITH_CORES};
use tender::arch::{Architecture, Debugging, Native, Processor, Vcpu};
use tender::sandbox::rules::KVM_RUN;

/// An attempt: its name, the call, and its arguments.
pub type Attempt = (&'static str, libc::c_long, [i64; 6]);

/// An argument replaced by the descriptor of the vCPU.
pub const VCPU: i64 = i64::MIN;
/// An argument replaced by the parent process ID.
pub const PARENT: i64 = i64::MIN + 1;
/// An argument replaced by this process and thread ID.
pub const SELF: i64 = i64::MIN + 4;
/// An argument replaced by the address of a page of this process.
pub const PAGE: i64 = i64::MIN + 2;
/// Arguments replaced by the directory for core files, and by the descriptor of the core file.
pub const CORES: i64 = i64::MIN + 5;
pub const CORE_FILE: i64 = i64::MIN + 6;
/// Arguments replaced by the path of a new file in that directory, and outside of it.
pub const NEW: i64 = i64::MIN + 7;
pub const NEW_ELSEWHERE: i64 = i64::MIN + 8;
/// An argument replaced by the address of a path.
pub const PATH: i64 = i64::MIN + 3;

const FRESH: i64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as i64;
const RW: i64 = (libc::PROT_READ | libc::PROT_WRITE) as i64;
const EXEC: i64 = libc::PROT_EXEC as i64;

const REPORT_REQUEST: i64 = Vcpu::REPORT_REQUESTS[0] as i64;

/// Forbidden for every thread.
pub const FORBIDDEN: &[Attempt] = &[
    (
        "openat",
        libc::SYS_openat,
        [libc::AT_FDCWD as i64, PATH, 0, 0, 0, 0],
    ),
    (
        "openat2",
        libc::SYS_openat2,
        [libc::AT_FDCWD as i64, PATH, PAGE, 24, 0, 0],
    ),
    (
        "socket",
        libc::SYS_socket,
        [libc::AF_INET as i64, libc::SOCK_STREAM as i64, 0, 0, 0, 0],
    ),
    ("execve", libc::SYS_execve, [PATH, 0, 0, 0, 0, 0]),
    (
        "execveat",
        libc::SYS_execveat,
        [libc::AT_FDCWD as i64, PATH, 0, 0, 0, 0],
    ),
    (
        "ptrace",
        libc::SYS_ptrace,
        [libc::PTRACE_ATTACH as i64, PARENT, 0, 0, 0, 0],
    ),
    (
        "process_vm_readv",
        libc::SYS_process_vm_readv,
        [PARENT, PAGE, 0, PAGE, 0, 0],
    ),
    (
        "process_vm_writev",
        libc::SYS_process_vm_writev,
        [PARENT, PAGE, 0, PAGE, 0, 0],
    ),
    (
        "mmap of code",
        libc::SYS_mmap,
        [0, 4096, RW | EXEC, FRESH, -1, 0],
    ),
    (
        "mmap of a file",
        libc::SYS_mmap,
        [0, 4096, RW, libc::MAP_PRIVATE as i64, 0, 0],
    ),
    (
        "mmap to share",
        libc::SYS_mmap,
        [
            0,
            4096,
            RW,
            (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as i64,
            -1,
            0,
        ],
    ),
    (
        "mprotect of code",
        libc::SYS_mprotect,
        [PAGE, 4096, libc::PROT_READ as i64 | EXEC, 0, 0, 0],
    ),
    ("mremap", libc::SYS_mremap, [PAGE, 4096, 8192, 0, 0, 0]),
    (
        "ioctl of another number",
        libc::SYS_ioctl,
        [VCPU, 0x4090_ae82, PAGE, 0, 0, 0],
    ),
    (
        "ioctl of a terminal",
        libc::SYS_ioctl,
        [0, libc::TIOCSTI as i64, PAGE, 0, 0, 0],
    ),
    (
        "ioctl KVM_RUN of another descriptor",
        libc::SYS_ioctl,
        [0, KVM_RUN as i64, 0, 0, 0, 0],
    ),
    (
        "ioctl of a report at another descriptor",
        libc::SYS_ioctl,
        [0, REPORT_REQUEST, PAGE, 0, 0, 0],
    ),
    (
        "write to another descriptor",
        libc::SYS_write,
        [0, PAGE, 1, 0, 0, 0],
    ),
    (
        "read from another descriptor",
        libc::SYS_read,
        [0, PAGE, 1, 0, 0, 0],
    ),
    (
        "pwrite64 where there is no disk",
        libc::SYS_pwrite64,
        [1, PAGE, 1, 0, 0, 0],
    ),
    ("writev", libc::SYS_writev, [1, PAGE, 0, 0, 0, 0]),
    ("sendmsg", libc::SYS_sendmsg, [0, PAGE, 0, 0, 0, 0]),
    ("dup", libc::SYS_dup, [1, 0, 0, 0, 0, 0]),
    (
        "fcntl",
        libc::SYS_fcntl,
        [1, libc::F_DUPFD as i64, 0, 0, 0, 0],
    ),
    (
        "clone",
        libc::SYS_clone,
        [libc::SIGCHLD as i64, 0, 0, 0, 0, 0],
    ),
    ("clone3", libc::SYS_clone3, [PAGE, 64, 0, 0, 0, 0]),
    (
        "kill of another process",
        libc::SYS_kill,
        [PARENT, 0, 0, 0, 0, 0],
    ),
    (
        "tgkill of another process",
        libc::SYS_tgkill,
        [PARENT, PARENT, libc::SIGALRM as i64, 0, 0, 0],
    ),
    ("tkill", libc::SYS_tkill, [PARENT, 0, 0, 0, 0, 0]),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, [0, 0, 0, 0, 0, 0]),
    (
        "prctl",
        libc::SYS_prctl,
        [libc::PR_SET_DUMPABLE as i64, 1, 0, 0, 0, 0],
    ),
    (
        "seccomp",
        libc::SYS_seccomp,
        [libc::SECCOMP_SET_MODE_FILTER as i64, 0, PAGE, 0, 0, 0],
    ),
    ("bpf", libc::SYS_bpf, [0, PAGE, 16, 0, 0, 0]),
    (
        "io_uring_setup",
        libc::SYS_io_uring_setup,
        [1, PAGE, 0, 0, 0, 0],
    ),
    ("userfaultfd", libc::SYS_userfaultfd, [0, 0, 0, 0, 0, 0]),
    (
        "perf_event_open",
        libc::SYS_perf_event_open,
        [PAGE, 0, -1, -1, 0, 0],
    ),
    (
        "memfd_create",
        libc::SYS_memfd_create,
        [PATH, 0, 0, 0, 0, 0],
    ),
    ("setuid", libc::SYS_setuid, [0, 0, 0, 0, 0, 0]),
    ("setns", libc::SYS_setns, [0, 0, 0, 0, 0, 0]),
    (
        "unshare",
        libc::SYS_unshare,
        [libc::CLONE_NEWUSER as i64, 0, 0, 0, 0, 0],
    ),
    ("chroot", libc::SYS_chroot, [PATH, 0, 0, 0, 0, 0]),
    ("mount", libc::SYS_mount, [PATH, PATH, 0, 0, 0, 0]),
    (
        "unlinkat",
        libc::SYS_unlinkat,
        [libc::AT_FDCWD as i64, PATH, 0, 0, 0, 0],
    ),
    (
        "personality",
        libc::SYS_personality,
        [0x040_0000, 0, 0, 0, 0, 0],
    ),
    (
        "rt_sigaction of SIGSYS",
        libc::SYS_rt_sigaction,
        [libc::SIGSYS as i64, PAGE, 0, 8, 0, 0],
    ),
    (
        "futex by inheritance",
        libc::SYS_futex,
        [PAGE, libc::FUTEX_LOCK_PI as i64, 0, 0, 0, 0],
    ),
    ("9999, which does not exist", 9999, [0; 6]),
    ("getppid", libc::SYS_getppid, [0; 6]),
];

pub const FORBIDDEN_TO_THE_GUEST: &[Attempt] = &[
    (
        "tgkill by another signal",
        libc::SYS_tgkill,
        [SELF, SELF, libc::SIGUSR1 as i64, 0, 0, 0],
    ),
    (
        "rt_sigprocmask",
        libc::SYS_rt_sigprocmask,
        [0, 0, 0, 8, 0, 0],
    ),
];

/// Attempts of those forbidden for every thread that are repeated with `--gdb`.
pub const TRIED_WITH_GDB: &[&str] = &[
    "openat",
    "socket",
    "execve",
    "ptrace",
    "mmap of code",
    "mprotect of code",
    "ioctl KVM_RUN of another descriptor",
    "write to another descriptor",
    "read from another descriptor",
    "fcntl",
];

/// Forbidden for the guest's thread even with `--gdb`, though a debugger's requests are allowed.
pub const FORBIDDEN_WITH_GDB: &[Attempt] = &[
    (
        "ioctl of a debugger at another descriptor",
        libc::SYS_ioctl,
        [0, DEBUG_REQUEST, PAGE, 0, 0, 0],
    ),
    (
        "ioctl KVM_SET_USER_MEMORY_REGION",
        libc::SYS_ioctl,
        [VCPU, 0x4020_ae46, PAGE, 0, 0, 0],
    ),
    (
        "ioctl KVM_SET_SREGS",
        libc::SYS_ioctl,
        [VCPU, 0x4138_ae84, PAGE, 0, 0, 0],
    ),
    (
        "ioctl KVM_ARM_VCPU_INIT",
        libc::SYS_ioctl,
        [VCPU, 0x4020_aeae, PAGE, 0, 0, 0],
    ),
    ("accept4 of a second debugger", libc::SYS_accept4, [0; 6]),
    ("connect", libc::SYS_connect, [0, PAGE, 16, 0, 0, 0]),
    (
        "sendto, which takes an address",
        libc::SYS_sendto,
        [0, PAGE, 1, 0, PAGE, 16],
    ),
    (
        "recvmsg of a debugger",
        libc::SYS_recvmsg,
        [0, PAGE, 0, 0, 0, 0],
    ),
];

/// A debugger's requests to the vCPU.
pub const DEBUGGERS: Attempt = (
    "a debugger's request",
    libc::SYS_ioctl,
    [VCPU, DEBUG_REQUEST, PAGE, 0, 0, 0],
);

const DEBUG_REQUEST: i64 = Vcpu::DEBUG_REQUESTS[0] as i64;

/// Descriptors that the thread of `--metrics` may use, as numbers only: they are not open.
pub const LISTENER: i64 = 200;
pub const CLIENT: i64 = 201;
pub const STATM: i64 = 202;

pub const FORBIDDEN_TO_METRICS: &[Attempt] = &[
    (
        "ioctl KVM_RUN",
        libc::SYS_ioctl,
        [VCPU, KVM_RUN as i64, 0, 0, 0, 0],
    ),
    (
        "write to the console",
        libc::SYS_write,
        [1, PAGE, 1, 0, 0, 0],
    ),
    (
        "read from the socket that listens",
        libc::SYS_read,
        [LISTENER, PAGE, 1, 0, 0, 0],
    ),
    (
        "accept4 from a client",
        libc::SYS_accept4,
        [CLIENT, 0, 0, 0, 0, 0],
    ),
    (
        "pread64 from a client",
        libc::SYS_pread64,
        [CLIENT, PAGE, 1, 0, 0, 0],
    ),
    (
        "pwrite64 to what it reads",
        libc::SYS_pwrite64,
        [STATM, PAGE, 1, 0, 0, 0],
    ),
    (
        "sendto a client, which takes an address",
        libc::SYS_sendto,
        [CLIENT, PAGE, 1, 0, PAGE, 16],
    ),
    (
        "recvmsg, which takes descriptors",
        libc::SYS_recvmsg,
        [CLIENT, PAGE, 0, 0, 0, 0],
    ),
    ("close of another descriptor", libc::SYS_close, [0; 6]),
    (
        "mincore of anything",
        libc::SYS_mincore,
        [PAGE, 4096, PAGE, 0, 0, 0],
    ),
    ("ppoll of many", libc::SYS_ppoll, [PAGE, 3, PAGE, 0, 0, 0]),
    (
        "clock_nanosleep",
        libc::SYS_clock_nanosleep,
        [0, 0, PAGE, 0, 0, 0],
    ),
    (
        "tgkill of the guest's thread",
        libc::SYS_tgkill,
        [SELF, SELF, libc::SIGALRM as i64, 0, 0, 0],
    ),
    (
        "setitimer",
        libc::SYS_setitimer,
        [libc::ITIMER_REAL as i64, PAGE, 0, 0, 0, 0],
    ),
    ("exit_group", libc::SYS_exit_group, [0; 6]),
];

/// Returns the attempt of this name.
pub fn find(name: &str) -> Option<Attempt> {
    let all = FORBIDDEN.iter().chain(FORBIDDEN_TO_THE_GUEST);
    let all = all
        .chain(FORBIDDEN_TO_METRICS)
        .chain(CORE)
        .chain(FORBIDDEN_WITH_CORES)
        .chain(FORBIDDEN_WITH_GDB)
        .chain([&DEBUGGERS]);
    let old = Native::OLD_CALLS.iter().find(|(_, old)| *old == name);
    let old = old.map(|&(call, name)| {
        (
            name,
            call,
            if name == "open" {
                [PATH, 0, 0, 0, 0, 0]
            } else {
                [0; 6]
            },
        )
    });
    all.copied().find(|(other, ..)| *other == name).or(old)
}
