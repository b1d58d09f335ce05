//! A debugger beside a guest, by gdb's remote protocol, in the sandbox: what it sees, what it changes, what becomes of
//! the run when it goes. The last of these tests is by gdb itself, where there is one.

mod common;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use common::rsp::{Debugger, PROGRAM_COUNTER, debug, entry, start, symbol};
use common::{Guest, kvm_test, kvm_test_if_possible, run, text, tool_kvm_test, unikernel};

fn main() -> ExitCode {
    common::main(vec![
        kvm_test("gdb::it_waits_at_the_first_instruction", it_waits_at_the_first_instruction),
        kvm_test("gdb::registers::are_read_and_written", registers_are_read_and_written),
        kvm_test("gdb::registers::have_names", registers_have_names),
        kvm_test_if_possible("gdb::memory::is_read_and_written", memory_is_read_and_written),
        kvm_test("gdb::memory::ends_where_the_guests_does", memory_ends_where_the_guests_does),
        kvm_test("gdb::steps::go_instruction_by_instruction", steps_go_instruction_by_instruction),
        kvm_test("gdb::steps::go_over_hypercalls", steps_go_over_hypercalls),
        kvm_test_if_possible("gdb::breakpoints::in_memory", || stops_at_a_breakpoint("Z0", "z0")),
        kvm_test_if_possible("gdb::breakpoints::of_the_processor", || stops_at_a_breakpoint("Z1", "z1")),
        kvm_test_if_possible("gdb::breakpoints::of_the_guest_itself", breakpoints_of_the_guest_itself),
        kvm_test("gdb::breakpoints::code_of_the_debuggers_is_executed", code_of_the_debuggers_is_executed),
        kvm_test_if_possible("gdb::watchpoints::writes", || stops_at_a_watchpoint(2, "debug_store")),
        kvm_test_if_possible("gdb::watchpoints::reads", || stops_at_a_watchpoint(3, "debug_load")),
        kvm_test_if_possible("gdb::watchpoints::accesses", || stops_at_a_watchpoint(4, "debug_store")),
        kvm_test("gdb::watchpoints::no_more_than_there_are", no_more_than_there_are),
        kvm_test("gdb::interrupts::a_spin", interrupts_a_spin),
        kvm_test("gdb::interrupts::a_sleep", interrupts_a_sleep),
        kvm_test("gdb::ends::an_abort_is_shown", an_abort_is_shown),
        kvm_test("gdb::ends::a_broken_promise_is_shown", a_broken_promise_is_shown),
        kvm_test("gdb::ends::a_signal_while_the_guest_runs", a_signal_while_the_guest_runs),
        kvm_test("gdb::ends::a_signal_while_the_guest_stands", a_signal_while_the_guest_stands),
        kvm_test("gdb::ends::a_signal_while_gdb_is_waited_for", a_signal_while_gdb_is_waited_for),
        kvm_test("gdb::ends::time_is_up", time_is_up),
        kvm_test("gdb::ends::the_debugger_ends_it", the_debugger_ends_it),
        kvm_test("gdb::alone::after_detaching", after_detaching),
        kvm_test("gdb::alone::after_hanging_up_while_it_stands", after_hanging_up_while_it_stands),
        kvm_test("gdb::alone::after_hanging_up_while_it_runs", after_hanging_up_while_it_runs),
        kvm_test("gdb::alone::after_nonsense", after_nonsense),
        kvm_test("gdb::port::is_of_this_host_alone_and_for_one", the_port_is_of_this_host_alone_and_for_one),
        kvm_test("gdb::port::is_taken", the_port_is_taken),
        kvm_test("gdb::port::without_gdb", a_port_without_gdb),
        kvm_test("gdb::sandbox::strict", || ends_under(&["--sandbox=strict"])),
        kvm_test("gdb::sandbox::off", || ends_under(&["--sandbox=off"])),
        kvm_test("gdb::sandbox::with_stats", || ends_under(&["--stats=-"])),
        tool_kvm_test("gdb::itself", &["gdb"], gdb_itself),
    ])
}

fn it_waits_at_the_first_instruction() {
    let (guest, mut debugger) = debug("hello", &[], &["one"]);
    debugger.send("?");
    debugger.stops(libc::SIGTRAP);
    assert_eq!(debugger.place(), entry("hello"));
    debugger.ends(0);
    guest.end().exits(0).says("one");
}

/// Changes all that can be: general registers, flags, floating-point and vector registers. A debugger may not change
/// what the processor is.
fn registers_are_read_and_written() {
    let (guest, mut debugger) = debug("hello", &[], &[]);
    let before = debugger.registers();
    let mut changed = before.clone();
    // The first vector register, the first general ones, and, behind all else, a system register.
    let vector = if cfg!(target_arch = "x86_64") { 276 } else { 268 };
    let last = before.len() - 8;
    for place in (0..4 * 8).chain(vector..vector + 16).chain(last..last + 8) {
        changed[place] ^= 0x5a;
    }
    debugger.set_registers(&changed);
    changed[last..].copy_from_slice(&before[last..]);
    assert_eq!(debugger.registers(), changed);
    debugger.is_refused(&format!("G{}", "00".repeat(16)));
    assert_eq!(debugger.registers(), changed, "too few registers are none");
    debugger.set_registers(&before);
    debugger.ends(0);
    guest.end().exits(0);
}

fn registers_have_names() {
    let (guest, mut debugger) = debug("hello", &[], &[]);
    let mut description = String::new();
    loop {
        let piece = debugger.ask(&format!("qXfer:features:read:target.xml:{:x},100", description.len()));
        description.push_str(&piece[1..]);
        if piece.starts_with('l') {
            break;
        }
        assert!(piece.starts_with('m'), "{piece:?}");
    }
    let size = |line: &str| line.split("bitsize=\"").nth(1)?.split('"').next()?.parse::<usize>().ok();
    let bits: usize = description.split("<reg ").skip(1).filter_map(size).sum();
    assert_eq!(debugger.registers().len() * 8, bits, "{description}");
    debugger.ends(0);
    guest.end().exits(0);
}

fn memory_is_read_and_written() -> Result<(), String> {
    intercepts_breakpoints()?;
    let (guest, mut debugger) = debug("debug", &[], &[]);
    let (load, cell) = (symbol("debug", "debug_load"), symbol("debug", "debug_cell"));
    assert_eq!(debugger.memory(cell), 0);
    debugger.order(&format!("Z0,{load:x},4"));
    debugger.goes_on_until(libc::SIGTRAP);
    assert_eq!(debugger.memory(cell), 3);
    debugger.order(&format!("M{cell:x},8:6400000000000000"));
    debugger.order(&format!("z0,{load:x},4"));
    debugger.ends(0);
    guest.end().exits(0).says("debug: 104\n");
    Ok(())
}

fn memory_ends_where_the_guests_does() {
    let (guest, mut debugger) = debug("debug", &[], &[]);
    let end = 4 << 20;
    assert_eq!(debugger.ask(&format!("m{:x},8", end - 4)).len(), 8, "as much as there is");
    for address in [end, end + 0x1000, 0x1_0000_0000, u64::MAX - 3, u64::MAX] {
        debugger.is_refused(&format!("m{address:x},8"));
        debugger.is_refused(&format!("M{address:x},8:0101010101010101"));
    }
    let before = debugger.ask(&format!("m{:x},4", end - 4));
    debugger.is_refused(&format!("M{:x},8:0101010101010101", end - 4));
    assert_eq!(debugger.ask(&format!("m{:x},4", end - 4)), before, "half of a write is none");
    debugger.is_refused(&format!("Z0,{:x},4", end - 1 + u64::from(cfg!(target_arch = "x86_64"))));
    debugger.ends(0);
    guest.end().exits(0).says("debug: 7\n");
}

/// Stops the guest where it has this name.
#[track_caller]
fn stop_at(debugger: &mut Debugger, name: &str) {
    let place = symbol("debug", name);
    debugger.order(&format!("Z0,{place:x},4"));
    debugger.goes_on_until(libc::SIGTRAP);
    assert_eq!(debugger.place(), place);
    debugger.order(&format!("z0,{place:x},4"));
}

/// Puts the guest where it has this name, without running it.
#[track_caller]
fn put_at(debugger: &mut Debugger, name: &str) {
    let mut registers = debugger.registers();
    registers[PROGRAM_COUNTER..PROGRAM_COUNTER + 8].copy_from_slice(&symbol("debug", name).to_le_bytes());
    debugger.set_registers(&registers);
}

fn steps_go_instruction_by_instruction() {
    let (guest, mut debugger) = debug("debug", &[], &[]);
    put_at(&mut debugger, "debug_start");
    debugger.step();
    assert_eq!(debugger.place(), symbol("debug", "debug_add"));
    assert_eq!(debugger.register(0), 1);
    debugger.step();
    assert_eq!(debugger.register(0), 3);
    debugger.send("k");
    guest.end().exits(1);
}

fn steps_go_over_hypercalls() {
    let (guest, mut debugger) = debug("debug", &[], &[]);
    put_at(&mut debugger, "debug_start");
    let cell = symbol("debug", "debug_cell");
    let way = (0..20).take_while(|_| {
        debugger.place() != symbol("debug", "debug_call") && {
            debugger.step();
            true
        }
    });
    assert!(way.count() > 4, "some instructions lie before it");
    assert_eq!(debugger.memory(cell), 3);
    debugger.step();
    // A KVM that emulates instructions executes the next one, too.
    let called = symbol("debug", "debug_called");
    assert!([called, called + 3].contains(&debugger.place()));
    assert!(debugger.memory(cell) > 1_000_000_000_000_000_000, "the time of day is there");
    debugger.send("k");
    guest.end().exits(1);
}

fn stops_at_a_breakpoint(set: &str, clear: &str) -> Result<(), String> {
    intercepts_breakpoints()?;
    let (guest, mut debugger) = debug("debug", &[], &[]);
    let place = symbol("debug", "debug_add");
    debugger.order(&format!("{set},{place:x},4"));
    let why = debugger.goes_on_until(libc::SIGTRAP);
    assert!(why.contains("break:"), "{why}");
    assert_eq!(debugger.place(), place);
    assert_eq!(debugger.register(0), 1);
    debugger.order(&format!("{clear},{place:x},4"));
    debugger.is_refused(&format!("{clear},{place:x},4"));
    debugger.ends(0);
    guest.end().exits(0).says("debug: 7\n");
    Ok(())
}

/// Whether guests have a real processor: a KVM that emulates each instruction knows no breakpoint instruction, and does
/// not watch memory.
fn executes_everything() -> Result<(), String> {
    let output = run(&mut unikernel("debug", &["--mem=4"], &["breakpoint"]));
    if output.stderr.contains("cannot emulate") {
        return Err(
            "this host's KVM emulates instructions, and has no watchpoints and no breakpoint instruction".into()
        );
    }
    intercepts_breakpoints()
}

/// Whether the host is told of a guest's breakpoints: the SVM that QEMU emulates does not intercept them.
fn intercepts_breakpoints() -> Result<(), String> {
    match std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("QEMU Virtual CPU")) {
        true => Err("this processor is emulated by QEMU, whose SVM does not intercept breakpoints".into()),
        false => Ok(()),
    }
}

/// The debugger sees it, and then the guest gets its exception.
fn breakpoints_of_the_guest_itself() -> Result<(), String> {
    executes_everything()?;
    let (guest, mut debugger) = debug("debug", &[], &["breakpoint"]);
    let place = symbol("debug", "debug_breakpoint");
    debugger.goes_on_until(libc::SIGTRAP);
    assert_eq!(debugger.place(), place);
    debugger.goes_on_until(libc::SIGABRT);
    debugger.ends(255);
    let alone = run(&mut unikernel("debug", &["--mem=4"], &["breakpoint"]));
    alone.exits(255).says("trap: ");
    assert_eq!(guest.end().exits(255).stdout, alone.stdout, "as without a debugger");
    Ok(())
}

/// Instructions that were executed already, and are others now: the processor executes those.
fn code_of_the_debuggers_is_executed() {
    let (guest, mut debugger) = debug("debug", &[], &[]);
    let add = symbol("debug", "debug_add");
    // Additions of 3 and of 2.
    let [three, two] = if cfg!(target_arch = "x86_64") { ["83c003", "83c002"] } else { ["000c0091", "00080091"] };
    for (code, sum) in [(two, 3), (three, 4), (two, 3)] {
        debugger.order(&format!("M{add:x},{:x}:{code}", code.len() / 2));
        put_at(&mut debugger, "debug_start");
        debugger.step();
        debugger.step();
        assert_eq!(debugger.register(0), sum);
    }
    debugger.send("k");
    guest.end().exits(1);
}

/// `kind` is the protocol's; `name` is the instruction that it should be at.
fn stops_at_a_watchpoint(kind: u8, name: &str) -> Result<(), String> {
    executes_everything()?;
    let (guest, mut debugger) = debug("debug", &[], &[]);
    stop_at(&mut debugger, "debug_start");
    let cell = symbol("debug", "debug_cell");
    debugger.order(&format!("Z{kind},{cell:x},8"));
    let why = debugger.goes_on_until(libc::SIGTRAP);
    assert!(why.contains("watch:"), "{why}");
    // x86_64 processors watch for reads and writes together, and stop behind the instruction.
    let (name, behind) = match (cfg!(target_arch = "x86_64"), name) {
        (true, "debug_load") => ("debug_load", 0),
        (true, name) => (name, 7),
        (false, name) => (name, 0),
    };
    assert_eq!(debugger.place(), symbol("debug", name) + behind);
    debugger.order(&format!("z{kind},{cell:x},8"));
    debugger.ends(0);
    guest.end().exits(0).says("debug: 7\n");
    Ok(())
}

fn no_more_than_there_are() {
    let (guest, mut debugger) = debug("debug", &[], &[]);
    let cell = symbol("debug", "debug_cell");
    debugger.is_refused(&format!("Z2,{:x},8", cell + 1));
    debugger.is_refused(&format!("Z2,{cell:x},0"));
    debugger.is_refused(&format!("Z2,{cell:x},10"));
    let there = (0..17).take_while(|_| debugger.ask(&format!("Z2,{cell:x},8")) == "OK").count();
    assert!((1..=16).contains(&there), "{there}");
    for _ in 0..there {
        debugger.order(&format!("z2,{cell:x},8"));
    }
    debugger.is_refused(&format!("z2,{cell:x},8"));
    debugger.ends(0);
    guest.end().exits(0).says("debug: 7\n");
}

/// A guest that this kind of `hypercalls` has brought to run, or sleep, for ever.
#[track_caller]
fn endless(kind: &str) -> (Guest, Debugger) {
    let (guest, mut debugger) = debug("hypercalls", &[], &[kind]);
    debugger.send("vCont;c");
    guest.wait_for(&format!("hypercalls: {kind}\n"));
    (guest, debugger)
}

fn interrupts_a_spin() {
    let (mut guest, mut debugger) = endless("spin");
    for _ in 0..3 {
        debugger.interrupt();
        assert!(debugger.place() >= 0x10_0000, "it stands in its own code");
        debugger.send("vCont;c");
    }
    debugger.interrupt();
    debugger.order("D");
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM);
}

/// It sleeps on whenever POLL comes back early.
fn interrupts_a_sleep() {
    let (mut guest, mut debugger) = debug("sleeper", &[], &["sleep=600000000000"]);
    debugger.send("vCont;c");
    for pause in [0, 20, 200] {
        std::thread::sleep(Duration::from_millis(pause));
        debugger.interrupt();
        debugger.send("vCont;c");
    }
    debugger.interrupt();
    debugger.order("D");
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM);
}

fn an_abort_is_shown() {
    let (guest, mut debugger) = debug("abort", &[], &[]);
    debugger.goes_on_until(libc::SIGABRT);
    assert!(debugger.place() >= 0x10_0000);
    debugger.ends(255);
    guest.end().exits(255).says("panic: ");
}

fn a_broken_promise_is_shown() {
    let (guest, mut debugger) = debug("hypercalls", &[], &["badptr"]);
    debugger.goes_on_until(libc::SIGSEGV);
    guest.wait_for_complaint("stands still");
    assert!(debugger.place() >= 0x10_0000);
    assert_eq!(debugger.go_on(), "X0b");
    guest.end().exits(1).complains("hypercall PUTS with its argument structure at ");
}

fn a_signal_while_the_guest_runs() {
    let (mut guest, mut debugger) = endless("spin");
    guest.signal(libc::SIGINT);
    assert_eq!(debugger.receive().as_deref(), Some("X02"));
    guest.end().dies_by(libc::SIGINT);
}

fn a_signal_while_the_guest_stands() {
    let (mut guest, mut debugger) = debug("hello", &[], &[]);
    debugger.place();
    guest.signal(libc::SIGTERM);
    assert_eq!(debugger.receive(), None);
    guest.end().dies_by(libc::SIGTERM);
}

fn a_signal_while_gdb_is_waited_for() {
    let (mut guest, _) = start("hello", &[], &[]);
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM);
}

/// The limit counts while the guest stands, too.
fn time_is_up() {
    let (guest, mut debugger) = debug("hello", &["--timeout=1"], &[]);
    debugger.place();
    assert_eq!(debugger.receive(), None);
    guest.end().exits(1).complains("as --timeout says");
    let (guest, mut debugger) = debug("hypercalls", &["--timeout=1"], &["spin"]);
    assert_eq!(debugger.go_on(), "X0e");
    guest.end().exits(1).complains("as --timeout says");
}

fn the_debugger_ends_it() {
    for packet in ["k", "vKill;1"] {
        let (guest, mut debugger) = debug("hello", &[], &[]);
        debugger.send(packet);
        while debugger.receive().is_some() {}
        let output = guest.end();
        output.exits(1).complains("was ended by its debugger");
        assert!(output.stdout.is_empty() && !output.stderr.contains("stands still"), "{output:#?}");
    }
}

fn after_detaching() {
    let (guest, mut debugger) = debug("debug", &[], &[]);
    for (packet, name) in [("Z0", "debug_add"), ("Z1", "debug_store")] {
        debugger.order(&format!("{packet},{:x},4", symbol("debug", name)));
    }
    debugger.order("D");
    guest.end().exits(0).says("debug: 7\n");
}

fn after_hanging_up_while_it_stands() {
    let (guest, mut debugger) = debug("debug", &[], &[]);
    debugger.order(&format!("Z0,{:x},4", symbol("debug", "debug_add")));
    drop(debugger);
    guest.end().exits(0).says("debug: 7\n").complains("the debugger is lost");
}

fn after_hanging_up_while_it_runs() {
    let (mut guest, debugger) = endless("spin");
    drop(debugger);
    guest.wait_for_complaint("the debugger is lost");
    assert!(guest.is_running());
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM);
}

/// What is no packet, or none of gdb's, does nothing to the guest or the tender.
fn after_nonsense() {
    let nonsense = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"$#00$#zz$".to_vec(),
        [b"$m0,ffffffffffffffff#".to_vec(), vec![b'0'; 2]].concat(),
        [b"$".to_vec(), vec![b'A'; 100_000]].concat(),
        (0..=255).collect(),
    ];
    for bytes in nonsense {
        let (guest, mut debugger) = debug("hello", &[], &[]);
        debugger.send_raw(&bytes);
        drop(debugger);
        guest.end().exits(0).says("hello: ").complains("the debugger is lost");
    }
}

fn the_port_is_of_this_host_alone_and_for_one() {
    let (guest, port) = start("hello", &[], &[]);
    // Another address of this host, as any of the network's is.
    assert!(TcpStream::connect((Ipv4Addr::new(127, 0, 0, 2), port)).is_err());
    let mut debugger = Debugger::connect(port);
    debugger.place();
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(), "one is enough");
    debugger.ends(0);
    guest.end().exits(0);
}

fn the_port_is_taken() {
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = other.local_addr().unwrap().port();
    let words = [&format!("127.0.0.1:{port}"), "--gdb-port"];
    run(&mut unikernel("hello", &["--gdb", &format!("--gdb-port={port}")], &[])).is_refused(&words);
}

fn a_port_without_gdb() {
    let output = run(&mut unikernel("hello", &["--gdb-port=0"], &[]));
    output.exits(0).complains("add --gdb");
}

fn ends_under(options: &[&str]) {
    let (guest, mut debugger) = debug("debug", options, &[]);
    put_at(&mut debugger, "debug_start");
    debugger.step();
    assert_eq!(debugger.register(0), 1);
    put_at(&mut debugger, "_start");
    debugger.ends(0);
    guest.end().exits(0).says("debug: 7\n");
}

/// With the words that docs/debugging.md has.
fn gdb_itself() {
    let (guest, port) = start("debug", &[], &[]);
    let mut gdb = std::process::Command::new("gdb");
    gdb.args(["-nx", "-batch", "-ex", &format!("target remote 127.0.0.1:{port}")]);
    for command in ["break debug_add", "continue", "stepi", "print $pc == (long) &debug_store", "continue"] {
        gdb.args(["-ex", command]);
    }
    let output = gdb.arg(text(&common::fixture("debug"))).stdin(std::process::Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Breakpoint 1, "), "{output:?}");
    assert!(said.contains("exited normally"), "{output:?}");
    guest.end().exits(0).says("debug: 7\n");
}
