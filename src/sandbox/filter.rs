//! Compiles the lists of [`super::rules`] to BPF programs and installs them.
//!
//! Each instruction of a program costs a start about as much as a system call: the kernel checks
//! it, translates it twice and compiles it to machine code. The kernel also runs a program in
//! advance for every system call, up to where it first reads an argument. So programs are short,
//! and read an argument first. The tests compile the same lists with the crate seccompiler and
//! compare every result.

#![expect(unsafe_code, reason = "seccomp")]

use std::io;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter,
};

use super::rules::{KVM_RUN, Parameters, Rule, When};

/// The kernel's `AUDIT_ARCH_…` of the architecture of these calls.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Offsets of the call number, its architecture and the first argument in `struct seccomp_data`.
/// Arguments are 8 bytes each, the lower half first on both architectures.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Placeholder jump offset, patched by [`patch_jumps`].
const OTHERWISE: u8 = u8::MAX;

/// Capacity that is enough for the programs of most runs.
const ROOM: usize = 256;

/// Compiles a list: calls that match a rule are allowed, any other gets SIGSYS. `KVM_RUN` on the
/// vCPU, which every hypercall makes, is checked first.
pub(super) fn compile(rules: &[Rule], parameters: &Parameters) -> Vec<sock_filter> {
    let is_run = |rule: &&Rule| matches!(rule.when, [_, When::Is(1, KVM_RUN)]);
    let mut program = Vec::with_capacity(ROOM);
    match rules.iter().find(is_run) {
        Some(_) => allow_run(&mut program, parameters),
        None => program.push(load(ARGUMENTS)),
    }
    program.extend([
        load(ARCH),
        equals(ARCHITECTURE, 1, 0),
        // Calls of another architecture have other numbers, and a handler could not distinguish
        // them.
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ]);
    for (place, rule) in rules.iter().enumerate() {
        if rules[..place].iter().all(|before| before.call != rule.call) {
            let same = rules[place..]
                .iter()
                .filter(|other| other.call == rule.call && !is_run(other));
            about_call(&mut program, rule.call as u32, same, parameters);
        }
    }
    program.push(answer(libc::SECCOMP_RET_TRAP));
    program
}

/// Allows KVM_RUN on the vCPU; continues otherwise.
fn allow_run(program: &mut Vec<sock_filter>, parameters: &Parameters) {
    let start = program.len();
    let args = [
        (ARGUMENTS, parameters.vcpu as u32),
        (argument(1), KVM_RUN as u32),
        (NUMBER, libc::SYS_ioctl as u32),
        (ARCH, ARCHITECTURE),
    ];
    for (offset, value) in args {
        program.extend([load(offset), equals(value, 0, OTHERWISE)]);
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    patch_jumps(program, start);
}

/// Decides about the call `number`, given all its rules; continues for any other, with its number
/// in the accumulator.
fn about_call<'r>(
    program: &mut Vec<sock_filter>,
    number: u32,
    rules: impl Iterator<Item = &'r Rule>,
    parameters: &Parameters,
) {
    let start = program.len();
    program.push(equals(number, 0, OTHERWISE));
    rules.for_each(|rule| allow(program, rule, parameters));
    match program.len() - start {
        // For example pread64 without a disk.
        1 => program.truncate(start),
        // A rule without conditions ends with its action.
        2 => {}
        // After conditional rules, no rule has matched.
        _ => program.push(answer(libc::SECCOMP_RET_TRAP)),
    }
    patch_jumps(program, start);
}

/// Allows a call that fulfils `rule`, and continues otherwise. Emits nothing if no call can match.
fn allow(program: &mut Vec<sock_filter>, rule: &Rule, parameters: &Parameters) {
    let start = program.len();
    for condition in rule.when {
        match *condition {
            When::Is(index, value) => one_of(program, argument(index), &[value]),
            When::Null(index) => halves(program, index, u64::MAX, 0),
            When::Bits(index, mask, bits) => halves(program, index, mask, bits),
            When::OneOf(index, parameter) => {
                let values = parameters.values(parameter);
                if values.is_empty() {
                    return program.truncate(start);
                }
                one_of(program, argument(index), &values);
            }
        }
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    patch_jumps(program, start);
}

/// Continues if the 32-bit word at `offset` is one of `values`, which are not empty.
fn one_of(program: &mut Vec<sock_filter>, offset: u32, values: &[u64]) {
    program.push(load(offset));
    for (place, value) in values.iter().enumerate() {
        let left = (values.len() - place - 1) as u8;
        program.push(equals(
            *value as u32,
            left,
            if left == 0 { OTHERWISE } else { 0 },
        ));
    }
}

/// Continues if the bits of `mask` in a 64-bit argument equal `bits`.
fn halves(program: &mut Vec<sock_filter>, index: u8, mask: u64, bits: u64) {
    for (offset, shift) in [(argument(index), 0), (argument(index) + 4, 32)] {
        let (mask, bits) = ((mask >> shift) as u32, (bits >> shift) as u32);
        program.push(load(offset));
        if mask != u32::MAX {
            program.push(step(BPF_ALU | BPF_AND | BPF_K, mask, 0, 0));
        }
        program.push(equals(bits, 0, OTHERWISE));
    }
}

/// Patches the placeholder jumps from `start` on to the end of the program.
fn patch_jumps(program: &mut [sock_filter], start: usize) {
    let end = program.len();
    for (place, step) in program
        .iter_mut()
        .enumerate()
        .skip(start)
        .filter(|(_, step)| step.jf == OTHERWISE)
    {
        // A placeholder of another block would be patched too, and longer jumps do not fit.
        debug_assert!(end - place - 1 < usize::from(OTHERWISE));
        step.jf = (end - place - 1) as u8;
    }
}

fn argument(index: u8) -> u32 {
    ARGUMENTS + 8 * u32::from(index)
}

/// Loads the word at `offset` into the accumulator.
fn load(offset: u32) -> sock_filter {
    step(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0)
}

/// Skips `then` instructions if the accumulator equals `value`, else `otherwise`, which may be
/// [`OTHERWISE`].
fn equals(value: u32, then: u8, otherwise: u8) -> sock_filter {
    step(BPF_JMP | BPF_JEQ | BPF_K, value, then, otherwise)
}

fn answer(action: u32) -> sock_filter {
    step(BPF_RET | BPF_K, action, 0, 0)
}

fn step(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

/// Returns a program that allows everything.
pub(super) fn pass() -> [sock_filter; 1] {
    [answer(libc::SECCOMP_RET_ALLOW)]
}

/// Returns whether this kernel, and any filter that is already active, allows another filter.
pub(super) fn is_possible() -> bool {
    let action = libc::SECCOMP_RET_TRAP;
    let flags: libc::c_ulong = 0;
    // SAFETY: the kernel reads one number.
    unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            flags,
            &raw const action,
        ) == 0
    }
}

/// Installs `program` for this thread permanently. The thread must have set no_new_privs, or be
/// privileged.
///
/// Kernels before 5.16 mitigate speculation in every thread with a filter, unless the thread opts
/// out. They assume that the thread runs foreign code itself, as browsers do, and add a cost to
/// each exit of its guest. A guest is foreign code, but KVM isolates it, in all threads alike.
pub(super) fn install(program: &mut [sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_mut_ptr(),
    };
    let install = |flags: libc::c_ulong| {
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: the kernel reads as many instructions as `program` has.
        let result = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    match install(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW) {
        // Before 4.17 the flag did not exist.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => install(0),
        result => result,
    }
}
