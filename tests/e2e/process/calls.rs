//! The system calls of a run: few of the tender, none of its child.

use std::collections::BTreeMap;

use libtest_mimic::Trial;

use super::process;
use crate::common::Need::ProcessEngine;
use crate::common::trace::{Call, trace};

pub fn tests() -> Vec<Trial> {
    vec![trial!(a_hypercall_is_ptrace_and_wait4_alone, ProcessEngine)]
}

/// WALLTIME and PUTS of nothing need no call; POLL without a sleep and interfaces none either.
fn a_hypercall_is_ptrace_and_wait4_alone() {
    const COUNT: usize = 300;
    let mut command = process("hypercalls", &[], &["ok-storm", &COUNT.to_string()]);
    let trace = trace(&mut command);
    assert_eq!(trace.status, 0);
    let mut counts = BTreeMap::<i64, usize>::new();
    let pieces = trace.hypercalls();
    assert!(pieces.len() > COUNT, "{} runs of the guest", pieces.len());
    for Call { number, .. } in pieces.into_iter().flatten() {
        *counts.entry(*number).or_default() += 1;
    }
    let allowed = [libc::SYS_ptrace, libc::SYS_wait4, libc::SYS_write];
    // The choice of a processor, each 100 ms.
    let chooses = [
        libc::SYS_sched_setaffinity,
        libc::SYS_kill,
        libc::SYS_rt_sigreturn,
    ];
    let mut others = counts
        .iter()
        .filter(|(number, _)| !allowed.contains(number));
    assert!(
        others.all(|(number, count)| chooses.contains(number) && 10 * count < COUNT),
        "{counts:?}"
    );
    // The name of the way, and what is flushed at the end.
    assert!(
        counts.get(&libc::SYS_write).is_none_or(|count| *count <= 3),
        "{counts:?}"
    );
}
