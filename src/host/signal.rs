//! SIGTERM, SIGINT and SIGHUP end a run cleanly at any time: while the guest runs, while POLL
//! sleeps, while a console write waits for a slow reader. Elsewhere this costs no system call.
//!
//! The handler sets the flag that keeps KVM from running the guest. It also starts a timer that
//! interrupts blocking calls repeatedly until the run has ended, so a signal just before a blocking
//! call is not lost. The timer's signal is SIGALRM. An unrequested SIGALRM (a timer that the
//! tender's caller set survives exec) ends the run like the other signals.
//!
//! The time limit ([`limit`]) is a separate timer, whose SIGALRM the handler can distinguish from
//! all others. SIGIO interrupts the guest without ending the run: by an [`Alarm`], or by a debugger.

#![expect(unsafe_code, reason = "signal handlers and timers")]

use std::io;
use std::num::NonZeroU32;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU8, Ordering};

use libc::{c_int, c_void, siginfo_t};
use vmm_sys_util::errno;
use vmm_sys_util::signal::register_signal_handler;

use crate::host::{ids, inherited_filter};

/// Signals that end a run.
pub(crate) const SIGNALS: [c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGALRM];

/// Interval at which blocking calls are interrupted once the run should end, in microseconds.
const REMINDER_MICROSECONDS: libc::suseconds_t = 10_000;

/// Value instead of a signal number: the time limit expired.
const TIMEOUT: c_int = -1;

/// The first signal that requested the end, [`TIMEOUT`], or 0; a signal replaces a timeout.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// The byte of the running vCPU that keeps it from entering the guest, or null.
static INTERRUPT_FLAG: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// The timer passed to [`arm_on_signal`], or −1.
static POLL_TIMER: AtomicI32 = AtomicI32::new(-1);

/// The process that is the guest, or 0.
static GUEST: AtomicI32 = AtomicI32::new(0);

/// This process and the guest's thread, set by [`claim_thread`].
static PROCESS: AtomicI32 = AtomicI32::new(0);
static THREAD: AtomicI32 = AtomicI32::new(0);

/// Cause of a requested end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// This signal.
    Signal(i32),
    /// The time limit.
    Timeout,
}

/// Why the signal handlers or the timer cannot be installed.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("cannot install signal handlers: {0}")]
    Handlers(errno::Error),
    #[error("cannot start the --timeout timer: {0}")]
    #[diagnostic(help("omit the option"))]
    Timer(io::Error),
}

/// While this value lives, signals end the run instead of the process.
#[derive(Debug)]
pub struct Guard(());

/// Repeats `call` while signals interrupt it: SIGSTOP and SIGCONT interrupt calls about files of a
/// network or of FUSE. For short calls, or before [`install_handlers`], while signals still end the
/// process by default.
///
/// # Errors
/// Those of `call`, except EINTR.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Installs the signal handlers for the vCPU whose interrupt flag is at `interrupt_flag`.
///
/// # Safety
/// `interrupt_flag` must stay valid until the returned guard is dropped.
pub unsafe fn install_handlers(interrupt_flag: *mut u8) -> Result<Guard, Error> {
    INTERRUPT_FLAG.store(interrupt_flag, Ordering::SeqCst);
    let guard = Guard(());
    // Without SA_RESTART, blocking calls end with EINTR, as intended. Ignored signals stay ignored:
    // `nohup` requests a run that outlives its terminal.
    let is_wanted = |signal: &c_int| *signal != libc::SIGHUP || !is_ignored(*signal);
    for signal in SIGNALS.into_iter().filter(is_wanted) {
        register_signal_handler(signal, on_signal).map_err(Error::Handlers)?;
    }
    prepare();
    Ok(guard)
}

/// Returns whether the tender's caller made it ignore `signal`.
fn is_ignored(signal: c_int) -> bool {
    // SAFETY: the kernel fills in the action, a plain value; nothing else is written or set.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Unblocks signals that the tender's caller blocked: SIGTERM and SIGALRM must end the run or
/// interrupt it, SIGSYS reports a sandbox violation, and SIGUSR1 requests statistics.
fn prepare() {
    let others = [libc::SIGSYS, libc::SIGUSR1, libc::SIGIO];
    unblock(&[&SIGNALS[..], &others].concat());
}

/// Unblocks signals in this thread.
pub(super) fn unblock(signals: &[c_int]) {
    // SAFETY: the set is a plain value that `sigemptyset` initialises; the calls read it and write
    // nothing else.
    unsafe {
        let mut ours = std::mem::zeroed();
        libc::sigemptyset(&raw mut ours);
        for &signal in signals {
            libc::sigaddset(&raw mut ours, signal);
        }
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const ours, ptr::null_mut());
    }
}

/// Blocks all signals in this thread, so that the guest's thread gets them. The exceptions are
/// those that its own actions cause: SIGSYS by a sandbox violation, SIGBUS by a page that cannot be
/// read.
pub fn block_all_signals() {
    // SAFETY: the set is a plain value that `sigfillset` initialises; the calls read it and write
    // nothing else.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigdelset(&raw mut all, libc::SIGSYS);
        libc::sigdelset(&raw mut all, libc::SIGBUS);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut());
    }
}

/// Makes signals also fire the timer `fd` (of `timerfd_create`), which is part of a wait. Behind a
/// filter that forbids setitimer, nothing else would end a wait that begins just as a signal
/// arrives.
pub(crate) fn arm_on_signal(fd: RawFd) {
    POLL_TIMER.store(fd, Ordering::SeqCst);
}

/// Makes the timer `fd` fire in `first` nanoseconds and then every `again` nanoseconds, if that is
/// not 0.
///
/// # Errors
/// The host refuses.
pub(crate) fn set_timer(fd: RawFd, first: u64, again: u64) -> io::Result<()> {
    let when = every(first, again);
    // SAFETY: the kernel reads `when` and, because the old value is not requested, writes nothing.
    match unsafe { libc::timerfd_settime(fd, 0, &raw const when, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

const NANOSECONDS: u64 = 1_000_000_000;

/// Returns a timer's setting, in nanoseconds.
fn every(first: u64, again: u64) -> libc::itimerspec {
    let [it_value, it_interval] = [first, again].map(|nanoseconds| libc::timespec {
        tv_sec: (nanoseconds / NANOSECONDS) as libc::time_t,
        tv_nsec: (nanoseconds % NANOSECONDS) as libc::c_long,
    });
    libc::itimerspec {
        it_interval,
        it_value,
    }
}

/// Sends a signal to the guest's thread: the only call of its kind that the sandbox allows.
fn send(signal: c_int) {
    let [process, thread] = [&PROCESS, &THREAD].map(|id| id.load(Ordering::SeqCst));
    // SAFETY: the call takes plain numbers of a thread that lives as long as the process.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
}

/// Makes this thread the guest's thread, to which [`raise_default`] sends its signal; returns the
/// process and the thread.
pub fn claim_thread() -> (i32, i32) {
    let process = std::process::id() as i32;
    let thread = ids::thread();
    PROCESS.store(process, Ordering::SeqCst);
    THREAD.store(thread, Ordering::SeqCst);
    (process, thread)
}

/// Makes SIGIO interrupt the guest without ending the run.
///
/// # Errors
/// The handler cannot be installed.
pub fn handle_sigio() -> errno::Result<()> {
    register_signal_handler(libc::SIGIO, on_interruption)
}

/// Makes the kernel send this thread the signals of `fd`. Repeat it after a change of the user: the
/// kernel checks the rights of the user who called.
///
/// # Errors
/// A filter rejects the call.
pub(crate) fn own(fd: RawFd) -> io::Result<()> {
    // The kernel's `struct f_owner_ex`, which libc lacks on some targets.
    #[repr(C)]
    struct Owner {
        kind: c_int,
        id: c_int,
    }
    const F_SETOWN_EX: c_int = 15;
    const F_OWNER_TID: c_int = 0;
    let owner = Owner {
        kind: F_OWNER_TID,
        id: ids::thread(),
    };
    // SAFETY: the kernel reads `owner`.
    match unsafe { libc::fcntl(fd, F_SETOWN_EX, &raw const owner) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_interruption(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    set_interrupt_flag(1);
}

/// Clears the interrupt flag. Call [`received`] afterwards, never before, or a signal is lost.
pub fn clear_interrupt() {
    set_interrupt_flag(0);
}

/// Returns whether a wait must end: a signal requested the end of the run, or a debugger sent data.
pub fn interrupts() -> bool {
    received().is_some() || interrupt_flag().is_some_and(|flag| flag.load(Ordering::SeqCst) != 0)
}

/// Returns the cause of a requested end of the run, if any.
pub fn received() -> Option<Request> {
    match RECEIVED.load(Ordering::SeqCst) {
        0 => None,
        TIMEOUT => Some(Request::Timeout),
        signal => Some(Request::Signal(signal)),
    }
}

/// Requests the end of the run in `seconds`; call [`install_handlers`] before. The timer ends with the
/// process.
///
/// # Errors
/// The host has no timer left.
pub fn limit(seconds: NonZeroU32) -> Result<(), Error> {
    let timer = create_timer(libc::CLOCK_MONOTONIC, libc::SIGALRM).map_err(Error::Timer)?;
    arm_timer(timer, u64::from(seconds.get()) * NANOSECONDS, 0).map_err(Error::Timer)
}

/// A timer that interrupts the guest without ending the run. It ends with the process.
#[derive(Debug)]
pub struct Alarm(c_int);

impl Alarm {
    /// Creates the timer. Call it before the sandbox is entered, which forbids this.
    ///
    /// # Errors
    /// The host has no timer left.
    pub fn new() -> io::Result<Alarm> {
        handle_sigio()?;
        create_timer(libc::CLOCK_MONOTONIC, libc::SIGIO).map(Alarm)
    }

    /// Makes the timer interrupt the guest once, after `nanoseconds`. Returns false if the host
    /// refuses.
    pub fn set(&self, nanoseconds: u64) -> bool {
        arm_timer(self.0, nanoseconds, 0).is_ok()
    }

    /// Returns the timer's ID.
    pub fn id(&self) -> c_int {
        self.0
    }
}

/// Interrupts the process `guest` after every `nanoseconds` of its processor time.
/// The timer ends with the process.
///
/// # Errors
/// The host has no timer left.
pub fn interrupt_each(guest: i32, nanoseconds: u64) -> io::Result<()> {
    /// The kernel's number for the processor time of a process.
    const SCHEDULED: c_int = 2;
    handle_sigio()?;
    let timer = create_timer(!guest << 3 | SCHEDULED, libc::SIGIO)?;
    arm_timer(timer, nanoseconds, nanoseconds)
}

/// Creates a timer by `clock` that sends `signal`. libc has no wrappers for timers.
fn create_timer(clock: libc::clockid_t, signal: c_int) -> io::Result<c_int> {
    let mut timer: c_int = 0;
    // SAFETY: the event is plain numbers, for which zero is valid. The kernel reads it, and writes
    // only the timer's ID.
    let created = unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        (event.sigev_notify, event.sigev_signo) = (libc::SIGEV_SIGNAL, signal);
        let event = &raw const event;
        libc::syscall(libc::SYS_timer_create, clock, event, &raw mut timer)
    };
    if created == 0 {
        Ok(timer)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes `timer` fire in `first` nanoseconds and then every `again` nanoseconds, if that is not 0.
fn arm_timer(timer: c_int, first: u64, again: u64) -> io::Result<()> {
    let when = every(first, again);
    let (old, flags): (*mut libc::itimerspec, c_int) = (ptr::null_mut(), 0);
    // SAFETY: the kernel reads `when` and, because the old value is not requested, writes nothing.
    match unsafe { libc::syscall(libc::SYS_timer_settime, timer, flags, &raw const when, old) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends the process by `signal`, which ended the run, so that the parent sees a regular termination
/// by signal. Returns only if that fails.
pub fn raise_default(signal: i32) {
    // SAFETY: the call takes plain numbers; the default action of these signals ends the process.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    send(signal);
}

impl Drop for Guard {
    fn drop(&mut self) {
        INTERRUPT_FLAG.store(ptr::null_mut(), Ordering::SeqCst);
        set_reminder(0);
    }
}

extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a valid structure to a handler registered with SA_SIGINFO, as ours
    // are.
    let from_timer = unsafe { (*info).si_code } == libc::SI_TIMER;
    let request = if from_timer { TIMEOUT } else { signal };
    let first = RECEIVED
        .compare_exchange(0, request, Ordering::SeqCst, Ordering::SeqCst)
        .is_ok();
    // After a timeout a real signal still interrupts (e.g. while a core is written); our own
    // SIGALRM does not.
    if !first && signal != libc::SIGALRM {
        let _ = RECEIVED.compare_exchange(TIMEOUT, signal, Ordering::SeqCst, Ordering::SeqCst);
    }
    set_interrupt_flag(1);
    if first {
        let timer = POLL_TIMER.load(Ordering::SeqCst);
        match (inherited_filter::has_rejected(), timer) {
            (false, _) => set_reminder(REMINDER_MICROSECONDS),
            // A handler must not make a call that a filter may reject: the SIGSYS would be fatal,
            // not ENOSYS.
            (true, -1) => {}
            (true, timer) => _ = set_timer(timer, 1, 1000 * REMINDER_MICROSECONDS as u64),
        }
    }
}

fn set_interrupt_flag(value: u8) {
    if let Some(flag) = interrupt_flag() {
        flag.store(value, Ordering::SeqCst);
    }
    let guest = GUEST.load(Ordering::SeqCst);
    if value != 0 && guest != 0 {
        // SAFETY: the call takes plain numbers, and handlers may make it.
        unsafe { libc::syscall(libc::SYS_kill, guest, libc::SIGSTOP) };
    }
}

/// Returns the process that is the guest, if there is one.
pub fn guests_process() -> Option<i32> {
    Some(GUEST.load(Ordering::SeqCst)).filter(|guest| *guest != 0)
}

/// Makes signals stop the process `guest` too, a child that this thread waits for; 0 ends this.
pub fn interrupts_process(guest: i32) {
    GUEST.store(guest, Ordering::SeqCst);
}

/// Returns the vCPU's flag; the kernel reads it at every entry.
fn interrupt_flag() -> Option<&'static AtomicU8> {
    let flag = INTERRUPT_FLAG.load(Ordering::SeqCst);
    // SAFETY: the caller of `install_handlers` guarantees that the flag is valid as long as it is
    // not null; no use of the reference outlasts that.
    (!flag.is_null()).then(|| unsafe { AtomicU8::from_ptr(flag) })
}

/// Starts the timer, or stops it with 0. A bare system call, so that a handler may make it.
fn set_reminder(microseconds: libc::suseconds_t) {
    let interval = libc::timeval {
        tv_sec: 0,
        tv_usec: microseconds,
    };
    let timer = libc::itimerval {
        it_interval: interval,
        it_value: interval,
    };
    let old: *mut libc::itimerval = ptr::null_mut();
    // SAFETY: the kernel reads `timer` and, because the old value is not requested, writes nothing.
    // libc has no wrapper for setitimer on every target.
    unsafe { libc::syscall(libc::SYS_setitimer, libc::ITIMER_REAL, &timer, old) };
}
