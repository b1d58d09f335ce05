//! Guests that try to get out: each run ends by the guest's contract, its own trap, a report of the
//! tender, or a signal to the tender.

use libtest_mimic::Trial;

use super::{process, start};
use crate::common::Need::ProcessEngine;
use crate::common::hostile::ends_cleanly;
use crate::common::{Output, run, trial};

/// Each is stopped by a trap or a report.
const STOPPED: &[&str] = if cfg!(target_arch = "x86_64") {
    &[
        // getpid, write to the terminal, ptrace, exit_group, execve, fork, rt_sigreturn.
        "call 39",
        "call 1",
        "call 101 0",
        "call 231 0",
        "call 59 0",
        "call 57",
        "call 15",
        // munmap, of all memory and of the place of the start.
        "call 11 0 0x7ffffffff000",
        "call 11 0x2000000000 0x5000",
        // Numbers of no call, among them errors by which the kernel restarts calls.
        "call -1",
        "call -4",
        "call -512",
        "call -513",
        "call -514",
        "call -516",
        "call 0xffffffff",
        // x32: write, execve.
        "call 0x40000001",
        "call 0x40000208 0",
        // 32-bit: write, getpid, exit, execve (the number of munmap).
        "int80 4",
        "int80 20",
        "int80 1 0",
        "int80 11 0",
        "sysenter 4",
        "sysenter 20",
        "sysenter 11 0x2000000000",
        "far 20",
        "far 4",
        "vsyscall 0",
        "vsyscall 1",
        "vsyscall 2",
        "frame 0 0 0 0",
        "frame 0x8000000000000000 8 2 0x200000",
        "frame 0x7ffffffff000 0x33 0x40200 0x200000",
        "frame 0xffffffffff600000 0x33 2 0x200000",
        "frame 0xffffffff81000000 0x10 0x3000 0xffff888000000000",
        "frame 0x2000000000 0x33 2 0x200000",
        "frame 0x100000 0x23 0x3f7fd7 0x8000000000000000",
        "far-frame 0x8000000000000000 8",
        "far-frame 0 0x23",
        "idt 0 0",
        "idt 0x3ffff8 0xffff",
        "idt 0x400000 0xffff",
        "idt 0xffffffffffffff00 0xffff",
        "idt 0x10000 0xffff",
        "gdt 0x3ffff8 0xffff",
        "gdt 0xffffffffffffff00 0xffff",
        "task 0",
        "task 0x10",
        "task 0x18",
        "task 0xfff8",
        "stack 0",
        "stack 8",
        "stack 0x8000000000000000",
        "stack 0xffffffffffffffff",
        "stack 0x10000",
        "stack-fault 0",
        "stack-fault 0x8000000000000000",
        "stack-fault 0x7ffffffff000",
        "stack-fault 0x100000",
        "text",
        "data",
        "trace",
        "debug",
        "protection-keys",
        "storm-fault",
        "halt",
    ]
} else {
    &[
        // getpid, write, ptrace, exit_group, execve, clone, rt_sigreturn, munmap.
        "call 172",
        "call 64",
        "call 117 0",
        "call 94 0",
        "call 221 0",
        "call 220",
        "call 139",
        "call 215 0 0x1000000000000",
        "call 215 0x2000000000 0x5000",
        "call -1",
        "call -512",
        "call -513",
        "call -516",
        "smc 0x84000008",
        "brk",
        "frame 0 0 0",
        "frame 0x8000000000000000 5 0x200000",
        "frame 0x100000 0x10 0x200000",
        "frame 0x2000000000 5 0x200000",
        "text",
        "data",
        "trace",
        "debug",
    ]
};

/// Those that never end, until a signal ends them. On ARM64 a vector that faults is one.
const ENDLESS: &[&str] = if cfg!(target_arch = "x86_64") {
    &["storm-return", "spin"]
} else {
    &[
        "storm-return",
        "storm-fault",
        "vectors 0",
        "vectors 0xffffffffffff0000",
        "vectors 0x3ff800",
        "spin",
    ]
};

/// On ARM64, these need a stack only for the report.
const STACKS: &[&str] = if cfg!(target_arch = "x86_64") {
    &[]
} else {
    &[
        "stack 0",
        "stack 0x8000000000000000",
        "stack-fault 0",
        "stack-fault 0x8000000000000001",
    ]
};

pub fn tests() -> Vec<Trial> {
    let mut tests = Vec::new();
    for way in STOPPED.iter().chain(STACKS) {
        let name = format!("is_stopped::{}", way.replace(' ', "_"));
        tests.push(trial(&name).needs(&[ProcessEngine]).run(|| is_stopped(way)));
    }
    for way in ENDLESS {
        let name = format!("can_be_ended::{}", way.replace(' ', "_"));
        tests.push(
            trial(&name)
                .needs(&[ProcessEngine])
                .run(|| can_be_ended(way)),
        );
    }
    tests.extend([
        trial!(no_system_call_is_made, ProcessEngine),
        trial!(random_instructions_end_cleanly, ProcessEngine),
    ]);
    tests
}

fn attempt(options: &[&str], way: &str) -> Output {
    let args: Vec<_> = way.split(' ').collect();
    let options = [&["-v"], options].concat();
    run(&mut process("escape", &options, &args))
}

fn is_stopped(way: &str) {
    let output = attempt(&["--timeout=30"], way);
    let is_printed = |text| output.stdout.contains(text);
    for text in ["came back", "gave", "A SYSTEM CALL", "there is no"] {
        assert!(!is_printed(text), "{output:?}");
    }
    if output.code() == 255 {
        assert!(is_printed("trap: "), "{output:?}");
    } else {
        let report = ends_cleanly(&output).expect("a report of the tender");
        assert!(!report.contains("--timeout"), "{output:?}");
    }
}

fn can_be_ended(way: &str) {
    let args: Vec<_> = way.split(' ').collect();
    let (mut guest, child) = start("escape", &args);
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
    assert_eq!(super::state(child), None);
}

/// Every number, by every instruction that makes a system call. Since 6.18, Linux lets no filter see
/// its x86_64 call `uprobe`, which fails in every process that has no probes.
fn no_system_call_is_made() {
    const UPROBE: &str = "escape: call 0x150 by 0 came back";
    let output = attempt(&[], "sweep");
    assert_eq!((ends_cleanly(&output), output.code()), (None, 0));
    let lines = output.stdout.lines();
    let mut returned = lines.filter(|line| line.starts_with("escape: call "));
    let is_known = |line| cfg!(target_arch = "x86_64") && line == UPROBE;
    assert!(returned.all(is_known), "{output:?}");
    output.prints(" system calls came back\n");
}

/// Privileged instructions with any operands, and hypercalls with any argument, most of which end
/// the run.
fn random_instructions_end_cleanly() {
    let mut refused = 0;
    for seed in 1..=40 {
        let output = attempt(&["--timeout=30"], &format!("random {seed} 2000"));
        assert!(!output.stdout.contains("A SYSTEM CALL"), "{output:?}");
        let report = ends_cleanly(&output).unwrap_or_default();
        assert!(!report.contains("--timeout"), "{output:?}");
        refused += u32::from(!report.is_empty());
    }
    assert!(refused > 0, "no hypercall was refused");
}
