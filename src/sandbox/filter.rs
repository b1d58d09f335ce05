//! From the lists of [`super::rules`] to programs for the kernel, and into the kernel.
//!
//! Each instruction of a program costs a start about as much as a system call: the kernel checks it, translates it twice
//! and makes machine code of it. And it tries a program beforehand with every call that there is, up to where that one
//! first asks for an argument. So programs are short, and ask for an argument first of all. The tests compile the same
//! lists with the crate seccompiler and hold every answer against its.

use std::io;

use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};

use super::rules::{KVM_RUN, Parameters, Rule, When};

/// What the kernel calls the processors whose calls these are, in `AUDIT_ARCH_…`.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Where the number of the call, its architecture and the first argument lie in `struct seccomp_data`. Arguments are 8
/// bytes each, the lower half first on both processors.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The program of a list: what one of the rules allows is done, and at anything else the kernel sends SIGSYS. `KVM_RUN`
/// on the guest's processor, the call that every hypercall makes, is looked for first.
pub fn compile(rules: &[Rule], parameters: &Parameters) -> Vec<sock_filter> {
    let is_run = |rule: &&Rule| matches!(rule.when, [_, When::Is(1, KVM_RUN)]);
    let mut program = match rules.iter().find(is_run) {
        Some(_) => allow_run(parameters),
        None => vec![load(ARGUMENTS)],
    };
    program.extend([
        load(ARCH),
        equals(ARCHITECTURE, 1, 0),
        // Calls of another architecture mean other things, and no handler could tell which.
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ]);
    for (place, rule) in rules.iter().enumerate() {
        if rules[..place].iter().all(|before| before.call != rule.call) {
            let same = rules[place..].iter().filter(|other| other.call == rule.call && !is_run(other));
            program.extend(about_call(rule.call as u32, same, parameters));
        }
    }
    program.push(answer(libc::SECCOMP_RET_TRAP));
    program
}

/// Allows KVM_RUN on the guest's processor, and goes on with everything else.
fn allow_run(parameters: &Parameters) -> Vec<sock_filter> {
    vec![
        load(ARGUMENTS),
        equals(parameters.vcpu as u32, 0, 7),
        load(argument(1)),
        equals(KVM_RUN as u32, 0, 5),
        load(NUMBER),
        equals(libc::SYS_ioctl as u32, 0, 3),
        load(ARCH),
        equals(ARCHITECTURE, 0, 1),
        answer(libc::SECCOMP_RET_ALLOW),
    ]
}

/// Answers the call `number`, given all the rules about it; goes on with any other, its number in the accumulator.
fn about_call<'r>(number: u32, rules: impl Iterator<Item = &'r Rule>, parameters: &Parameters) -> Vec<sock_filter> {
    let mut answers: Vec<_> = rules.flat_map(|rule| allow(rule, parameters)).collect();
    // Rules without conditions end with their answer; after others, nothing has allowed the call.
    if answers.len() > 1 {
        answers.push(answer(libc::SECCOMP_RET_TRAP));
    }
    if answers.is_empty() {
        // Such as pread64 where there is no disk.
        return answers;
    }
    [vec![equals(number, 0, answers.len() as u8)], answers].concat()
}

/// Allows a call that fulfils `rule`, and goes on otherwise. Nothing, if no call can.
fn allow(rule: &Rule, parameters: &Parameters) -> Vec<sock_filter> {
    let mut steps = vec![answer(libc::SECCOMP_RET_ALLOW)];
    // From the last condition to the first, as each jumps past all that follows.
    for condition in rule.when.iter().rev() {
        let past = steps.len() as u8;
        let checks = match *condition {
            When::Is(index, value) => one_of(argument(index), &[value as u32], past),
            When::Null(index) => halves(index, u64::MAX, 0, past),
            When::Bits(index, mask, bits) => halves(index, mask, bits, past),
            When::OneOf(index, parameter) => {
                let values: Vec<u32> = parameters.values(parameter).into_iter().map(|value| value as u32).collect();
                if values.is_empty() {
                    return Vec::new();
                }
                one_of(argument(index), &values, past)
            }
        };
        steps.splice(0..0, checks);
    }
    steps
}

/// Goes on if the word at `offset` is one of `values`, which are not none; else leaves out the `past` steps that follow.
fn one_of(offset: u32, values: &[u32], past: u8) -> Vec<sock_filter> {
    let mut checks = vec![load(offset)];
    for (place, value) in values.iter().enumerate() {
        let left = (values.len() - place - 1) as u8;
        checks.push(equals(*value, left, if left == 0 { past } else { 0 }));
    }
    checks
}

/// Goes on if, of the 64 bits of an argument, those of `mask` are `bits`; else leaves out the `past` steps that follow.
fn halves(index: u8, mask: u64, bits: u64, past: u8) -> Vec<sock_filter> {
    let half = |offset, mask: u64, bits: u64, past| {
        let and = step(BPF_ALU | BPF_AND | BPF_K, mask as u32, 0, 0);
        let and = (mask as u32 != u32::MAX).then_some(and);
        [Some(load(offset)), and, Some(equals(bits as u32, 0, past))].into_iter().flatten().collect::<Vec<_>>()
    };
    let upper = half(argument(index) + 4, mask >> 32, bits >> 32, past);
    let mut both = half(argument(index), mask, bits, past + upper.len() as u8);
    both.extend(upper);
    both
}

fn argument(index: u8) -> u32 {
    ARGUMENTS + 8 * u32::from(index)
}

/// Loads the word at `offset` into the accumulator.
fn load(offset: u32) -> sock_filter {
    step(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0)
}

/// Leaves out `then` steps if the accumulator is `value`, else `otherwise`.
fn equals(value: u32, then: u8, otherwise: u8) -> sock_filter {
    step(BPF_JMP | BPF_JEQ | BPF_K, value, then, otherwise)
}

fn answer(action: u32) -> sock_filter {
    step(BPF_RET | BPF_K, action, 0, 0)
}

fn step(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

/// A program that allows everything.
pub fn pass() -> [sock_filter; 1] {
    [answer(libc::SECCOMP_RET_ALLOW)]
}

/// Whether this kernel, and any filter that is in force already, lets a thread have one.
pub fn is_possible() -> bool {
    let action = libc::SECCOMP_RET_TRAP;
    let flags: libc::c_ulong = 0;
    // SAFETY: the kernel reads one number.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, flags, &raw const action) == 0 }
}

/// Binds this thread to `program` for good. It must have given up new privileges, or be privileged.
pub fn install(program: &mut [sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    let flags: libc::c_ulong = 0;
    // SAFETY: the kernel reads as many instructions as it is told there are.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
