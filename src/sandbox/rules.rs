//! The system calls that are left once the guest runs: one list for each thread, each rule with its reason. What is
//! known only at run time, such as descriptors, stands as a [`Parameter`].
//!
//! `tests/sandbox_rules.rs` sees that every rule is used by some run, except those marked [`Need::Seldom`].

use std::os::fd::RawFd;

use libc::c_long;

use crate::arch;
pub use crate::arch::KVM_RUN;

const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const MAP_KIND: u64 = (libc::MAP_ANONYMOUS | libc::MAP_PRIVATE) as u64;

/// How core files are opened: each is new, and of this user alone.
pub(crate) const CORE_FLAGS: libc::c_int =
    libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
/// See [`CORE_FLAGS`].
pub(crate) const CORE_MODE: libc::mode_t = 0o600;

/// Clients of `--metrics` at a time.
pub(crate) const CLIENTS: usize = 8;
/// Descriptors that the thread of `--metrics` polls: its clients, its socket, and the event that ends it.
pub(crate) const POLLED: usize = 2 + CLIENTS;

/// Bytes of guest memory that one mincore is about.
pub(crate) const MINCORE_PIECE: usize = 2 << 20;

/// One call that is allowed, if all of `when` holds.
#[derive(Debug)]
pub struct Rule {
    /// Its number.
    pub call: c_long,
    /// What its arguments must be.
    pub when: &'static [When],
    /// How it comes to be made.
    pub need: Need,
}

/// Why a rule is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Runs need it.
    Always(&'static str),
    /// Only some C library, kernel or moment needs it, which no test brings about.
    Seldom(&'static str),
}

/// What an argument, counted from 0, must be.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// This number, of 32 bits: what the kernel looks at.
    Is(u8, u64),
    /// No pointer.
    Null(u8),
    /// With these bits set, and of them no others: (argument, mask, bits), of 64 bits.
    Bits(u8, u64, u64),
    /// One of these, each of 32 bits.
    OneOf(u8, Parameter),
}

/// Numbers that are known only at run time, or that differ between processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// The descriptor of the processor.
    Vcpu,
    /// What a report asks of the processor, and a core file if there may be one.
    Reports,
    /// The descriptor of the debugger, if there is one.
    Debugger,
    /// What a debugger asks of the processor, if there is one.
    DebugRequests,
    /// Descriptors of network interfaces.
    Nets,
    /// Those of the same interfaces, for the ring.
    RingNets,
    /// Descriptors of disks.
    Disks,
    /// The directory that may get a core file.
    CoreDirectory,
    /// The descriptor that the core file will have.
    CoreFile,
    /// The file that gets the statistics.
    Stats,
    /// Where the memory of this process can be read, if somebody wants to know.
    Statm,
    /// How much of the guest's memory is asked about at once, if somebody wants to know.
    Pieces,
    /// The socket where metrics are asked for.
    Listener,
    /// The clients' descriptors.
    Client,
    /// The event that ends the thread which answers.
    MetricsEnd,
    /// The descriptor of the service manager's socket, if there is one.
    Notify,
    /// The epoll set by which POLL waits.
    Waits,
    /// That set, if a timer ends its waits; and the next.
    OldWaits,
    /// That timer.
    Timer,
    /// The epoll sets of standard output and standard error, if `ppoll` is refused.
    Room,
    /// This process.
    Process,
    /// The thread that runs the guest.
    Thread,
    /// The signals that end a run.
    Signals,
    /// What a thread waits for and wakes others by: FUTEX_WAIT, FUTEX_WAKE, FUTEX_WAIT_BITSET, private or not.
    Futex,
}

/// The numbers of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The descriptor of the processor.
    pub vcpu: RawFd,
    /// The epoll set by which POLL waits, and the timer that ends its waits, where there is one.
    pub waits: Vec<RawFd>,
    /// See `waits`.
    pub timer: Option<RawFd>,
    /// The epoll sets of standard output and standard error, if `ppoll` is refused.
    pub room: Vec<RawFd>,
    /// The descriptor of the debugger.
    pub debugger: Vec<RawFd>,
    /// Descriptors of network interfaces.
    pub nets: Vec<RawFd>,
    /// Those of the same interfaces, for the ring.
    pub ring_nets: Vec<RawFd>,
    /// Descriptors of disks.
    pub disks: Vec<RawFd>,
    /// The directory that may get a core file, and the descriptor that the file will have.
    pub cores: Option<(RawFd, RawFd)>,
    /// The file that gets the statistics.
    pub stats: Vec<RawFd>,
    /// Where the memory of this process can be read.
    pub statm: Vec<RawFd>,
    /// The socket where metrics are asked for.
    pub listener: Vec<RawFd>,
    /// The clients' descriptors.
    pub client: Vec<RawFd>,
    /// The event that ends the thread which answers.
    pub metrics_end: Vec<RawFd>,
    /// The descriptor of the service manager's socket, if there is one.
    pub notify: Option<RawFd>,
    /// This process and the thread that runs the guest.
    pub process: i32,
    /// See `process`.
    pub thread: i32,
}

impl Parameters {
    /// The numbers that `parameter` stands for.
    pub fn values(&self, parameter: Parameter) -> Vec<u64> {
        let fds = |fds: &[RawFd]| fds.iter().map(|&fd| fd as u64).collect();
        match parameter {
            Parameter::Vcpu => fds(&[self.vcpu]),
            Parameter::Debugger => fds(&self.debugger),
            Parameter::DebugRequests if self.debugger.is_empty() => Vec::new(),
            Parameter::DebugRequests => arch::DEBUG_REQUESTS.to_vec(),
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
            Parameter::Reports if self.cores.is_none() => arch::REPORT_REQUESTS.to_vec(),
            Parameter::Reports => [arch::REPORT_REQUESTS, arch::CORE_REQUESTS].concat(),
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

// Memory that a thread may take or give back: never for code, and none of a file.
const BRK: Rule = rule(
    libc::SYS_brk,
    &[],
    Seldom("a heap that what set-up left free is not enough for"),
);
const MMAP: Rule = rule(
    libc::SYS_mmap,
    &[Is(2, READ_WRITE), Is(3, MAP_KIND)],
    Seldom("the heap, as above, for large pieces"),
);
// A heap of a second thread's own is set aside first and made usable as it grows.
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

// What the panic hook of `start.rs` ends with; the status is not for the thread to choose.
const END_AT_MISTAKE: Rule = rule(
    libc::SYS_exit_group,
    &[Is(0, 1)],
    Seldom("a mistake of ours ends the run"),
);

const ROOM: Rule = rule(
    libc::SYS_epoll_pwait,
    &[OneOf(0, Room), Null(4)],
    Seldom("the same, where `ppoll` is refused"),
);
const CLOCK: Rule = rule(
    libc::SYS_clock_gettime,
    &[],
    Seldom("the time, where the vDSO does not tell it"),
);
const FUTEX: Rule = rule(
    libc::SYS_futex,
    &[OneOf(1, Futex)],
    Always("one thread waits for the other"),
);

// What only `--stats` and `--metrics` ask for.
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

/// For the thread that runs the guest.
pub const GUEST: &[Rule] = &[
    rule(
        libc::SYS_ioctl,
        &[OneOf(0, Vcpu), Is(1, KVM_RUN)],
        Always("the guest runs"),
    ),
    rule(
        libc::SYS_ioctl,
        &[OneOf(0, Vcpu), OneOf(1, Reports)],
        Always("where the guest was when it broke a promise"),
    ),
    rule(
        libc::SYS_ioctl,
        &[OneOf(0, Vcpu), OneOf(1, DebugRequests)],
        Always("what a debugger wants of the processor"),
    ),
    rule(
        libc::SYS_read,
        &[OneOf(0, Debugger)],
        Always("what a debugger says"),
    ),
    rule(
        libc::SYS_write,
        &[OneOf(0, Debugger)],
        Always("what a debugger is told"),
    ),
    rule(
        libc::SYS_epoll_pwait2,
        &[OneOf(0, Waits), Null(4)],
        Always("POLL"),
    ),
    rule(
        libc::SYS_epoll_pwait,
        &[OneOf(0, OldWaits), Null(4)],
        Seldom("the same, and the next, where one is refused"),
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
        Always("room for output, and what a debugger has sent"),
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
        Always("what a service manager is told; never by sendto, which takes an address"),
    ),
    rule(
        libc::SYS_shutdown,
        &[OneOf(0, Notify), Is(1, libc::SHUT_WR as u64)],
        Always("without a watchdog, a service manager's socket takes nothing once the guest runs"),
    ),
    rule(
        libc::SYS_write,
        &[Is(0, 2)],
        Always("the tender's own words"),
    ),
    rule(
        libc::SYS_write,
        &[OneOf(0, Stats)],
        Always("what the run came to, at the end"),
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
        Always("gives the core file the number that the next rule knows"),
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
        Always("interrupts whatever blocks at the end"),
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
        Always("to die by the signal that ended the run"),
    ),
    rule(
        libc::SYS_tgkill,
        &[OneOf(0, Process), OneOf(1, Thread), OneOf(2, Signals)],
        Always("to die by the signal that ended the run"),
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

/// For the thread that looks after the network ring.
pub const RING: &[Rule] = &[
    rule(
        libc::SYS_write,
        &[OneOf(0, RingNets)],
        Always("requests to send"),
    ),
    rule(
        libc::SYS_clock_nanosleep,
        &[],
        Always("a nap between two looks"),
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
        Seldom("a fault of the host that this thread is the first to meet"),
    ),
    rule(libc::SYS_ppoll, &[Is(1, 1), Null(3)], Seldom("the same")),
    ROOM,
    FUTEX,
    rule(
        libc::SYS_restart_syscall,
        &[],
        Always("a nap that a stop and a continuation cut in two"),
    ),
    CLOCK,
    rule(
        libc::SYS_tgkill,
        &[
            OneOf(0, Process),
            OneOf(1, Thread),
            Is(2, libc::SIGALRM as u64),
        ],
        Always("calls the guest's thread when the guest broke the ring"),
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
    END_AT_MISTAKE,
    rule(
        libc::SYS_munmap,
        &[],
        Seldom("the heap, as below, and what else a thread leaves behind"),
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

/// For the thread that serves metrics.
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
        Always("no client is served any more, so none may wait"),
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
        Seldom("a call that is not allowed, or that the host fails to do, is told"),
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
    END_AT_MISTAKE,
    rule(
        libc::SYS_munmap,
        &[],
        Seldom("the heap, as below, and what else a thread leaves behind"),
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

/// The name of a system call, for messages: those of the lists, and those that an attacker would try.
pub fn name(call: c_long) -> Option<&'static str> {
    let known = |table: &[(c_long, &'static str)]| {
        table
            .iter()
            .find(|(number, _)| *number == call)
            .map(|(_, name)| *name)
    };
    known(&NAMES).or_else(|| known(arch::OLD_CALLS))
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
