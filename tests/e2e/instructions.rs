//! Single instructions of a guest that is a process on x86_64: those that reach what Linux allows to
//! processes, and states of the processor that Linux does not let a debugger set. Each run ends with
//! a report that has the right registers.

use libtest_mimic::Trial;

use crate::common::Need::ProcessEngine;
use crate::common::{directory, fixture, rsp, run, tender, trial};

/// A name, the first instructions of a guest, and parts of the report. The guest has 2 MiB, starts
/// at 0x100020, and has no exception handlers.
type Case = (&'static str, &'static [u8], &'static [&'static str]);

const HALTED: &str = "guest executed HLT";
const MODE: &str = "guest left 64-bit mode";
const TRIPLE: &str = "(triple fault)";

#[rustfmt::skip]
const CASES: [Case; 10] = [
    // mov $0x28, %eax; mov %eax, %ds; mov $1, %eax; mov %eax, %es; cli; hlt
    ("segments_of_any_privilege", &[
        0xb8, 0x28, 0, 0, 0, 0x8e, 0xd8, 0xb8, 1, 0, 0, 0, 0x8e, 0xc0, 0xfa, 0xf4,
    ], &[HALTED, "pc 0x100030"]),
    // mov $-4096, %rax; wrfsbase %rax; cli; hlt. Without WRFSBASE, a triple fault.
    ("bases_of_segments_above_all_processes", &[
        0x48, 0xc7, 0xc0, 0, 0xf0, 0xff, 0xff, 0xf3, 0x48, 0x0f, 0xae, 0xd0, 0xfa, 0xf4,
    ], &["guest "]),
    // lea 1f(%rip), %rax; push $0x23; push %rax; lretq; 1: hlt
    ("code_of_32_bits", &[
        0x48, 0x8d, 5, 5, 0, 0, 0, 0x6a, 0x23, 0x50, 0x48, 0xcb, 0xf4,
    ], &[MODE, "pc 0x10002c, sp 0x1ffff8"]),
    // The same; 1: mov $0x501, %edx; out %eax, (%dx)
    ("hypercalls_of_32_bits", &[
        0x48, 0x8d, 5, 5, 0, 0, 0, 0x6a, 0x23, 0x50, 0x48, 0xcb, 0xba, 1, 5, 0, 0, 0xef,
    ], &[MODE, "pc 0x100031"]),
    // The same; 1: jmp 1b
    ("a_loop_of_32_bits", &[
        0x48, 0x8d, 5, 5, 0, 0, 0, 0x6a, 0x23, 0x50, 0x48, 0xcb, 0xeb, 0xfe,
    ], &["timed out after 1 s", "pc 0x10002c, sp 0x1ffff8"]),
    // mov $-1, %rax; jmp *%rax
    ("the_last_address", &[
        0x48, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xe0,
    ], &[TRIPLE, "pc 0xffffffffffffffff"]),
    // push $0x10; mov $1, %rax; shl $60, %rax; push %rax; push $-1; push $8; push %rax; iretq
    ("addresses_that_are_not_canonical", &[
        0x6a, 0x10, 0x48, 0xc7, 0xc0, 1, 0, 0, 0, 0x48, 0xc1, 0xe0, 0x3c, 0x50, 0x6a, 0xff, 0x6a, 8,
        0x50, 0x48, 0xcf,
    ], &[TRIPLE, "pc 0x1000000000000000, sp 0x1000000000000000"]),
    // mov $0x500, %edx; mov $1, %rcx; shl $32, %rcx; rep outsl
    ("strings_to_a_port", &[
        0xba, 0, 5, 0, 0, 0x48, 0xc7, 0xc1, 1, 0, 0, 0, 0x48, 0xc1, 0xe1, 0x20, 0xf3, 0x6f,
    ], &["guest made a 17179869180-byte hypercall at 0x500"]),
    // pushf; orl $0x40000, (%rsp); popf; mov -15(%rsp), %rax; hlt
    ("alignment_checks", &[
        0x9c, 0x81, 0x0c, 0x24, 0, 0, 4, 0, 0x9d, 0x48, 0x8b, 0x44, 0x24, 0xf1, 0xf4,
    ], &[HALTED, "pc 0x10002f"]),
    // int $0x80
    ("system_calls_of_32_bits", &[0xcd, 0x80], &[TRIPLE, "sp 0x1ffff8"]),
];

pub fn tests() -> Vec<Trial> {
    let trials = CASES.into_iter().map(|case| {
        trial(case.0).needs(&[ProcessEngine]).try_run(move || {
            if !cfg!(target_arch = "x86_64") {
                return Err("its instructions are those of x86_64".into());
            }
            is_reported(case);
            Ok(())
        })
    });
    trials.collect()
}

fn is_reported((name, code, parts): Case) {
    let mut file = std::fs::read(fixture("hello")).expect("the unikernel can be read");
    let place = rsp::entry_offset("hello");
    file[place..place + code.len()].copy_from_slice(code);
    let directory = directory();
    let path = directory.path().join(name);
    std::fs::write(&path, file).expect("the directory is ours");
    let mut command = tender(["--engine=process", "--mem=2", "--timeout=1"]);
    run(command.arg("--").arg(path)).fails(parts);
}
