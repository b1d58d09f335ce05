//! SIGTERM, SIGINT and SIGHUP end a run in order, at any moment: while the guest runs, while POLL sleeps, while a
//! console write waits for a slow reader. Without costing a system call anywhere else.
//!
//! The handler sets the flag that keeps KVM from running the guest, and starts a timer that interrupts whatever
//! blocks, again and again, until the run has ended: a signal that arrives just before a blocking call is not lost.
//! The timer's signal is SIGALRM. One that comes without having been asked for (a timer that whoever started the
//! tender had set outlives exec) ends the run as the others do.
//!
//! A limit of time ([`limit`]) is a timer of its own, whose SIGALRM the handler can tell from all others.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU8, Ordering};

use libc::{c_int, c_void, siginfo_t};
use vmm_sys_util::errno;
use vmm_sys_util::signal::register_signal_handler;

use crate::host::inherited_filter;

/// The signals that end a run.
pub(crate) const SIGNALS: [c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGALRM];

/// How often a blocking call is interrupted once the run should end, in microseconds.
const REMINDER_MICROSECONDS: libc::suseconds_t = 10_000;

/// In place of a signal: the time is over.
const TIMEOUT: c_int = -1;

/// The first signal that asked for the end, or 0, or [`TIMEOUT`] as long as there is none.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// The byte of the running vCPU that keeps it from entering the guest, or null.
static INTERRUPT_FLAG: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// The timer that [`remind_by`] was given, or −1.
static POLL_TIMER: AtomicI32 = AtomicI32::new(-1);

/// This process and its thread that runs the guest, since [`claim_thread`].
static PROCESS: AtomicI32 = AtomicI32::new(0);
static THREAD: AtomicI32 = AtomicI32::new(0);

/// What asked for the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// This signal.
    Signal(i32),
    /// The limit of time.
    Timeout,
}

/// Why signals cannot be caught as a run needs them.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum Error {
    #[error("cannot catch signals: {0}")]
    Handlers(errno::Error),
    #[error("cannot start the timer of --timeout: {0}; leave the option out")]
    Timer(io::Error),
}

/// While it lives, signals end the run instead of the process.
#[derive(Debug)]
pub struct Guard(());

/// Repeats `call` while signals interrupt it. A stop and a continuation interrupt calls about files of a network or in
/// user space (FUSE). For short calls, or before [`catch`], while a signal still ends the process by default.
///
/// # Errors
/// Those of `call`, but for EINTR.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Starts to catch signals for the vCPU whose interrupt flag is at `interrupt_flag`.
///
/// # Safety
/// `interrupt_flag` must stay valid until the returned guard is dropped.
pub unsafe fn catch(interrupt_flag: *mut u8) -> Result<Guard, Error> {
    INTERRUPT_FLAG.store(interrupt_flag, Ordering::SeqCst);
    let guard = Guard(());
    // Handlers are registered without SA_RESTART, so blocking calls end with EINTR, which is the point.
    // `nohup` asks for a run that outlives its terminal.
    for signal in SIGNALS
        .into_iter()
        .filter(|&signal| signal != libc::SIGHUP || !is_ignored(signal))
    {
        register_signal_handler(signal, on_signal).map_err(Error::Handlers)?;
    }
    prepare();
    Ok(guard)
}

/// Whether whoever started the tender had it ignore `signal`.
fn is_ignored(signal: c_int) -> bool {
    // SAFETY: the action is a plain value for the kernel to fill in; nothing else is written, and nothing is set.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// What is inherited and would be in the way: a blocked SIGTERM would end nothing, a blocked SIGALRM remind of nothing,
/// a blocked SIGSYS could not name what the sandbox does not allow, and a blocked SIGUSR1 would ask for nothing.
fn prepare() {
    // SAFETY: the set is a plain value that `sigemptyset` initialises; the calls read it and write nothing else.
    unsafe {
        let mut ours = std::mem::zeroed();
        libc::sigemptyset(&raw mut ours);
        for signal in
            SIGNALS
                .into_iter()
                .chain([libc::SIGALRM, libc::SIGSYS, libc::SIGUSR1, libc::SIGIO])
        {
            libc::sigaddset(&raw mut ours, signal);
        }
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const ours, ptr::null_mut());
    }
}

/// Leaves all signals to the thread that runs the guest: for any other thread. Its own violations of the sandbox are no
/// exception to be left.
pub fn leave_to_the_guests_thread() {
    // SAFETY: the set is a plain value that `sigfillset` initialises; the calls read it and write nothing else.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigdelset(&raw mut all, libc::SIGSYS);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut());
    }
}

/// Has a signal set off the timer `fd` (of `timerfd_create`) as well, for a wait of which that is a part: behind a
/// filter that allows no timer of signals, nothing else would end a wait that begins as a signal arrives.
pub(crate) fn remind_by(fd: RawFd) {
    POLL_TIMER.store(fd, Ordering::SeqCst);
}

/// Has the timer `fd` go off in so many nanoseconds, and then again and again, if that is not 0.
///
/// # Errors
/// The host refuses.
pub(crate) fn set_timer(fd: RawFd, first: u64, again: u64) -> io::Result<()> {
    let time = |nanoseconds| libc::timespec {
        tv_sec: (nanoseconds / 1_000_000_000) as libc::time_t,
        tv_nsec: (nanoseconds % 1_000_000_000) as libc::c_long,
    };
    let when = libc::itimerspec {
        it_interval: time(again),
        it_value: time(first),
    };
    // SAFETY: the kernel reads `when` and, the old value not being asked for, writes nothing.
    match unsafe { libc::timerfd_settime(fd, 0, &raw const when, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends the run from another thread, as a signal from outside would.
pub fn alarm() {
    send(libc::SIGALRM);
}

/// Sends a signal to the thread that runs the guest: the one call of its kind that the sandbox allows.
fn send(signal: c_int) {
    // SAFETY: the call takes plain numbers, of a thread that is there as long as the process.
    unsafe {
        libc::syscall(
            libc::SYS_tgkill,
            PROCESS.load(Ordering::SeqCst),
            THREAD.load(Ordering::SeqCst),
            signal,
        )
    };
}

/// Makes this thread the one that runs the guest, which [`alarm`] and [`die_by`] send their signals to; returns the
/// process and the thread.
pub fn claim_thread() -> (i32, i32) {
    // SAFETY: the calls take nothing and cannot fail. Not libc's gettid: Rust's standard library makes that a weak
    // symbol, which static glibc leaves empty.
    let (process, thread) = unsafe { (libc::getpid(), libc::syscall(libc::SYS_gettid) as i32) };
    // Behind a filter that refuses to tell, this is taken to be the first thread, which has the number of its process.
    let thread = if thread < 0 { process } else { thread };
    PROCESS.store(process, Ordering::SeqCst);
    THREAD.store(thread, Ordering::SeqCst);
    (process, thread)
}

/// From now on, SIGIO interrupts the guest as other signals do, and the run goes on: a debugger has sent something.
///
/// # Errors
/// The signal cannot be caught.
pub fn heed_debugger() -> errno::Result<()> {
    register_signal_handler(libc::SIGIO, on_debugger)
}

extern "C" fn on_debugger(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    keep_from_running();
}

/// Lets the guest run again. Whether the interruption was for its end is to be looked for after this, not before.
pub fn let_run() {
    set_interrupt_flag(0);
}

/// Whether a wait must end: a signal asks for the end of the run, or a debugger has sent data.
pub fn interrupts() -> bool {
    let flag = INTERRUPT_FLAG.load(Ordering::SeqCst);
    // SAFETY: as in `set_interrupt_flag`.
    received().is_some()
        || !flag.is_null() && unsafe { AtomicU8::from_ptr(flag) }.load(Ordering::SeqCst) != 0
}

/// What asked for the end of the run, if anything did.
pub fn received() -> Option<Request> {
    match RECEIVED.load(Ordering::SeqCst) {
        0 => None,
        TIMEOUT => Some(Request::Timeout),
        signal => Some(Request::Signal(signal)),
    }
}

/// Asks for the end of the run in so many seconds; [`catch`] must follow at once. The timer ends with the process.
///
/// # Errors
/// The host has no timer to give.
pub fn limit(seconds: NonZeroU32) -> Result<(), Error> {
    let duration = libc::timespec {
        tv_sec: seconds.get().into(),
        tv_nsec: 0,
    };
    let never = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let when = libc::itimerspec {
        it_interval: never,
        it_value: duration,
    };
    let mut timer: c_int = 0;
    let flags: c_int = 0;
    // SAFETY: the event is plain numbers, for which zero will do. The kernel reads it and `when`, and writes the
    // timer's number and, the old value not being asked for, nothing else. libc has no wrappers for these.
    let started = unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGALRM;
        libc::syscall(
            libc::SYS_timer_create,
            libc::CLOCK_MONOTONIC,
            &raw const event,
            &raw mut timer,
        ) == 0
            && libc::syscall(
                libc::SYS_timer_settime,
                timer,
                flags,
                &raw const when,
                ptr::null_mut::<libc::itimerspec>(),
            ) == 0
    };
    if started {
        Ok(())
    } else {
        Err(Error::Timer(io::Error::last_os_error()))
    }
}

/// Ends the process by `signal`, which ended the run, so that whoever started it sees a clean stop. Returns only if
/// that cannot be done.
pub fn die_by(signal: i32) {
    // SAFETY: the call takes plain numbers; the default action of the signals we catch is to end the process.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    send(signal);
}

impl Drop for Guard {
    fn drop(&mut self) {
        INTERRUPT_FLAG.store(ptr::null_mut(), Ordering::SeqCst);
        remind(0);
    }
}

extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a valid structure to a handler that was registered with SA_SIGINFO, as ours are.
    let from_timer = unsafe { (*info).si_code } == libc::SI_TIMER;
    let request = if from_timer { TIMEOUT } else { signal };
    let first = RECEIVED
        .compare_exchange(0, request, Ordering::SeqCst, Ordering::SeqCst)
        .is_ok();
    // What goes on after the time is over, as a core file may, ends by a signal all the same; by our reminders not.
    if !first && signal != libc::SIGALRM {
        let _ = RECEIVED.compare_exchange(TIMEOUT, signal, Ordering::SeqCst, Ordering::SeqCst);
    }
    keep_from_running();
    if first {
        match (
            inherited_filter::is_there(),
            POLL_TIMER.load(Ordering::SeqCst),
        ) {
            (false, _) => remind(REMINDER_MICROSECONDS),
            // A handler must not make a call that may be refused: it would not be told so, but die.
            (true, -1) => {}
            (true, timer) => _ = set_timer(timer, 1, 1000 * REMINDER_MICROSECONDS as u64),
        }
    }
}

fn keep_from_running() {
    set_interrupt_flag(1);
}

fn set_interrupt_flag(value: u8) {
    let flag = INTERRUPT_FLAG.load(Ordering::SeqCst);
    if !flag.is_null() {
        // SAFETY: `catch` was promised that the flag is valid as long as it is not null; it is one atomic byte that
        // the kernel reads at every entry.
        unsafe { AtomicU8::from_ptr(flag) }.store(value, Ordering::SeqCst);
    }
}

/// Starts, or with 0 stops, the timer. A bare system call, so that a handler may do it.
fn remind(microseconds: libc::suseconds_t) {
    let interval = libc::timeval {
        tv_sec: 0,
        tv_usec: microseconds,
    };
    let timer = libc::itimerval {
        it_interval: interval,
        it_value: interval,
    };
    // SAFETY: the kernel reads `timer` and, the old value not being asked for, writes nothing. libc has no wrapper
    // for setitimer on every target.
    unsafe {
        libc::syscall(
            libc::SYS_setitimer,
            libc::ITIMER_REAL,
            &timer,
            ptr::null_mut::<libc::itimerval>(),
        );
    }
}
