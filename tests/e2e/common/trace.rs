//! Tracing of `tender`'s system calls by `ptrace`.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::{LIMIT, children, host_error};

/// One system call, as it was made.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: i64,
    pub arguments: [u64; 6],
}

const PTRACE_GET_SYSCALL_INFO: u32 = 0x420e;

const KVM_RUN: u64 = 0xae80;

impl Call {
    /// Whether it runs the guest.
    pub fn is_run(&self) -> bool {
        let request = self.arguments[0];
        let resumes = [libc::PTRACE_CONT, libc::PTRACE_SINGLESTEP].map(|request| request as u64);
        self.number == libc::SYS_ioctl && self.arguments[1] == KVM_RUN
            || self.number == libc::SYS_ptrace && resumes.contains(&request)
    }

    /// Whether it is a POLL of the guest. `tender` also tries one without a timeout before its
    /// guest runs.
    pub fn is_poll(&self) -> bool {
        [libc::SYS_epoll_pwait2, libc::SYS_epoll_pwait].contains(&self.number)
    }
}

/// All calls of one run, from the first after exec.
pub struct Trace {
    calls: Vec<Call>,
    /// The exit status.
    pub status: i32,
}

impl Trace {
    /// Returns how many calls precede the first run of the guest.
    pub fn start(&self) -> usize {
        self.calls
            .iter()
            .position(Call::is_run)
            .expect("the guest ran")
    }

    /// Returns how many of those the dynamic loader makes before the C library is set up; a static
    /// program has no loader.
    pub fn loader(&self) -> usize {
        self.calls
            .iter()
            .position(|call| call.number == libc::SYS_set_tid_address)
            .expect("a C library is set up")
    }

    /// Returns the calls between each run of the guest and the next, which is the cost of one
    /// hypercall. The calls after the last run, which end the process, are omitted.
    pub fn hypercalls(&self) -> Vec<&[Call]> {
        let mut pieces: Vec<_> = self.calls[self.start() + 1..].split(Call::is_run).collect();
        pieces.pop();
        pieces
    }
}

/// Runs the command and records its system calls. Its output is discarded.
pub fn trace(command: &mut Command) -> Trace {
    let mut calls = Vec::new();
    let status = follow(silent(command), |_, stop| {
        if let Stop::Enters(call) = stop {
            calls.push(call);
        }
    });
    assert!(
        libc::WIFEXITED(status),
        "it did not exit normally: {status:#x}, after {} system calls",
        calls.len()
    );
    Trace {
        calls,
        status: libc::WEXITSTATUS(status),
    }
}

/// Runs the command and sends it `signal` when the guest has stopped running for the `count`th
/// time, before `tender` checks why. Returns the signal that it died by, if any.
pub fn signal_after_run(
    command: &mut Command,
    count: usize,
    signal: libc::c_int,
) -> Option<libc::c_int> {
    let (mut runs, mut running) = (0, false);
    let status = follow(silent(command), |pid, stop| match stop {
        Stop::Begins => {}
        Stop::Enters(call) => running = call.is_run(),
        Stop::Leaves => {
            runs += usize::from(running);
            if running && runs == count {
                assert_eq!(
                    // SAFETY: takes numbers; the process is stopped and not waited for, so the
                    // number is its own.
                    unsafe { libc::kill(pid, signal) },
                    0,
                    "{}",
                    host_error("kill")
                );
            }
        }
    });
    libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
}

/// Runs the command and calls `at` at each system call that any of its threads enters; returns its
/// wait status. Where `at` returns true, the call is interrupted by a stop and a continuation.
pub fn trace_threads(
    command: &mut Command,
    mut at: impl FnMut(libc::pid_t, libc::pid_t, Call) -> bool,
) -> libc::c_int {
    let pid = start(silent(command));
    let _watchdog = Watchdog::new(pid);
    let mut stopped = (wait(pid), pid);
    trace_from(
        pid,
        libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACECLONE,
    );
    loop {
        let (status, thread) = stopped;
        if libc::WIFSTOPPED(status) {
            let mut signal = 0;
            match libc::WSTOPSIG(status) {
                SYSCALL_STOP => {
                    if let Stop::Enters(call) = why(thread) {
                        if at(pid, thread, call) {
                            // SAFETY: takes numbers; the thread is stopped, so the numbers are its
                            // own.
                            unsafe { libc::syscall(libc::SYS_tgkill, pid, thread, libc::SIGSTOP) };
                        }
                    }
                }
                // A new thread's first stop, or ours: neither is passed on.
                libc::SIGTRAP | libc::SIGSTOP => {}
                other => signal = other,
            }
            // SAFETY: the thread is stopped; the signal is a number. It fails only where the thread
            // has been killed.
            unsafe { libc::ptrace(libc::PTRACE_SYSCALL, thread, 0, libc::c_long::from(signal)) };
        } else if thread == pid {
            return status;
        }
        stopped = wait_any();
    }
}

/// Waits for any child or traced thread of this thread, and of no other thread of this program.
fn wait_any() -> (libc::c_int, libc::pid_t) {
    let mut status = 0;
    // SAFETY: waitpid writes one number.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    assert!(thread > 0, "{}", host_error("waitpid"));
    (status, thread)
}

const SYSCALL_STOP: libc::c_int = libc::SIGTRAP | 0x80;

/// Traces a process, which is stopped, with these options.
fn trace_from(pid: libc::pid_t, options: libc::c_int) {
    // SAFETY: the process is stopped and ours to trace; the options are a number.
    let result =
        unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, libc::c_long::from(options)) };
    assert!(result == 0, "{}", host_error("ptrace"));
}

/// Discards the command's output.
fn silent(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}

/// Where a traced process was stopped.
pub(super) enum Stop {
    /// Before the first instruction of its program.
    Begins,
    Enters(Call),
    Leaves,
}

/// Starts the command and calls `at` before its first instruction and at each system call until it
/// ends; returns its wait status.
pub(super) fn follow(command: &mut Command, mut at: impl FnMut(libc::pid_t, Stop)) -> libc::c_int {
    let pid = start(command);
    let _watchdog = Watchdog::new(pid);
    // The stop at exec.
    let mut status = wait(pid);
    trace_from(pid, libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL);
    at(pid, Stop::Begins);
    while libc::WIFSTOPPED(status) {
        let signal = match libc::WSTOPSIG(status) {
            SYSCALL_STOP => {
                at(pid, why(pid));
                0
            }
            libc::SIGTRAP => 0,
            signal => signal,
        };
        // SAFETY: the process is stopped; the signal is a number.
        let result =
            unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, libc::c_long::from(signal)) };
        assert!(result == 0, "{}", host_error("ptrace"));
        status = wait(pid);
    }
    status
}

fn start(command: &mut Command) -> libc::pid_t {
    // SAFETY: ptrace is a system call, safe between fork and exec, and this one ignores its
    // pointers.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    #[allow(clippy::zombie_processes, reason = "it is waited for by its number")]
    let child = children::spawn(command)
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    child.id() as libc::pid_t
}

fn wait(pid: libc::pid_t) -> libc::c_int {
    let mut status = 0;
    // SAFETY: waitpid writes one number.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    assert!(waited == pid, "{}", host_error("waitpid"));
    status
}

/// Returns why the process is stopped at a system call.
fn why(pid: libc::pid_t) -> Stop {
    // `struct ptrace_syscall_info`: kind and architecture, instruction and stack pointer, number, six arguments.
    let mut info = [0u64; 11];
    // SAFETY: the process is stopped; the kernel writes at most as many bytes as the length passed.
    let result = unsafe {
        libc::ptrace(
            PTRACE_GET_SYSCALL_INFO as _,
            pid,
            size_of_val(&info),
            info.as_mut_ptr(),
        )
    };
    assert!(result > 0, "{}", host_error("ptrace"));
    let [kind, _, _, number, arguments @ ..] = info;
    let arguments = arguments[..6].try_into().expect("six of seven values");
    if kind & 0xff == 1 {
        Stop::Enters(Call {
            number: number as i64,
            arguments,
        })
    } else {
        Stop::Leaves
    }
}

/// Kills a process that takes too long, unless dropped before.
struct Watchdog {
    _stop: mpsc::Sender<()>,
}

impl Watchdog {
    fn new(pid: libc::pid_t) -> Watchdog {
        let (stop, stopped) = mpsc::channel::<()>();
        // SAFETY: takes numbers. The descriptor means this process, even if its number is reused.
        let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        assert!(process >= 0, "{}", host_error("pidfd"));
        std::thread::spawn(move || {
            if stopped.recv_timeout(LIMIT + Duration::from_secs(1))
                == Err(mpsc::RecvTimeoutError::Timeout)
            {
                // SAFETY: takes numbers and no pointer to anything.
                unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process, libc::SIGKILL, 0, 0) };
            }
            // SAFETY: it is ours and is not used again.
            unsafe { libc::close(process as i32) };
        });
        Watchdog { _stop: stop }
    }
}
