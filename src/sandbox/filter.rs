//! Compiles the lists of [`super::rules`] to BPF programs and installs them.
//!
//! Each instruction of a program costs a start about as much as a system call: the kernel checks
//! it, translates it twice and compiles it to machine code. The kernel also runs a program in
//! advance for every system call, up to where it first reads an argument. So programs are short
//! (rules share loads and answers), and read an argument first. The tests compile the same lists
//! with the crate seccompiler and compare every result.

#![expect(unsafe_code, reason = "seccomp")]

use std::borrow::Cow;
use std::{io, slice};

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

/// Loads a word into the accumulator.
const LOAD: u32 = BPF_LD | BPF_W | BPF_ABS;

/// Capacity that is enough for the programs of most runs.
const ROOM: usize = 256;

/// Compiles a list: calls that match a rule are allowed, any other gets SIGSYS. `KVM_RUN` on the
/// vCPU, which every hypercall makes, is checked first.
pub(super) fn compile(rules: &[Rule], parameters: &Parameters) -> Vec<sock_filter> {
    let is_run = |rule: &&Rule| matches!(rule.when, [_, When::Is(1, KVM_RUN)]);
    let mut program = Program::new();
    for (place, rule) in rules.iter().enumerate().rev() {
        if rules[..place].iter().all(|before| before.call != rule.call) {
            let same = rules[place..]
                .iter()
                .filter(|other| other.call == rule.call && !is_run(other));
            program.call(rule.call as u32, same, parameters);
        }
    }
    program.load(NUMBER);
    let same_architecture = program.here();
    // Calls of another architecture have other numbers, and a handler could not distinguish them.
    program.steps.push(answer(libc::SECCOMP_RET_KILL_PROCESS));
    let killed = program.here();
    program.if_equal(ARCHITECTURE, same_architecture, killed);
    program.load(ARCH);
    match rules.iter().find(is_run) {
        Some(_) if parameters.vcpu.is_some() => program.run(parameters),
        _ => program.load(argument(0)),
    }
    program.steps.reverse();
    program.steps
}

/// A place that a comparison continues at.
#[derive(Clone, Copy)]
enum Target {
    Allow,
    Trap,
    /// The step before which so many follow.
    Before(usize),
}

/// A program that grows from its end, so that the places to jump to are known: jumps only go
/// forwards.
struct Program {
    /// The last step first.
    steps: Vec<sock_filter>,
    /// Places of the answers, as in [`Target::Before`].
    allow: usize,
    trap: usize,
}

impl Program {
    /// Rejects every call.
    fn new() -> Program {
        let mut steps = Vec::with_capacity(ROOM);
        steps.extend([
            answer(libc::SECCOMP_RET_ALLOW),
            answer(libc::SECCOMP_RET_TRAP),
        ]);
        Program {
            steps,
            allow: 1,
            trap: 2,
        }
    }

    /// Loads the word at `offset` into the accumulator.
    fn load(&mut self, offset: u32) {
        self.steps.push(step(LOAD, offset, 0, 0));
    }

    /// Returns the place of the step that was added last.
    fn here(&self) -> Target {
        Target::Before(self.steps.len())
    }

    /// Continues at `then` if the accumulator equals `value`, else at `otherwise`.
    fn if_equal(&mut self, value: u32, then: Target, otherwise: Target) {
        let places = [then, otherwise].map(|target| self.near(target));
        // A longer jump does not fit.
        let distance = |place| self.steps.len() - place;
        assert!(places.iter().all(|&place| distance(place) <= 255));
        let [jt, jf] = places.map(|place| distance(place) as u8);
        self.steps
            .push(step(BPF_JMP | BPF_JEQ | BPF_K, value, jt, jf));
    }

    /// Returns the place of `target`; repeats an answer that is too far away for a jump from here.
    fn near(&mut self, target: Target) -> usize {
        let (place, action) = match target {
            Target::Allow => (&mut self.allow, libc::SECCOMP_RET_ALLOW),
            Target::Trap => (&mut self.trap, libc::SECCOMP_RET_TRAP),
            Target::Before(place) => return place,
        };
        // The other answer may follow.
        if self.steps.len() - *place > 254 {
            self.steps.push(answer(action));
            *place = self.steps.len();
        }
        *place
    }

    /// Allows KVM_RUN on the vCPU; continues otherwise.
    fn run(&mut self, parameters: &Parameters) {
        let otherwise = self.here();
        let mut then = Target::Allow;
        for (offset, value) in [
            (ARCH, ARCHITECTURE),
            (NUMBER, libc::SYS_ioctl as u32),
            (argument(1), KVM_RUN as u32),
            (argument(0), parameters.vcpu.unwrap_or(-1) as u32),
        ] {
            self.if_equal(value, then, otherwise);
            self.load(offset);
            then = self.here();
        }
    }

    /// Decides about the call `number`, given all its rules; continues for any other, with its
    /// number in the accumulator.
    fn call<'r>(
        &mut self,
        number: u32,
        rules: impl DoubleEndedIterator<Item = &'r Rule>,
        parameters: &Parameters,
    ) {
        let other_calls = self.here();
        let first = rules.rev().fold(Target::Trap, |next, rule| {
            self.rule(rule.when, parameters, next)
        });
        // No call can match for example BLOCK_READ without a disk.
        if !matches!(first, Target::Trap) {
            self.if_equal(number, first, other_calls);
        }
    }

    /// Allows a call that meets all conditions, and continues at `next` otherwise. Returns the
    /// place of the rule, or `next` if no call can meet them.
    fn rule(&mut self, when: &[When], parameters: &Parameters, mut next: Target) -> Target {
        let before = (self.steps.len(), self.allow, self.trap);
        let mut then = Target::Allow;
        for condition in when.iter().rev() {
            let (index, mask, values) = condition.numbers(parameters);
            let offset = argument(index);
            if values.is_empty() {
                self.steps.truncate(before.0);
                (self.allow, self.trap) = (before.1, before.2);
                return next;
            }
            // Only a rule with one condition always leaves its word to the next rule.
            let is_shared = |step: &sock_filter| (step.code, step.k) == (LOAD as u16, offset);
            if when.len() == 1 && mask == u32::MAX && self.steps.last().is_some_and(is_shared) {
                self.steps.pop();
                next = self.here();
            }
            let mut otherwise = next;
            for value in values.iter().rev() {
                self.if_equal(*value as u32, then, otherwise);
                otherwise = self.here();
            }
            if mask != u32::MAX {
                self.steps.push(step(BPF_ALU | BPF_AND | BPF_K, mask, 0, 0));
            }
            self.load(offset);
            then = self.here();
        }
        then
    }
}

impl When {
    /// Returns the argument, the bits of it that count, and the numbers of which they must be one.
    fn numbers(&self, parameters: &Parameters) -> (u8, u32, Cow<'_, [u64]>) {
        match self {
            When::Is(index, value) => (*index, u32::MAX, slice::from_ref(value).into()),
            When::Masked(index, mask, values) => (*index, *mask as u32, (*values).into()),
            When::OneOf(index, parameter) => {
                (*index, u32::MAX, parameters.values(*parameter).into())
            }
        }
    }
}

fn argument(index: u8) -> u32 {
    ARGUMENTS + 8 * u32::from(index)
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
