//! The system calls that are allowed once the guest runs: one list for each thread, each rule with
//! its reason. Values known only at run time, such as descriptors, are represented by a
//! [`Parameter`].
//!
//! `tests/e2e/sandbox_rules.rs` checks that some run uses every rule, except those marked
//! [`Need::Seldom`].

use std::os::fd::RawFd;

use libc::c_long;

pub use crate::arch::KVM_RUN;
use crate::arch::{self, Architecture, CoreRegisters, Debugging, Native, Processor};

const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const MAP_KIND: u64 = (libc::MAP_ANONYMOUS | libc::MAP_PRIVATE) as u64;

/// Flags of opening core files: each is new, and for this user only.
pub(crate) const CORE_FLAGS: libc::c_int =
    libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
/// See [`CORE_FLAGS`].
pub(crate) const CORE_MODE: libc::mode_t = 0o600;

/// Concurrent clients of `--metrics`.
pub(crate) const CLIENTS: usize = 8;
/// Descriptors that the thread of `--metrics` polls: its clients, its socket, and the event that
/// ends it.
pub(crate) const POLLED: usize = 2 + CLIENTS;

/// Bytes of guest memory per mincore call.
pub(crate) const MINCORE_PIECE: usize = 2 << 20;

/// An allowed call, if all conditions in `when` hold.
#[derive(Debug)]
pub struct Rule {
    /// System call number.
    pub call: c_long,
    /// Conditions on its arguments.
    pub when: &'static [When],
    /// Why it is made.
    pub need: Need,
}

/// Why a rule exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Runs need it.
    Always(&'static str),
    /// Only some C library, kernel or rare event needs it, which no test causes.
    Seldom(&'static str),
}

/// Condition on an argument, counted from 0.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Equals this 32-bit number; the kernel uses only those bits.
    Is(u8, u64),
    /// Is a null pointer.
    Null(u8),
    /// (argument, mask, bits): the 64 bits masked by `mask` equal `bits`.
    Bits(u8, u64, u64),
    /// Is one of these 32-bit numbers.
    OneOf(u8, Parameter),
}

/// Numbers that are known only at run time, or that differ between architectures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// The descriptor of the vCPU.
    Vcpu,
    /// Ioctls on the vCPU for reports, and for a core file if there may be one.
    Reports,
    /// The descriptor of the debugger, if there is one.
    Debugger,
    /// Ioctls on the vCPU for a debugger, if there is one.
    DebugRequests,
    /// Descriptors of network interfaces.
    Nets,
    /// Descriptors of the same interfaces, for the ring.
    RingNets,
    /// Descriptors of disks.
    Disks,
    /// The directory for a core file.
    CoreDirectory,
    /// The descriptor that the core file will get.
    CoreFile,
    /// The statistics file.
    Stats,
    /// The file with this process's memory use, if statistics are enabled.
    Statm,
    /// Bytes of guest memory per mincore call, if statistics are enabled.
    Pieces,
    /// The listening socket for metrics.
    Listener,
    /// The clients' descriptors.
    Client,
    /// The event that ends the metrics thread.
    MetricsEnd,
    /// The descriptor of the service manager's socket, if there is one.
    Notify,
    /// The epoll set that POLL waits on.
    Waits,
    /// That set, if a timer ends its waits; [`Parameter::Timer`] is that timer.
    OldWaits,
    /// The timer that ends the waits of POLL.
    Timer,
    /// The epoll sets of standard output and standard error, if `ppoll` is refused.
    Room,
    /// This process.
    Process,
    /// The guest's thread.
    Thread,
    /// The signals that end a run.
    Signals,
    /// Futex operations of threads: FUTEX_WAIT, FUTEX_WAKE, FUTEX_WAIT_BITSET, private or not.
    Futex,
}

/// The parameters of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The descriptor of the vCPU.
    pub vcpu: RawFd,
    /// The epoll set that POLL waits on, and the timer that ends its waits, if any.
    pub waits: Vec<RawFd>,
    /// See `waits`.
    pub timer: Option<RawFd>,
    /// The epoll sets of standard output and standard error, if `ppoll` is refused.
    pub room: Vec<RawFd>,
    /// The descriptor of the debugger.
    pub debugger: Vec<RawFd>,
    /// Descriptors of network interfaces.
    pub nets: Vec<RawFd>,
    /// Descriptors of the same interfaces, for the ring.
    pub ring_nets: Vec<RawFd>,
    /// Descriptors of disks.
    pub disks: Vec<RawFd>,
    /// The directory for a core file, and the descriptor that the file will get.
    pub cores: Option<(RawFd, RawFd)>,
    /// The statistics file.
    pub stats: Vec<RawFd>,
    /// The file with this process's memory use.
    pub statm: Vec<RawFd>,
    /// The listening socket for metrics.
    pub listener: Vec<RawFd>,
    /// The clients' descriptors.
    pub client: Vec<RawFd>,
    /// The event that ends the metrics thread.
    pub metrics_end: Vec<RawFd>,
    /// The descriptor of the service manager's socket, if there is one.
    pub notify: Option<RawFd>,
    /// This process and the guest's thread.
    pub process: i32,
    /// See `process`.
    pub thread: i32,
}

impl Parameters {
    /// Returns the values of `parameter`.
    pub fn values(&self, parameter: Parameter) -> Vec<u64> {
        let fds = |fds: &[RawFd]| fds.iter().map(|&fd| fd as u64).collect();
        match parameter {
            Parameter::Vcpu => fds(&[self.vcpu]),
            Parameter::Debugger => fds(&self.debugger),
            Parameter::DebugRequests if self.debugger.is_empty() => Vec::new(),
            Parameter::DebugRequests => arch::Vcpu::DEBUG_REQUESTS.to_vec(),
            Parameter::Nets => fds(&self.nets),
            Parameter::RingNets => fds(&self.ring_nets),
            Parameter::Disks => fds(&self.disks),
            Parameter::CoreDirectory => fds(self.cores.map(|(directory, _)| directory).as_slice()),
            Parameter::CoreFile => fds(self.cores.map(|(_, file)| file).as_slice()),
            Parameter::Stats => fds(&self.stats),
            Parameter::Statm => fds(&self.statm),
            Parameter::Pieces => self.statm.iter().map(|_| MINCORE_PIECE as u64).collect(),
            Parameter::Listener => fds(&self.listener),
            Parameter::Client => fds(&self.client),
            Parameter::MetricsEnd => fds(&self.metrics_end),
            Parameter::Notify => fds(self.notify.as_slice()),
            Parameter::Waits => fds(&self.waits),
            Parameter::OldWaits => {
                let waits = self.timer.iter().flat_map(|_| &self.waits);
                waits.chain(&self.room).map(|&fd| fd as u64).collect()
            }
            Parameter::Timer => fds(self.timer.as_slice()),
            Parameter::Room => fds(&self.room),
            Parameter::Process => vec![self.process as u64],
            Parameter::Thread => vec![self.thread as u64],
            Parameter::Reports if self.cores.is_none() => arch::Vcpu::REPORT_REQUESTS.to_vec(),
            Parameter::Reports => [arch::Vcpu::REPORT_REQUESTS, arch::Vcpu::CORE_REQUESTS].concat(),
            Parameter::Signals => crate::host::signal::SIGNALS
                .map(|signal| signal as u64)
                .to_vec(),
            Parameter::Futex => {
                let operations = [libc::FUTEX_WAIT, libc::FUTEX_WAKE, libc::FUTEX_WAIT_BITSET];
                let flags = [0, libc::FUTEX_PRIVATE_FLAG, libc::FUTEX_CLOCK_REALTIME];
                let both = libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME;
                let flags = flags.into_iter().chain([both]);
                flags
                    .flat_map(|flag| operations.map(|operation| (operation | flag) as u64))
                    .collect()
            }
        }
    }
}

use Need::{Always, Seldom};
use Parameter::{
    Client, CoreDirectory, CoreFile, DebugRequests, Debugger, Disks, Futex, Listener, MetricsEnd,
    Nets, Notify, OldWaits, Pieces, Process, Reports, RingNets, Room, Signals, Statm, Stats,
    Thread, Timer, Vcpu, Waits,
};
use When::{Bits, Is, Null, OneOf};

const fn rule(call: c_long, when: &'static [When], need: Need) -> Rule {
    Rule { call, when, need }
}

// Memory that a thread may map or unmap: never executable, never from a file.
const BRK: Rule = rule(
    libc::SYS_brk,
    &[],
    Seldom("a heap that grows beyond the memory left free by set-up"),
);
const MMAP: Rule = rule(
    libc::SYS_mmap,
    &[Is(2, READ_WRITE), Is(3, MAP_KIND)],
    Seldom("the heap, as above, for large pieces"),
);
// The heap of a second thread is reserved first and made accessible as it grows.
const MMAP_ASIDE: Rule = rule(
    libc::SYS_mmap,
    &[
        Bits(2, !READ_WRITE, 0),
        Bits(3, MAP_KIND | libc::MAP_SHARED as u64, MAP_KIND),
    ],
    Seldom("glibc's heap of a second thread"),
);
const MPROTECT: Rule = rule(
    libc::SYS_mprotect,
    &[Is(2, READ_WRITE)],
    Seldom("glibc's heap of a second thread grows by it"),
);

// The panic hook of `start.rs` ends with this call; the thread must not choose the status.
const EXIT_AT_PANIC: Rule = rule(
    libc::SYS_exit_group,
    &[Is(0, 1)],
    Seldom("a panic of the tender ends the run"),
);

const ROOM: Rule = rule(
    libc::SYS_epoll_pwait,
    &[OneOf(0, Room), Null(4)],
    Seldom("the same, if `ppoll` is refused"),
);
const CLOCK: Rule = rule(
    libc::SYS_clock_gettime,
    &[],
    Seldom("the time, if the vDSO does not provide it"),
);
const FUTEX: Rule = rule(
    libc::SYS_futex,
    &[OneOf(1, Futex)],
    Always("one thread waits for the other"),
);

// Only `--stats` and `--metrics` need these.
const STATM: Rule = rule(
    libc::SYS_pread64,
    &[OneOf(0, Statm)],
    Always("how much memory the process has in RAM"),
);
const MINCORE: Rule = rule(
    libc::SYS_mincore,
    &[OneOf(1, Pieces)],
    Always("how much of the guest's memory is in RAM"),
);

/// Allow-list of the guest's thread.
pub const GUEST: &[Rule] = &[
    rule(
        libc::SYS_ioctl,
        &[OneOf(0, Vcpu), Is(1, KVM_RUN)],
        Always("the guest runs"),
    ),
    rule(
        libc::SYS_ioctl,
        &[OneOf(0, Vcpu), OneOf(1, Reports)],
        Always("the registers of a guest that violated the contract"),
    ),
    rule(
        libc::SYS_ioctl,
        &[OneOf(0, Vcpu), OneOf(1, DebugRequests)],
        Always("requests of a debugger to the vCPU"),
    ),
    rule(
        libc::SYS_read,
        &[OneOf(0, Debugger)],
        Always("reads from a debugger"),
    ),
    rule(
        libc::SYS_write,
        &[OneOf(0, Debugger)],
        Always("replies to a debugger"),
    ),
    rule(
        libc::SYS_epoll_pwait2,
        &[OneOf(0, Waits), Null(4)],
        Always("POLL"),
    ),
    rule(
        libc::SYS_epoll_pwait,
        &[OneOf(0, OldWaits), Null(4)],
        Seldom("the same, and the next, if one is refused"),
    ),
    rule(
        libc::SYS_timerfd_settime,
        &[OneOf(0, Timer)],
        Seldom("POLL by a timer"),
    ),
    rule(
        libc::SYS_epoll_ctl,
        &[OneOf(0, Waits), Is(1, libc::EPOLL_CTL_DEL as u64)],
        Seldom("an interface that is gone permanently"),
    ),
    rule(
        libc::SYS_ppoll,
        &[Is(1, 1), Null(3)],
        Always("room for output, and data from a debugger"),
    ),
    rule(libc::SYS_read, &[OneOf(0, Nets)], Always("NET_READ")),
    rule(libc::SYS_write, &[OneOf(0, Nets)], Always("NET_WRITE")),
    rule(
        libc::SYS_read,
        &[OneOf(0, RingNets)],
        Always("requests in the ring to receive"),
    ),
    rule(
        libc::SYS_write,
        &[OneOf(0, RingNets)],
        Always("requests in the ring to send"),
    ),
    rule(libc::SYS_pread64, &[OneOf(0, Disks)], Always("BLOCK_READ")),
    rule(
        libc::SYS_pwrite64,
        &[OneOf(0, Disks)],
        Always("BLOCK_WRITE"),
    ),
    rule(libc::SYS_write, &[Is(0, 1)], Always("PUTS")),
    rule(
        libc::SYS_write,
        &[OneOf(0, Notify)],
        Always("messages to a service manager; never by sendto, which takes an address"),
    ),
    rule(
        libc::SYS_shutdown,
        &[OneOf(0, Notify), Is(1, libc::SHUT_WR as u64)],
        Always("without a watchdog, a service manager's socket takes nothing once the guest runs"),
    ),
    rule(
        libc::SYS_write,
        &[Is(0, 2)],
        Always("messages of the tender"),
    ),
    rule(
        libc::SYS_write,
        &[OneOf(0, Stats)],
        Always("statistics, at the end"),
    ),
    rule(
        libc::SYS_openat,
        &[
            OneOf(0, CoreDirectory),
            Is(2, CORE_FLAGS as u64),
            Is(3, CORE_MODE as u64),
        ],
        Always("makes the core file, which is new or an error"),
    ),
    rule(
        libc::SYS_dup3,
        &[OneOf(1, CoreFile), Is(2, libc::O_CLOEXEC as u64)],
        Always("gives the core file the descriptor of the next rule"),
    ),
    rule(
        libc::SYS_pwrite64,
        &[OneOf(0, CoreFile)],
        Always("the core file"),
    ),
    rule(
        libc::SYS_write,
        &[OneOf(0, MetricsEnd)],
        Always("ends the thread that serves metrics"),
    ),
    STATM,
    MINCORE,
    FUTEX,
    rule(
        libc::SYS_rt_sigreturn,
        &[],
        Always("the way back from a signal's handler"),
    ),
    rule(
        libc::SYS_setitimer,
        &[Is(0, libc::ITIMER_REAL as u64)],
        Always("interrupts blocking calls at the end"),
    ),
    CLOCK,
    rule(
        libc::SYS_fdatasync,
        &[OneOf(0, Disks)],
        Always("disks at the end"),
    ),
    rule(
        libc::SYS_rt_sigaction,
        &[OneOf(0, Signals)],
        Always("ends the process by the signal that ended the run"),
    ),
    rule(
        libc::SYS_tgkill,
        &[OneOf(0, Process), OneOf(1, Thread), OneOf(2, Signals)],
        Always("ends the process by the signal that ended the run"),
    ),
    rule(
        libc::SYS_close,
        &[],
        Always("devices and machine at the end"),
    ),
    #[cfg(debug_assertions)]
    rule(
        libc::SYS_fcntl,
        &[Is(1, libc::F_GETFD as u64)],
        Always("Rust's own check of what it closes, in debug builds"),
    ),
    rule(libc::SYS_exit_group, &[], Always("the end")),
    rule(
        libc::SYS_munmap,
        &[],
        Always("memory and the processor's page at the end"),
    ),
    BRK,
    MMAP,
    MPROTECT,
    #[cfg(debug_assertions)]
    rule(
        libc::SYS_sigaltstack,
        &[],
        Seldom("the end of Rust's own main, which tests have"),
    ),
];

/// Allow-list of the network ring's thread.
pub const RING: &[Rule] = &[
    rule(
        libc::SYS_write,
        &[OneOf(0, RingNets)],
        Always("requests to send"),
    ),
    rule(
        libc::SYS_clock_nanosleep,
        &[],
        Always("a sleep between two polls of the ring"),
    ),
    rule(libc::SYS_nanosleep, &[], Seldom("the same, with musl")),
    rule(
        libc::SYS_read,
        &[OneOf(0, RingNets)],
        Always("requests to receive"),
    ),
    rule(
        libc::SYS_write,
        &[Is(0, 2)],
        Seldom("a log message about an error of the host"),
    ),
    rule(libc::SYS_ppoll, &[Is(1, 1), Null(3)], Seldom("the same")),
    ROOM,
    FUTEX,
    rule(
        libc::SYS_restart_syscall,
        &[],
        Always("a sleep that SIGSTOP and SIGCONT interrupted"),
    ),
    CLOCK,
    rule(
        libc::SYS_tgkill,
        &[
            OneOf(0, Process),
            OneOf(1, Thread),
            Is(2, libc::SIGALRM as u64),
        ],
        Always("interrupts the guest's thread after a violation in the ring"),
    ),
    rule(
        libc::SYS_rt_sigprocmask,
        &[],
        Always("the C library's end of a thread"),
    ),
    rule(
        libc::SYS_madvise,
        &[Is(2, libc::MADV_DONTNEED as u64)],
        Always("gives back the stack at the end"),
    ),
    rule(libc::SYS_exit, &[], Always("the end of the thread")),
    EXIT_AT_PANIC,
    rule(
        libc::SYS_munmap,
        &[],
        Seldom("the heap, as below, and other memory of a thread"),
    ),
    BRK,
    MMAP_ASIDE,
    MPROTECT,
    rule(
        libc::SYS_sigaltstack,
        &[],
        Seldom("the end of a thread under Rust's own main"),
    ),
];

/// Allow-list of the metrics thread.
pub const METRICS: &[Rule] = &[
    rule(
        libc::SYS_ppoll,
        &[Is(1, POLLED as u64), Null(3)],
        Always("waits for clients, their requests, and the end"),
    ),
    rule(
        libc::SYS_accept4,
        &[OneOf(0, Listener)],
        Always("accepts a client"),
    ),
    rule(
        libc::SYS_read,
        &[OneOf(0, Client)],
        Always("reads its request"),
    ),
    rule(
        libc::SYS_write,
        &[OneOf(0, Client)],
        Always("writes its answer"),
    ),
    rule(
        libc::SYS_close,
        &[OneOf(0, Client)],
        Always("closes its connection"),
    ),
    rule(
        libc::SYS_close,
        &[OneOf(0, Listener)],
        Always("no client is served afterwards, so none may wait"),
    ),
    #[cfg(debug_assertions)]
    rule(
        libc::SYS_fcntl,
        &[OneOf(0, Client), Is(1, libc::F_GETFD as u64)],
        Always("Rust's own check of what it closes, in debug builds"),
    ),
    #[cfg(debug_assertions)]
    rule(
        libc::SYS_fcntl,
        &[OneOf(0, Listener), Is(1, libc::F_GETFD as u64)],
        Always("the same"),
    ),
    STATM,
    MINCORE,
    rule(
        libc::SYS_write,
        &[Is(0, 2)],
        Seldom("a log message about a rejected or failed call"),
    ),
    rule(libc::SYS_ppoll, &[Is(1, 1), Null(3)], Seldom("the same")),
    ROOM,
    CLOCK,
    FUTEX,
    rule(
        libc::SYS_rt_sigprocmask,
        &[],
        Always("the C library's end of a thread"),
    ),
    rule(
        libc::SYS_madvise,
        &[Is(2, libc::MADV_DONTNEED as u64)],
        Always("gives back the stack at the end"),
    ),
    rule(libc::SYS_exit, &[], Always("the end of the thread")),
    EXIT_AT_PANIC,
    rule(
        libc::SYS_munmap,
        &[],
        Seldom("the heap, as below, and other memory of a thread"),
    ),
    BRK,
    MMAP_ASIDE,
    MPROTECT,
    rule(
        libc::SYS_sigaltstack,
        &[],
        Seldom("the end of a thread under Rust's own main"),
    ),
];

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

const NAMES: [(c_long, &str); 79] = names! {
    "read" = SYS_read, "write" = SYS_write, "close" = SYS_close, "mmap" = SYS_mmap, "mprotect" = SYS_mprotect,
    "munmap" = SYS_munmap, "mremap" = SYS_mremap, "brk" = SYS_brk, "madvise" = SYS_madvise, "ioctl" = SYS_ioctl,
    "pread64" = SYS_pread64, "pwrite64" = SYS_pwrite64, "readv" = SYS_readv, "writev" = SYS_writev,
    "ppoll" = SYS_ppoll, "epoll_pwait" = SYS_epoll_pwait, "epoll_pwait2" = SYS_epoll_pwait2,
    "epoll_ctl" = SYS_epoll_ctl, "timerfd_settime" = SYS_timerfd_settime, "futex" = SYS_futex, "fdatasync" = SYS_fdatasync, "fsync" = SYS_fsync,
    "rt_sigaction" = SYS_rt_sigaction, "rt_sigprocmask" = SYS_rt_sigprocmask, "sigaltstack" = SYS_sigaltstack,
    "setitimer" = SYS_setitimer, "clock_gettime" = SYS_clock_gettime, "clock_nanosleep" = SYS_clock_nanosleep,
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
    "nanosleep" = SYS_nanosleep, "shutdown" = SYS_shutdown, "accept4" = SYS_accept4, "mincore" = SYS_mincore, "exit" = SYS_exit,
    "exit_group" = SYS_exit_group, "rt_sigreturn" = SYS_rt_sigreturn,
};
