//! Where a debugger stops a guest: breakpoints and watchpoints, their number and their addresses.

use libtest_mimic::Trial;

use crate::common::Need::Kvm;
use crate::common::rsp::{Debugger, debug, symbol};
use crate::common::{by_process, run, trial, unikernel};
use crate::gdb::{put_at, stop_at};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("breakpoints::in_memory")
            .needs(&[Kvm])
            .try_run(|| stops_at_a_breakpoint("Z0", "z0")),
        trial("breakpoints::of_the_processor")
            .needs(&[Kvm])
            .try_run(|| stops_at_a_breakpoint("Z1", "z1")),
        trial("breakpoints::of_the_guest_itself")
            .needs(&[Kvm])
            .try_run(breakpoints_of_the_guest_itself),
        trial("breakpoints::code_of_the_debuggers_is_executed")
            .needs(&[Kvm])
            .run(code_of_the_debuggers_is_executed),
        trial("breakpoints::leave_nothing_behind")
            .needs(&[Kvm])
            .run(breakpoints_leave_nothing_behind),
        trial("breakpoints::have_a_limit")
            .needs(&[Kvm])
            .run(breakpoints_have_a_limit),
        trial("watchpoints::writes")
            .needs(&[Kvm])
            .try_run(|| stops_at_a_watchpoint(2, "debug_store")),
        trial("watchpoints::reads")
            .needs(&[Kvm])
            .try_run(|| stops_at_a_watchpoint(3, "debug_load")),
        trial("watchpoints::accesses")
            .needs(&[Kvm])
            .try_run(|| stops_at_a_watchpoint(4, "debug_store")),
        trial("watchpoints::no_more_than_there_are")
            .needs(&[Kvm])
            .run(no_more_than_there_are),
    ]
}

fn stops_at_a_breakpoint(set: &str, clear: &str) -> Result<(), String> {
    intercepts_breakpoints()?;
    let (guest, mut debugger) = debug("debug", &[], &[]);
    let place = symbol("debug", "debug_add");
    debugger.expect_ok(&format!("{set},{place:x},4"));
    let why = debugger.resumes_until(libc::SIGTRAP);
    assert!(why.contains("break:"), "{why}");
    assert_eq!(debugger.program_counter(), place);
    assert_eq!(debugger.register(0), 1);
    debugger.expect_ok(&format!("{clear},{place:x},4"));
    debugger.is_refused(&format!("{clear},{place:x},4"));
    debugger.ends(0);
    guest.end().exits(0).prints("debug: 7\n");
    Ok(())
}

/// A debugger that sets ever more breakpoints uses only the reserved heap, and the guest still
/// runs.
fn breakpoints_have_a_limit() {
    let (guest, mut debugger) = debug("debug", &[], &[]);
    // Unused memory.
    let place = |number: u64| 0x20_0000 + 4 * number;
    for number in 0..4096 {
        debugger.expect_ok(&format!("Z0,{:x},4", place(number)));
    }
    for number in 4096..8200 {
        debugger.is_refused(&format!("Z0,{:x},4", place(number)));
    }
    debugger.expect_ok(&format!("z0,{:x},4", place(7)));
    debugger.expect_ok(&format!("Z0,{:x},4", place(5000)));
    debugger.is_refused(&format!("Z0,{:x},4", place(5001)));
    debugger.ends(0);
    guest.end().exits(0).prints("debug: 7\n");
}

/// Whether guests run on a real processor: a KVM that emulates each instruction has no breakpoint
/// instruction and does not watch memory.
fn executes_everything() -> Result<(), String> {
    let output = run(&mut unikernel("debug", &["--mem=4"], &["breakpoint"]));
    if output.stderr.contains("cannot emulate") {
        return Err(
            "this host's KVM emulates instructions, and has no watchpoints and no breakpoint instruction".into()
        );
    }
    intercepts_breakpoints()
}

/// Whether a guest's breakpoints exit to the host: the SVM that QEMU emulates does not intercept
/// them. A process needs no virtualisation.
pub fn intercepts_breakpoints() -> Result<(), String> {
    if by_process() {
        return Ok(());
    }
    match std::fs::read_to_string("/proc/cpuinfo")
        .is_ok_and(|text| text.contains("QEMU Virtual CPU"))
    {
        true => Err(
            "this processor is emulated by QEMU, whose SVM does not intercept breakpoints".into(),
        ),
        false => Ok(()),
    }
}

/// The debugger gets the breakpoint first; then the guest gets its exception.
fn breakpoints_of_the_guest_itself() -> Result<(), String> {
    executes_everything()?;
    let (guest, mut debugger) = debug("debug", &[], &["breakpoint"]);
    let place = symbol("debug", "debug_breakpoint");
    debugger.resumes_until(libc::SIGTRAP);
    assert_eq!(debugger.program_counter(), place);
    debugger.resumes_until(libc::SIGABRT);
    debugger.ends(255);
    let alone = run(&mut unikernel("debug", &["--mem=4"], &["breakpoint"]));
    alone.exits(255).prints("trap: ");
    assert_eq!(
        guest.end().exits(255).stdout,
        alone.stdout,
        "as without a debugger"
    );
    Ok(())
}

/// gdb changes instructions that have already run: the processor executes the new ones.
fn code_of_the_debuggers_is_executed() {
    let (guest, mut debugger) = debug("debug", &[], &[]);
    let add = symbol("debug", "debug_add");
    // Additions of 3 and of 2.
    let [three, two] = if cfg!(target_arch = "x86_64") {
        ["83c003", "83c002"]
    } else {
        ["000c0091", "00080091"]
    };
    for (code, sum) in [(two, 3), (three, 4), (two, 3)] {
        debugger.expect_ok(&format!("M{add:x},{:x}:{code}", code.len() / 2));
        put_at(&mut debugger, "debug_start");
        debugger.step();
        debugger.step();
        assert_eq!(debugger.register(0), sum);
    }
    debugger.send("k");
    guest.end().exits(1);
}

/// Many adjacent ones, removed in any order, or not at all.
fn breakpoints_leave_nothing_behind() {
    let (guest, mut debugger) = debug("debug", &[], &[]);
    let start = symbol("debug", "debug_start");
    let code = |debugger: &mut Debugger| debugger.ask(&format!("m{start:x},10"));
    let before = code(&mut debugger);
    let placed = |place: &u64| debugger.ask(&format!("Z0,{place:x},4")) == "OK";
    let places: Vec<u64> = (start..start + 12).filter(placed).collect();
    assert_eq!(
        places.len(),
        if cfg!(target_arch = "x86_64") { 12 } else { 3 },
        "one for each instruction"
    );
    assert_ne!(code(&mut debugger), before);
    for place in &places {
        debugger.expect_ok(&format!("z0,{place:x},4"));
    }
    assert_eq!(code(&mut debugger), before);
    for place in &places {
        debugger.expect_ok(&format!("Z0,{place:x},4"));
    }
    debugger.expect_ok("D");
    guest.end().exits(0).prints("debug: 7\n");
}

/// `kind` is the protocol's; `name` is the instruction at which it should stop.
fn stops_at_a_watchpoint(kind: u8, name: &str) -> Result<(), String> {
    executes_everything()?;
    let (guest, mut debugger) = debug("debug", &[], &[]);
    stop_at(&mut debugger, "debug_start");
    let cell = symbol("debug", "debug_cell");
    debugger.expect_ok(&format!("Z{kind},{cell:x},8"));
    let why = debugger.resumes_until(libc::SIGTRAP);
    assert!(why.contains("watch:"), "{why}");
    // x86_64 processors watch reads and writes together, and stop after the instruction.
    let (name, behind) = match (cfg!(target_arch = "x86_64"), name) {
        (true, "debug_load") => ("debug_load", 0),
        (true, name) => (name, 7),
        (false, name) => (name, 0),
    };
    assert_eq!(debugger.program_counter(), symbol("debug", name) + behind);
    debugger.expect_ok(&format!("z{kind},{cell:x},8"));
    debugger.ends(0);
    guest.end().exits(0).prints("debug: 7\n");
    Ok(())
}

fn no_more_than_there_are() {
    let (guest, mut debugger) = debug("debug", &[], &[]);
    let cell = symbol("debug", "debug_cell");
    debugger.is_refused(&format!("Z2,{:x},8", cell + 1));
    debugger.is_refused(&format!("Z2,{cell:x},0"));
    debugger.is_refused(&format!("Z2,{cell:x},10"));
    let there = (0..17)
        .take_while(|_| debugger.ask(&format!("Z2,{cell:x},8")) == "OK")
        .count();
    assert!((1..=16).contains(&there), "{there}");
    for _ in 0..there {
        debugger.expect_ok(&format!("z2,{cell:x},8"));
    }
    debugger.is_refused(&format!("z2,{cell:x},8"));
    debugger.ends(0);
    guest.end().exits(0).prints("debug: 7\n");
}
