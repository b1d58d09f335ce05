//! `--dumpcore`: the core file of a guest that crashed, read by goblin and by gdb; other guests
//! leave none.

mod file;
mod place;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use goblin::elf::Elf;
use goblin::elf::program_header::PT_LOAD;
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::common::Need::{Kvm, Programs, Repository};
use crate::common::trace::trace_threads;
use crate::common::{
    self, Guest, Output, directory, fixture, run, tender_path, text, trial, unikernel,
};
use file::{Core, files, u64_at};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        trial!(a_contract_violation_leaves_a_core, Kvm),
        trial!(an_abort_leaves_a_core, Kvm),
        trial!(core_files_are_named_after_the_program, Kvm),
        trial!(a_timeout_leaves_a_core, Kvm),
        trial!(every_sandbox_mode_leaves_a_core, Kvm),
        trial!(memory_is_whole, Kvm),
        trial("floating_registers_are_the_guests")
            .needs(&[Kvm])
            .try_run(floating_registers_are_the_guests),
        trial!(a_normal_exit_leaves_no_core, Kvm),
        trial!(a_signal_leaves_no_core, Kvm),
        trial!(a_signal_interrupts_the_writing, Kvm),
        trial!(gdb_reads_the_core, Repository, Kvm, Programs(&["gdb"])),
    ];
    tests.extend(TRAPS.map(|kind| {
        let name = format!("a_trap_leaves_the_place_where_it_was::{kind}");
        trial(&name)
            .needs(&[Kvm])
            .run(move || a_trap_leaves_the_place_where_it_was(kind))
    }));
    tests.extend(place::tests());
    tests
}

/// Scripts search for these names.
fn core_files_are_named_after_the_program() {
    for (name, program) in [
        ("solo5-hvt", "solo5-hvt"),
        ("solo5-hvt.2", "solo5-hvt"),
        ("tender.new", "tender"),
    ] {
        let [programs, cores] = [directory(), directory()];
        let link = programs.path().join(name);
        std::os::unix::fs::symlink(tender_path(), &link).unwrap();
        let mut command = Command::new(link);
        command
            .args(common::engine_option())
            .args(["--mem=4", &format!("--dumpcore={}", text(cores.path()))])
            .arg(fixture("abort"));
        run(command.env_remove("RUST_LOG")).exits(255);
        let [core] = &files(cores.path())[..] else {
            panic!("{:?}", files(cores.path()))
        };
        let start = format!("{}/core.{program}.", text(cores.path()));
        assert!(
            text(core)
                .strip_prefix(&start)
                .is_some_and(|pid| pid.parse::<u32>().is_ok()),
            "{core:?}"
        );
    }
}

/// A kind of fault that both architectures stop.
const TRAPS: [&str; 4] = ["null", "text", "undefined", "stack"];

/// Runs the unikernel `name` to its end, with a directory for its core.
fn dumped(name: &str, options: &[&str], arguments: &[&str]) -> (Output, TempDir) {
    let directory = directory();
    let option = format!("--dumpcore={}", text(directory.path()));
    (
        run(&mut unikernel(
            name,
            &[options, &[&option]].concat(),
            arguments,
        )),
        directory,
    )
}

/// Returns the number that follows `word` in `text`.
#[track_caller]
fn number_after(text: &str, word: &str) -> u64 {
    let (_, rest) = text
        .rsplit_once(word)
        .unwrap_or_else(|| panic!("no {word:?} in {text:?}"));
    let digits = rest.trim_start_matches("0x");
    let end = digits
        .find(|c: char| !c.is_ascii_hexdigit())
        .unwrap_or(digits.len());
    u64::from_str_radix(&digits[..end], 16).unwrap()
}

fn a_contract_violation_leaves_a_core() {
    let (output, directory) = dumped("hypercalls", &["--mem=4"], &["badptr"]);
    output.exits(1).complains("hypercall PUTS");
    let core = Core::in_directory(directory.path(), &output, "hypercalls");
    assert_eq!(core.pc(), number_after(&output.stderr, "pc "));
    assert_eq!(core.sp(), number_after(&output.stderr, "sp "));
    let (process, signal) = core.process_and_signal();
    assert!(
        text(&core.path).ends_with(&format!(".{process}")),
        "{process}"
    );
    assert_eq!(signal, libc::SIGSEGV as u64);
}

fn an_abort_leaves_a_core() {
    let (output, directory) = dumped("abort", &["--mem=4"], &[]);
    output.exits(255).prints("this unikernel aborts");
    assert!(output.stderr.lines().count() == 2, "{output:?}");
    let core = Core::in_directory(directory.path(), &output, "abort");
    assert_eq!(core.process_and_signal().1, libc::SIGABRT as u64);
    assert!(
        (0x10_0000..0x40_0000).contains(&core.pc()),
        "{:#x}",
        core.pc()
    );
}

fn a_timeout_leaves_a_core() {
    let (output, directory) = dumped("hypercalls", &["--mem=4", "--timeout=1"], &["spin"]);
    output.exits(1).complains("--timeout");
    let core = Core::in_directory(directory.path(), &output, "hypercalls");
    assert_eq!(core.pc(), number_after(&output.stderr, "(pc "));
    assert_eq!(core.process_and_signal().1, libc::SIGALRM as u64);
}

/// On x86_64 the guest passes the registers of its trap. On ARM64 no guest does, and the position
/// is that of the crash.
fn a_trap_leaves_the_place_where_it_was(kind: &str) {
    let (output, directory) = dumped("fault", &["--mem=4"], &[kind]);
    output.exits(255).prints("trap: ");
    let core = Core::in_directory(directory.path(), &output, "fault");
    if cfg!(target_arch = "x86_64") {
        assert_eq!(core.pc(), number_after(&output.stdout, "rip "));
        assert_eq!(core.sp(), number_after(&output.stdout, "rsp "));
        assert_eq!(core.register(18), number_after(&output.stdout, "rflags "));
        assert_eq!((core.register(17), core.register(15)), (8, u64::MAX));
    } else {
        assert_ne!(core.pc(), number_after(&output.stdout, "elr "));
        assert!(
            (0x10_0000..0x40_0000).contains(&core.pc()),
            "{:#x}",
            core.pc()
        );
    }
}

fn every_sandbox_mode_leaves_a_core() {
    for mode in ["strict", "best-effort", "off"] {
        let sandbox = format!("--sandbox={mode}");
        let (output, directory) = dumped("hypercalls", &["--mem=2", &sandbox], &["badptr"]);
        if mode == "strict" && output.stderr.contains("this kernel lacks") {
            // Refused before the guest ran, as without the option.
            assert!(files(directory.path()).is_empty());
            continue;
        }
        Core::in_directory(directory.path(), output.exits(1), "hypercalls");
    }
}

/// The boot information says where the command line is, and the text is that of the file. The last
/// page is included.
fn memory_is_whole() {
    let args = ["badptr", "17 4711"];
    let (output, directory) = dumped("hypercalls", &["--mem=6"], &args);
    let core = Core::in_directory(directory.path(), &output, "hypercalls");
    let memory = core.memory();
    assert_eq!(memory.len(), 6 << 20);
    assert_eq!(u64_at(memory, 0x1_0000), 6 << 20);
    let cmdline = &memory[u64_at(memory, 0x1_0000 + 24) as usize..];
    assert!(
        cmdline.starts_with(b"badptr 17 4711\0"),
        "{:?}",
        &cmdline[..20]
    );
    let file = fs::read(fixture("hypercalls")).unwrap();
    let elf = Elf::parse(&file).unwrap();
    let read_only = elf
        .program_headers
        .iter()
        .filter(|segment| segment.p_type == PT_LOAD && !segment.is_write());
    let mut bytes = 0;
    for segment in read_only {
        let range = segment.p_vaddr as usize..(segment.p_vaddr + segment.p_filesz) as usize;
        assert!(memory[range] == file[segment.file_range()], "{segment:?}");
        bytes += segment.p_filesz;
    }
    assert!(bytes > 1000, "{bytes} bytes of text");
}

/// The time limit expires in the hypercall before which the guest has filled them all.
fn floating_registers_are_the_guests() -> Result<(), String> {
    let output = run(&mut unikernel("fpu", &["--mem=2"], &[]));
    if output.stderr.contains("internal error: suberror 1") {
        return Err("this machine's KVM knows no floating point".into());
    }
    let directory = directory();
    let option = format!("--dumpcore={}", text(directory.path()));
    let mut runs = false;
    trace_threads(
        &mut unikernel("fpu", &["--mem=2", "--timeout=600", &option], &[]),
        |pid, _, call| {
            runs |= call.is_run();
            if runs && call.is_poll() {
                end_time(pid);
            }
            false
        },
    );
    let [path] = &files(directory.path())[..] else {
        panic!("{directory:?}")
    };
    let core = Core {
        bytes: fs::read(path).unwrap(),
        path: path.clone(),
    };
    let note = core.note(2);
    let (start, count) = if cfg!(target_arch = "x86_64") {
        (160, 16)
    } else {
        (0, 32)
    };
    for number in 0..count {
        let expected = [
            0x0101_0101_0101_0101 * (number as u64 + 1),
            !(0x0123_4567_89ab_cdef << number),
        ];
        let place = start + 16 * number;
        assert_eq!(
            [u64_at(note, place), u64_at(note, place + 8)],
            expected,
            "{number}"
        );
    }
    Ok(())
}

/// Sends the signal of the `--timeout` timer.
fn end_time(pid: libc::pid_t) {
    // SAFETY: the structure is numbers, for which zeros are values; the kernel reads it.
    let sent = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        info.si_signo = libc::SIGALRM;
        info.si_code = libc::SI_TIMER;
        libc::syscall(
            libc::SYS_rt_sigqueueinfo,
            pid,
            libc::SIGALRM,
            &raw const info,
        )
    };
    assert!(sent == 0, "{}", common::host_error("rt_sigqueueinfo"));
}

fn a_normal_exit_leaves_no_core() {
    for (arguments, status) in [(&["nothing"][..], 64), (&["ok-storm", "3"][..], 0)] {
        let (output, directory) = dumped("hypercalls", &["--mem=4"], arguments);
        output.exits(status).is_quiet();
        assert_eq!(files(directory.path()), [] as [PathBuf; 0]);
    }
}

fn a_signal_leaves_no_core() {
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let directory = directory();
        let option = format!("--dumpcore={}", text(directory.path()));
        let mut guest = Guest::start(&mut unikernel(
            "hypercalls",
            &["--mem=4", &option],
            &["spin"],
        ));
        guest.wait_for("hypercalls: spin");
        guest.signal(signal);
        guest.end().dies_by(signal).is_quiet();
        assert_eq!(files(directory.path()), [] as [PathBuf; 0]);
    }
}

/// The signal arrives at the first piece of the file. The exit status stays that of the run.
fn a_signal_interrupts_the_writing() {
    for (options, name, status) in [
        (&["--mem=4"][..], "abort", 255),
        (&["--mem=4", "--timeout=1"], "hypercalls", 1),
    ] {
        let directory = directory();
        let option = format!("--dumpcore={}", text(directory.path()));
        let mut asked = false;
        let ended = trace_threads(
            &mut unikernel(name, &[options, &[&option]].concat(), &["spin"]),
            |pid, _, call| {
                if call.number == libc::SYS_pwrite64 && !asked {
                    asked = true;
                    // SAFETY: takes numbers; the process is traced and not waited for, so the
                    // number is its own.
                    unsafe { libc::kill(pid, libc::SIGTERM) };
                }
                false
            },
        );
        assert!(
            asked && libc::WIFEXITED(ended) && libc::WEXITSTATUS(ended) == status,
            "{name}: {ended:#x}"
        );
        let [file] = &files(directory.path())[..] else {
            panic!("{directory:?}")
        };
        assert_eq!(file.metadata().unwrap().len(), 4096, "{name}");
    }
}

/// Uses the gdb command that the message gives.
fn gdb_reads_the_core() {
    let (output, directory) = dumped("hypercalls", &["--mem=4"], &["badptr", "4711"]);
    let core = Core::in_directory(directory.path(), &output, "hypercalls");
    let (pc, sp) = (
        number_after(&output.stderr, "pc "),
        number_after(&output.stderr, "sp "),
    );
    let mut gdb = Command::new("gdb");
    gdb.args([
        "-nx",
        "-batch",
        "-ex",
        "print/x $pc",
        "-ex",
        "print/x $sp",
        "-ex",
        "x/s *(long *) (0x10000 + 24)",
    ]);
    gdb.args(["-ex", "info symbol $pc", "-ex", "x/gx $sp"])
        .arg(fixture("hypercalls"))
        .arg(&core.path);
    let printed = gdb
        .stderr(File::create("/dev/null").unwrap())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    for part in [
        "Program terminated with signal SIGSEGV".to_owned(),
        format!("$1 = {pc:#x}\n"),
        format!("$2 = {sp:#x}\n"),
        "\"badptr 4711\"".to_owned(),
        "main".to_owned(),
        format!("{sp:#x}:\t{:#018x}\n", u64_at(core.memory(), sp as usize)),
    ] {
        assert!(printed.contains(&part), "no {part:?} in {printed}");
    }
}
