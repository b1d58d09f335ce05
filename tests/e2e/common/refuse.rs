//! Commands behind a seccomp filter: one that sends SIGSYS for every unknown call, and one in which
//! a call fails, as on a kernel without it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, c_long, sock_filter};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Makes `call` fail with `errno` for the command, if the call's arguments match: pairs of an
/// index, from 0, and a 32-bit value.
pub fn fails<'c>(
    command: &'c mut Command,
    call: c_long,
    arguments: &[(u8, u32)],
    errno: i32,
) -> &'c mut Command {
    refuses(command, call, arguments, SeccompAction::Errno(errno as u32))
}

/// As [`fails`], but the call ends the process.
pub fn kills<'c>(
    command: &'c mut Command,
    call: c_long,
    arguments: &[(u8, u32)],
) -> &'c mut Command {
    refuses(command, call, arguments, SeccompAction::KillProcess)
}

/// Starts the command behind a filter that answers `call` with this action.
pub fn refuses<'c>(
    command: &'c mut Command,
    call: c_long,
    arguments: &[(u8, u32)],
    answer: SeccompAction,
) -> &'c mut Command {
    let is = |&(place, value): &(u8, u32)| {
        SeccompCondition::new(
            place,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            value.into(),
        )
        .unwrap()
    };
    let rule = SeccompRule::new(arguments.iter().map(is).collect());
    let program = program(call, rule.into_iter().collect(), answer);
    // SAFETY: these are system calls, safe between fork and exec, and nothing is allocated.
    unsafe {
        command.pre_exec(move || seccompiler::apply_filter(&program).map_err(io::Error::other))
    }
}

/// Makes `call` fail for the rest of this thread.
pub fn in_this_thread(call: c_long) {
    let program = program(call, Vec::new(), SeccompAction::Errno(libc::EPERM as u32));
    seccompiler::apply_filter(&program).unwrap();
}

/// A filter that answers `call` with this action, if one of `rules` matches or there is none.
fn program(call: c_long, rules: Vec<SeccompRule>, answer: SeccompAction) -> BpfProgram {
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new([(call, rules)].into(), SeccompAction::Allow, answer, arch);
    filter.and_then(BpfProgram::try_from).unwrap()
}

/// Offsets in `struct seccomp_data` of the call's number and of the lower half of its first
/// argument.
const NUMBER: u32 = 0;
const ARGUMENT: u32 = 16;

/// Starts the command behind a filter that allows only `calls`, and PR_SET_PDEATHSIG, which the
/// tests call between fork and exec, after this.
pub fn all_but<'c>(command: &'c mut Command, calls: &[c_long]) -> &'c mut Command {
    let load = |offset| step(BPF_LD | BPF_W | BPF_ABS, offset, 0);
    let skip_unless = |value, steps| step(BPF_JMP | BPF_JEQ | BPF_K, value, steps);
    let answer = |action| step(BPF_RET | BPF_K, action, 0);
    let allow = |&call: &c_long| [skip_unless(call as u32, 1), answer(libc::SECCOMP_RET_ALLOW)];
    let mut program = vec![load(NUMBER)];
    program.extend(calls.iter().flat_map(allow));
    program.extend([
        skip_unless(libc::SYS_prctl as u32, 3),
        load(ARGUMENT),
        skip_unless(libc::PR_SET_PDEATHSIG as u32, 1),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(libc::SECCOMP_RET_TRAP),
    ]);
    // SAFETY: both are system calls, which are safe between fork and exec; the program is alive as
    // long as the closure.
    unsafe {
        command.pre_exec(move || {
            let length = program.len() as libc::c_ushort;
            let program = libc::sock_fprog {
                len: length,
                filter: program.as_ptr().cast_mut(),
            };
            let mode = libc::SECCOMP_MODE_FILTER as libc::c_ulong;
            let is_bound = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) == 0;
            if is_bound {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        })
    }
}

/// One instruction; a comparison that fails skips `otherwise` instructions.
fn step(code: u32, k: u32, otherwise: u8) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: otherwise,
        k,
    }
}
