//! Fault injection by `ptrace`: chosen system calls of `tender`'s first thread fail or are
//! shortened.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use super::guest::Output;
use super::trace::{Call, Stop, follow};
use super::{directory, host_error};

/// What happens to a system call.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The call is skipped; its result is this error.
    Fails(libc::c_int),
    /// A read or write is made for at most so many bytes.
    Short(u64),
}

/// General registers, as the kernel lays them out.
const NT_PRSTATUS: libc::c_long = 1;

#[cfg(target_arch = "x86_64")]
mod places {
    /// How many registers there are; which hold a call's result, its first and third argument, its
    /// number, and the stack pointer.
    pub const COUNT: usize = 27;
    pub const RESULT: usize = 10;
    pub const LENGTH: usize = 12;
    pub const FIRST: usize = 14;
    pub const NUMBER: usize = 15;
    pub const STACK: usize = 19;
}

#[cfg(target_arch = "aarch64")]
mod places {
    /// How many registers there are; which hold a call's result, its first and third argument, and
    /// the stack pointer.
    pub const COUNT: usize = 34;
    pub const RESULT: usize = 0;
    pub const FIRST: usize = 0;
    pub const LENGTH: usize = 2;
    pub const STACK: usize = 31;
}

type Registers = [u64; places::COUNT];

/// Runs the command to its end and applies `fault` to each system call of its first thread, from
/// exec on.
pub fn inject(command: &mut Command, fault: impl FnMut(&Call) -> Option<Fault>) -> Output {
    follow_with(command, |_| {}, fault)
}

/// As [`inject`], but the command finds no vDSO: each reading of a clock is a system call.
pub fn inject_without_vdso(
    command: &mut Command,
    fault: impl FnMut(&Call) -> Option<Fault>,
) -> Output {
    follow_with(command, hide_vdso, fault)
}

fn follow_with(
    command: &mut Command,
    begin: impl Fn(libc::pid_t),
    mut fault: impl FnMut(&Call) -> Option<Fault>,
) -> Output {
    let directory = directory();
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| directory.path().join(name));
    command
        .stdin(Stdio::null())
        .stdout(File::create(&stdout).unwrap())
        .stderr(File::create(&stderr).unwrap());
    let mut pending = None;
    let status = follow(command, |pid, stop| match stop {
        Stop::Begins => begin(pid),
        Stop::Enters(call) => {
            pending = fault(&call).map(|fault| (fault, call));
            match pending {
                Some((Fault::Fails(_), _)) => skip(pid),
                Some((Fault::Short(length), call)) => {
                    change(pid, places::LENGTH, length.min(call.arguments[2]))
                }
                None => {}
            }
        }
        Stop::Leaves => match pending.take() {
            Some((Fault::Fails(error), call)) => {
                change(pid, places::FIRST, call.arguments[0]);
                change(pid, places::RESULT, -i64::from(error) as u64);
            }
            Some((Fault::Short(_), call)) => change(pid, places::LENGTH, call.arguments[2]),
            None => {}
        },
    });
    let read = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    Output {
        status: ExitStatus::from_raw(status),
        stdout: read(stdout),
        stderr: read(stderr),
    }
}

/// Renames the vDSO's entry in the auxiliary vector of a process that has not begun. The vector
/// follows the arguments and the environment, each of which ends with a null.
fn hide_vdso(pid: libc::pid_t) {
    let memory = File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))
        .unwrap();
    let word = |address| {
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, address).unwrap();
        u64::from_ne_bytes(bytes)
    };
    let past_null = |first: u64| (first..).step_by(8).find(|&at| word(at) == 0).unwrap() + 8;
    let arguments = registers(pid)[places::STACK] + 8;
    let vector = past_null(past_null(arguments));
    let entry = (vector..)
        .step_by(16)
        .find(|&at| word(at) == libc::AT_SYSINFO_EHDR)
        .unwrap();
    memory
        .write_all_at(&libc::AT_IGNORE.to_ne_bytes(), entry)
        .unwrap();
}

/// Applies `fault` to the first `count` calls for which `is` holds.
pub fn first(
    count: usize,
    fault: Fault,
    is: impl Fn(&Call) -> bool,
) -> impl FnMut(&Call) -> Option<Fault> {
    let mut left = count;
    move |call| {
        if left == 0 || !is(call) {
            return None;
        }
        left -= 1;
        Some(fault)
    }
}

/// Passes to `fault` only calls since the guest first ran.
pub fn once_running(
    mut fault: impl FnMut(&Call) -> Option<Fault>,
) -> impl FnMut(&Call) -> Option<Fault> {
    let mut running = false;
    move |call| {
        running |= call.is_run();
        if running { fault(call) } else { None }
    }
}

fn registers(pid: libc::pid_t) -> Registers {
    let mut registers: Registers = [0; places::COUNT];
    transfer(
        libc::PTRACE_GETREGSET as _,
        pid,
        NT_PRSTATUS,
        &mut registers,
    );
    registers
}

fn change(pid: libc::pid_t, register: usize, value: u64) {
    let mut registers = registers(pid);
    registers[register] = value;
    transfer(
        libc::PTRACE_SETREGSET as _,
        pid,
        NT_PRSTATUS,
        &mut registers,
    );
}

/// Replaces the call with a close that closes nothing. The sandbox rejects −1, the number of no
/// call.
fn skip(pid: libc::pid_t) {
    set_number(pid, libc::SYS_close);
    change(pid, places::FIRST, u64::MAX);
}

#[cfg(target_arch = "x86_64")]
fn set_number(pid: libc::pid_t, number: libc::c_long) {
    change(pid, places::NUMBER, number as u64);
}

/// This architecture has a separate register set for the number.
#[cfg(target_arch = "aarch64")]
fn set_number(pid: libc::pid_t, number: libc::c_long) {
    const NT_ARM_SYSTEM_CALL: libc::c_long = 0x404;
    transfer(
        libc::PTRACE_SETREGSET as _,
        pid,
        NT_ARM_SYSTEM_CALL,
        &mut [number as i32],
    );
}

/// Gets or sets registers.
fn transfer<T>(request: u32, pid: libc::pid_t, set: libc::c_long, values: &mut [T]) {
    let mut piece = libc::iovec {
        iov_base: values.as_mut_ptr().cast(),
        iov_len: size_of_val(values),
    };
    // SAFETY: the process is stopped; the kernel moves no more bytes than there is room for.
    let result = unsafe { libc::ptrace(request as _, pid, set, &raw mut piece) };
    assert!(result == 0, "{}", host_error("ptrace"));
}
