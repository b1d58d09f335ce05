//! From the lists of [`super::rules`] to programs for the kernel, and into the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::RawFd;

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

/// Has the program of `rules` answer quickly what it can. seccompiler asks for one call after the other, in the order of
/// their numbers, and that is too slow twice: for KVM_RUN, which every hypercall makes, and when the filter is installed,
/// as the kernel then tries it with every call that there is (by far the most of a sandbox's cost). So KVM_RUN on `vcpu`,
/// if there is one, is looked for first of all, and what is in no rule is found out by halving.
pub fn with_quick_answers(mut program: BpfProgram, rules: &[Rule], vcpu: Option<RawFd>) -> BpfProgram {
    // The first two instructions of any program: the architecture, and going on if it is this one.
    let [load, check] = [program[0].clone(), program[1].clone()];
    let rest = [vcpu.map(allow_run).unwrap_or_default(), refuse_others(rules)].concat();
    // Another architecture is left to the program itself.
    let check = sock_filter { jt: 0, jf: rest.len() as u8 + 1, ..check };
    program.splice(0..0, [vec![load, check, word(CALL)], rest].concat());
    program
}

/// Allows KVM_RUN on `vcpu`; anything else goes on, with its number in the accumulator as before.
fn allow_run(vcpu: RawFd) -> Vec<sock_filter> {
    vec![
        equals(libc::SYS_ioctl as u32, 6),
        word(ARGUMENTS + 8),
        equals(KVM_RUN as u32, 3),
        word(ARGUMENTS),
        equals(vcpu as u32, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
        word(CALL),
    ]
}

/// Refuses the call whose number is in the accumulator if no rule is about it, and goes on otherwise.
fn refuse_others(rules: &[Rule]) -> Vec<sock_filter> {
    let calls: Vec<u32> = rules.iter().map(|rule| rule.call as u32).collect::<BTreeSet<_>>().into_iter().collect();
    let mut search = Vec::new();
    halve(&calls, &mut search);
    let length = search.len();
    for (place, leaf) in search.iter_mut().enumerate().filter(|(_, step)| step.code == equals(0, 0).code) {
        // Past the refusal, which follows the search, or to it.
        (leaf.jt, leaf.jf) = ((length - place) as u8, (length - place) as u8 - 1);
    }
    search.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_TRAP));
    search
}

/// Appends a search for one of `calls`, which are in ascending order: the lower half lies first.
fn halve(calls: &[u32], search: &mut Vec<sock_filter>) {
    if let [only] = calls {
        return search.push(equals(*only, 0));
    }
    let (lower, upper) = calls.split_at(calls.len() / 2);
    if let Some(least) = upper.first() {
        // A half of n calls is n comparisons and n - 1 decisions between them.
        let past_lower = 2 * lower.len() as u8 - 1;
        let code = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
        search.push(sock_filter { jt: past_lower, ..statement(code, *least) });
        halve(lower, search);
        halve(upper, search);
    }
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
