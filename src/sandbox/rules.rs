//! The system calls that are allowed once the guest runs: one list for each thread, each rule with
//! its reason. Values known only at run time, such as descriptors, are represented by a
//! [`Parameter`].
//!
//! `tests/e2e/sandbox_rules.rs` checks that some run uses every rule, except those marked
//! [`Need::Seldom`].

use libc::c_long;

pub use crate::arch::KVM_RUN;
use crate::arch::PTRACE_REQUESTS;

mod names;
mod parameters;

pub use names::name;
pub use parameters::{Parameter, Parameters};

const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const MAP_KIND: u64 = (libc::MAP_ANONYMOUS | libc::MAP_PRIVATE) as u64;

/// Signals to the process that is a guest.
const STOPS: &[u64] = &[libc::SIGSTOP as u64, libc::SIGKILL as u64];

/// Flags of a futex operation: private or not, with a time limit by either clock.
const FUTEX_FLAGS: u64 = (libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME) as u64;
const FUTEX_OPERATIONS: &[u64] = &[
    libc::FUTEX_WAIT as u64,
    libc::FUTEX_WAKE as u64,
    libc::FUTEX_WAIT_BITSET as u64,
];

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
    /// (argument, mask, numbers): its bits masked by `mask` are one of these 32-bit numbers.
    Masked(u8, u64, &'static [u64]),
    /// Is one of these 32-bit numbers.
    OneOf(u8, Parameter),
}

use Need::{Always, Seldom};
use Parameter::{
    Alarm, Child, Client, CoreDirectory, CoreFile, DebugRequests, Debugger, Disks, Lease, Listener,
    MetricsEnd, Nets, Notify, Null, OldWaits, Pieces, Placed, Process, Reports, RingNets, Room,
    Shared, Signals, Statm, Stats, Thread, Timer, Vcpu, Waits,
};
use When::{Is, Masked, OneOf};

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
        Masked(2, !READ_WRITE, &[0]),
        Masked(3, MAP_KIND | libc::MAP_SHARED as u64, &[MAP_KIND]),
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
    &[OneOf(0, Room)],
    Seldom("the same, if `ppoll` is refused"),
);
const CLOCK: Rule = rule(
    libc::SYS_clock_gettime,
    &[],
    Seldom("the time, if the vDSO does not provide it"),
);
const FUTEX: Rule = rule(
    libc::SYS_futex,
    &[Masked(1, !FUTEX_FLAGS, FUTEX_OPERATIONS)],
    Seldom("one thread waits for the other, unless that one is ready"),
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
        libc::SYS_ptrace,
        &[Masked(0, u32::MAX as u64, PTRACE_REQUESTS), OneOf(1, Child)],
        Always("drives the process that is the guest"),
    ),
    rule(
        libc::SYS_wait4,
        &[OneOf(0, Child), Is(2, libc::__WALL as u64)],
        Always("waits until that process stops"),
    ),
    rule(
        libc::SYS_kill,
        &[OneOf(0, Child), Masked(1, u32::MAX as u64, STOPS)],
        Always("interrupts and ends that process"),
    ),
    rule(
        libc::SYS_sched_setaffinity,
        &[OneOf(0, Placed)],
        Always("keeps that process and this thread on one processor"),
    ),
    rule(
        libc::SYS_getcpu,
        &[OneOf(2, Null)],
        Seldom("that processor, where the C library does not know it otherwise"),
    ),
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
    rule(libc::SYS_epoll_pwait2, &[OneOf(0, Waits)], Always("POLL")),
    rule(
        libc::SYS_epoll_pwait,
        &[OneOf(0, OldWaits)],
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
        &[Is(1, 1)],
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
    rule(
        libc::SYS_timer_settime,
        &[OneOf(0, Alarm), Is(3, 0)],
        Always("interrupts a guest that fills the ring without kicks"),
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
        libc::SYS_madvise,
        &[OneOf(1, Shared), Is(2, libc::MADV_DONTDUMP as u64)],
        Always("a copy of pages of the unikernel's file, which is about to change"),
    ),
    rule(
        libc::SYS_mremap,
        &[
            OneOf(1, Shared),
            OneOf(2, Shared),
            Is(3, (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64),
        ],
        Always("puts it in their place"),
    ),
    rule(
        libc::SYS_fcntl,
        &[
            OneOf(0, Lease),
            Is(1, libc::F_SETLEASE as u64),
            Is(2, libc::F_UNLCK as u64),
        ],
        Always("lets it change then"),
    ),
    rule(
        libc::SYS_fstat,
        &[OneOf(0, Lease)],
        Seldom("whether it has changed, if the user may not give the lease back"),
    ),
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
        Always("the files and the connection of gdb at the end"),
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
        Seldom("the heap, as below, for large pieces"),
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

/// Allow-list of the metrics thread.
pub const METRICS: &[Rule] = &[
    rule(
        libc::SYS_ppoll,
        &[Is(1, POLLED as u64)],
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
    rule(libc::SYS_ppoll, &[Is(1, 1)], Seldom("the same")),
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
