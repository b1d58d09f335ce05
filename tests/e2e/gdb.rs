//! A debugger on a running guest, by gdb's remote protocol, in the sandbox: what it reads, what it
//! changes, and the run after it disconnects. The last of these tests runs gdb itself, where it is
//! installed.

mod ends;
mod points;
mod wait;

use libtest_mimic::Trial;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use crate::common::Need::{Kvm, Programs, Repository};
use crate::common::rsp::{Debugger, PROGRAM_COUNTER, debug, entry, hexadecimal, start, symbol};
use crate::common::{self, kernel, landlock, run, text, trial, unikernel};
use points::intercepts_breakpoints;

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        trial("it_waits_at_the_first_instruction")
            .needs(&[Kvm])
            .run(it_waits_at_the_first_instruction),
        trial("registers::are_read_and_written")
            .needs(&[Kvm])
            .run(registers_are_read_and_written),
        trial("registers::have_names")
            .needs(&[Kvm])
            .run(registers_have_names),
        trial("memory::is_read_and_written")
            .needs(&[Kvm])
            .try_run(memory_is_read_and_written),
        trial("memory::ends_where_the_guests_does")
            .needs(&[Kvm])
            .run(memory_ends_where_the_guests_does),
        trial("steps::go_instruction_by_instruction")
            .needs(&[Kvm])
            .run(steps_go_instruction_by_instruction),
        trial("steps::go_over_hypercalls")
            .needs(&[Kvm])
            .run(steps_go_over_hypercalls),
        trial("memory::is_read_whole")
            .needs(&[Kvm])
            .run(memory_is_read_whole),
        trial("port::is_of_this_host_alone_and_for_one")
            .needs(&[Kvm])
            .run(the_port_is_of_this_host_alone_and_for_one),
        trial("port::is_taken").needs(&[Kvm]).run(the_port_is_taken),
        trial("port::without_gdb")
            .needs(&[Kvm])
            .run(a_port_without_gdb),
        trial("sandbox::strict")
            .needs(&[Kvm])
            .try_run(|| landlock().map(|()| ends_under(&["--sandbox=strict"]))),
        trial("sandbox::off")
            .needs(&[Kvm])
            .run(|| ends_under(&["--sandbox=off"])),
        trial("sandbox::with_stats")
            .needs(&[Kvm])
            .run(|| ends_under(&["--stats=-"])),
        trial("itself")
            .needs(&[Repository, Kvm, Programs(&["gdb"])])
            .run(gdb_itself),
    ];
    tests.extend(points::tests());
    tests.extend(ends::tests());
    tests.extend(wait::tests());
    tests
}

fn it_waits_at_the_first_instruction() {
    let (guest, mut debugger) = debug("hello", &[], &["one"]);
    debugger.send("?");
    debugger.stops(libc::SIGTRAP);
    assert_eq!(debugger.program_counter(), entry("hello"));
    debugger.ends(0);
    guest.end().exits(0).prints("one");
}

/// Changes all that can be changed: general registers, flags, floating-point and vector registers.
/// A debugger may not change the processor's configuration.
fn registers_are_read_and_written() {
    let (guest, mut debugger) = debug("hello", &[], &[]);
    let before = debugger.registers();
    let mut changed = before.clone();
    // The first vector register, the first general ones and, past all others, a system register.
    let vector = if cfg!(target_arch = "x86_64") {
        276
    } else {
        268
    };
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
        let piece = debugger.ask(&format!(
            "qXfer:features:read:target.xml:{:x},100",
            description.len()
        ));
        description.push_str(&piece[1..]);
        if piece.starts_with('l') {
            break;
        }
        assert!(piece.starts_with('m'), "{piece:?}");
    }
    let size = |line: &str| {
        line.split("bitsize=\"")
            .nth(1)?
            .split('"')
            .next()?
            .parse::<usize>()
            .ok()
    };
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
    debugger.expect_ok(&format!("Z0,{load:x},4"));
    debugger.resumes_until(libc::SIGTRAP);
    assert_eq!(debugger.memory(cell), 3);
    debugger.expect_ok(&format!("M{cell:x},8:6400000000000000"));
    debugger.expect_ok(&format!("z0,{load:x},4"));
    debugger.ends(0);
    guest.end().exits(0).prints("debug: 104\n");
    Ok(())
}

fn memory_ends_where_the_guests_does() {
    let (guest, mut debugger) = debug("debug", &[], &[]);
    let end = 4 << 20;
    assert_eq!(
        debugger.ask(&format!("m{:x},8", end - 4)).len(),
        8,
        "as much as there is"
    );
    for address in [end, end + 0x1000, 0x1_0000_0000, u64::MAX - 3, u64::MAX] {
        debugger.is_refused(&format!("m{address:x},8"));
        debugger.is_refused(&format!("M{address:x},8:0101010101010101"));
    }
    let before = debugger.ask(&format!("m{:x},4", end - 4));
    debugger.is_refused(&format!("M{:x},8:0101010101010101", end - 4));
    assert_eq!(
        debugger.ask(&format!("m{:x},4", end - 4)),
        before,
        "half of a write is none"
    );
    debugger.is_refused(&format!(
        "Z0,{:x},4",
        end - 1 + u64::from(cfg!(target_arch = "x86_64"))
    ));
    debugger.ends(0);
    guest.end().exits(0).prints("debug: 7\n");
}

/// The longest reply has all of the guest's memory, some of it incompressible. It is sent in
/// pieces, because the sandbox forbids growing a large heap block.
fn memory_is_read_whole() {
    const START: u64 = 0x20_0000;
    let (guest, mut debugger) = debug("hello", &[], &[]);
    let mut state = 1_u64;
    let pieces = (0..0x60_u64).map(|place| {
        let random = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        });
        let bytes: Vec<u8> = random.take(0x400).collect();
        (START + 0x400 * place, hexadecimal(&bytes))
    });
    let pieces: Vec<_> = pieces.collect();
    for (address, digits) in &pieces {
        debugger.expect_ok(&format!("M{address:x},400:{digits}"));
    }
    let whole = debugger.ask("m0,400000");
    assert_eq!(whole.len(), 2 << 22);
    for (address, digits) in &pieces {
        let place = 2 * *address as usize;
        assert!(
            whole[place..place + digits.len()] == **digits,
            "at {address:#x}"
        );
    }
    assert!(
        debugger.ask(&format!("m{START:x},18000"))
            == pieces
                .iter()
                .map(|(_, digits)| &**digits)
                .collect::<String>()
    );
    debugger.ends(0);
    guest.end().exits(0);
}

/// Stops the guest at this symbol.
#[track_caller]
fn stop_at(debugger: &mut Debugger, name: &str) {
    let place = symbol("debug", name);
    debugger.expect_ok(&format!("Z0,{place:x},4"));
    debugger.resumes_until(libc::SIGTRAP);
    assert_eq!(debugger.program_counter(), place);
    debugger.expect_ok(&format!("z0,{place:x},4"));
}

/// Sets the guest's program counter to this symbol.
#[track_caller]
fn put_at(debugger: &mut Debugger, name: &str) {
    let mut registers = debugger.registers();
    registers[PROGRAM_COUNTER..PROGRAM_COUNTER + 8]
        .copy_from_slice(&symbol("debug", name).to_le_bytes());
    debugger.set_registers(&registers);
}

fn steps_go_instruction_by_instruction() {
    let (guest, mut debugger) = debug("debug", &[], &[]);
    put_at(&mut debugger, "debug_start");
    debugger.step();
    assert_eq!(debugger.program_counter(), symbol("debug", "debug_add"));
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
        debugger.program_counter() != symbol("debug", "debug_call") && {
            debugger.step();
            true
        }
    });
    assert!(way.count() > 4, "some instructions lie before it");
    assert_eq!(debugger.memory(cell), 3);
    debugger.step();
    // A KVM that emulates instructions executes the next one, too; so does ARM64's of 5.10, but not
    // 6.1's. There that instruction is the return.
    let called = symbol("debug", "debug_called");
    let (may_be_next, next) = match cfg!(target_arch = "x86_64") {
        true => (true, called + 3),
        false => (kernel() < (6, 1), debugger.register(30)),
    };
    let place = debugger.program_counter();
    assert!(
        place == called || may_be_next && place == next,
        "{place:#x}, not {called:#x}"
    );
    assert!(
        debugger.memory(cell) > 1_000_000_000_000_000_000,
        "the time of day is there"
    );
    debugger.send("k");
    guest.end().exits(1);
}

fn the_port_is_of_this_host_alone_and_for_one() {
    let (guest, port) = start("hello", &[], &[]);
    // Another address of this host, like those of the network.
    assert!(TcpStream::connect((Ipv4Addr::new(127, 0, 0, 2), port)).is_err());
    let mut debugger = Debugger::connect(port);
    debugger.program_counter();
    assert!(
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(),
        "one is enough"
    );
    debugger.ends(0);
    guest.end().exits(0);
}

fn the_port_is_taken() {
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = other.local_addr().unwrap().port();
    let arguments = [&format!("127.0.0.1:{port}"), "--gdb-port"];
    run(&mut unikernel(
        "hello",
        &["--gdb", &format!("--gdb-port={port}")],
        &[],
    ))
    .is_refused(&arguments);
}

fn a_port_without_gdb() {
    let output = run(&mut unikernel("hello", &["--gdb-port=0"], &[]));
    output.exits(0).complains("no effect without --gdb");
}

fn ends_under(options: &[&str]) {
    let (guest, mut debugger) = debug("debug", options, &[]);
    let first = debugger.registers();
    put_at(&mut debugger, "debug_start");
    debugger.step();
    assert_eq!(debugger.register(0), 1);
    // All guests: one finds its boot information at this address.
    debugger.set_registers(&first);
    debugger.ends(0);
    guest.end().exits(0).prints("debug: 7\n");
}

/// The commands of docs/debugging.md.
fn gdb_itself() {
    let (guest, port) = start("debug", &[], &[]);
    let mut gdb = std::process::Command::new("gdb");
    gdb.args([
        "-nx",
        "-batch",
        "-ex",
        &format!("target remote 127.0.0.1:{port}"),
    ]);
    for command in [
        "break guest_main",
        "break debug_add",
        "continue",
        "continue",
        "stepi",
        "print $pc == (long) &debug_store",
        "continue",
    ] {
        gdb.args(["-ex", command]);
    }
    let output = gdb
        .arg(text(&common::fixture("debug")))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    for place in ["guest_main ()", "debug_add ()"] {
        assert!(printed.contains(place), "{output:?}");
    }
    assert!(printed.contains("exited normally"), "{output:?}");
    guest.end().exits(0).prints("debug: 7\n");
}
