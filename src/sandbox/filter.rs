//! From the lists of [`super::rules`] to programs for the kernel, and into the kernel.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::Error;
use super::rules::{KVM_RUN, Parameters, Rule, When};

/// The program of a list: what it allows is done, at anything else the kernel sends SIGSYS.
pub fn compile(rules: &[Rule], parameters: &Parameters) -> Result<BpfProgram, Error> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in rules {
        let alternatives = calls.entry(rule.call).or_default();
        for conditions in alternatives_of(rule.when, parameters).map_err(Error::Filter)? {
            alternatives.push(SeccompRule::new(conditions).map_err(Error::Filter)?);
        }
    }
    // A call whose rules came to nothing, such as pread64 without a disk: to seccompiler, no rule means any arguments.
    calls.retain(|call, alternatives| !alternatives.is_empty() || rules.iter().any(|rule| is_any(rule, *call)));
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(Error::Filter)?;
    let filter = SeccompFilter::new(calls, SeccompAction::Trap, SeccompAction::Allow, arch);
    filter.and_then(BpfProgram::try_from).map_err(Error::Filter)
}

fn is_any(rule: &Rule, call: i64) -> bool {
    rule.call == call && rule.when.is_empty()
}

/// Every combination of values that fulfils `when`; none where a parameter has no value, or for an empty `when`.
fn alternatives_of(when: &[When], parameters: &Parameters) -> Result<Vec<Vec<SeccompCondition>>, BackendError> {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, MaskedEq};
    let mut alternatives = vec![Vec::new()];
    for condition in when {
        let choices = match *condition {
            When::Is(argument, value) => vec![SeccompCondition::new(argument, Dword, Eq, value)?],
            When::Null(argument) => vec![SeccompCondition::new(argument, Qword, Eq, 0)?],
            When::Bits(argument, mask, bits) => vec![SeccompCondition::new(argument, Qword, MaskedEq(mask), bits)?],
            When::OneOf(argument, parameter) => {
                let equal = |value| SeccompCondition::new(argument, Dword, Eq, value);
                parameters.values(parameter).into_iter().map(equal).collect::<Result<_, _>>()?
            }
        };
        let with = |before: &Vec<_>, choice: &SeccompCondition| [&before[..], std::slice::from_ref(choice)].concat();
        alternatives =
            alternatives.iter().flat_map(|before| choices.iter().map(move |choice| with(before, choice))).collect();
    }
    alternatives.retain(|conditions| !conditions.is_empty());
    Ok(alternatives)
}

/// Has `program` ask first of all whether the call lets the guest run. seccompiler puts calls in the order of their
/// numbers, with all their rules before those that follow; this is the call that every hypercall makes, and nine
/// instructions are enough for it, however many devices there are.
pub fn with_run_first(mut program: BpfProgram, parameters: &Parameters) -> BpfProgram {
    // The first two instructions of any program: the architecture, and going on if it is this one.
    let [load, check] = [program[0].clone(), program[1].clone()];
    let otherwise = |left| sock_filter { jt: 0, jf: left, ..check.clone() };
    let shortcut = vec![
        load,
        otherwise(7),
        word(CALL),
        equals(libc::SYS_ioctl as u32, 5),
        word(ARGUMENTS + 8),
        equals(KVM_RUN as u32, 3),
        word(ARGUMENTS),
        equals(parameters.vcpu as u32, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    program.splice(0..0, shortcut);
    program
}

/// Where the number of the call, and the first argument, lie in `struct seccomp_data`; arguments are 8 bytes each, and
/// both architectures have the lower half first.
const CALL: u32 = 0;
const ARGUMENTS: u32 = 16;

fn word(offset: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Goes on if the word is `value`, else leaves out `otherwise` instructions.
fn equals(value: u32, otherwise: u8) -> sock_filter {
    sock_filter { jf: otherwise, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value) }
}

/// Binds this thread to `program` for good.
pub fn install(program: &BpfProgram) -> io::Result<()> {
    seccompiler::apply_filter(program).map_err(|error| match error {
        seccompiler::Error::Prctl(source) | seccompiler::Error::Seccomp(source) => source,
        other => io::Error::other(other),
    })
}
