//! What the process has of the tender that made it: nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use seccompiler::SeccompAction;

use super::{MEGABYTES, child_of, process, start};
use crate::common::Need::{Mounts, ProcessEngine, Processors, Root};
use crate::common::refuse;
use crate::common::{self, Guest, LIMIT, Resource, limit, run, status};

/// The field of /proc/PID/status with the processors that a process may use.
const PROCESSORS: &str = "Cpus_allowed_list";

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(it_has_the_guests_memory_alone, ProcessEngine, Root),
        trial!(
            it_has_no_files_arguments_or_environment,
            ProcessEngine,
            Root
        ),
        trial!(
            without_close_range_it_has_no_files_either,
            ProcessEngine,
            Root
        ),
        trial!(behind_a_filter_it_runs_too, ProcessEngine),
        trial!(it_has_no_rights, ProcessEngine),
        trial!(it_leaves_no_core_file, ProcessEngine, Root),
        trial!(
            other_processes_of_the_user_cannot_read_it,
            ProcessEngine,
            Root,
            Mounts
        ),
        trial!(
            it_shares_one_processor_with_its_tender,
            ProcessEngine,
            Processors
        ),
        trial!(
            a_guest_that_computes_may_use_any_processor,
            ProcessEngine,
            Processors
        ),
        trial!(registers_are_those_of_a_reset, ProcessEngine),
    ]
}

fn it_has_the_guests_memory_alone() {
    let (_guest, child) = start("escape", &["spin"]);
    let maps = fs::read_to_string(format!("/proc/{child}/maps")).unwrap();
    let (mut end, mut executable) = (0x1_0000, 0);
    for line in maps.lines().filter(|line| !line.ends_with("[vsyscall]")) {
        let (range, others) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        assert_eq!(from, end, "{maps}");
        end = to;
        let [write, execute] = [1, 2].map(|place| others.as_bytes()[place] != b'-');
        executable += u64::from(execute);
        // One page, where host pages are larger than the guest's: docs/without-kvm.md.
        // SAFETY: the call takes a number.
        let is_larger = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } > 4096;
        assert!(!(write && execute) || is_larger, "{maps}");
        assert!(others.contains("/dev/zero"), "{maps}");
    }
    assert!(end == MEGABYTES << 20 && executable > 0, "{maps}");
}

fn it_has_no_files_arguments_or_environment() {
    let mut command = process("escape", &[], &["spin"]);
    let guest = Guest::start(command.env("SECRET", "of the tender"));
    guest.wait_for("escape: spin\n");
    let child = child_of(guest.pid()).unwrap();
    assert_eq!(open_files(child), 0);
    for name in ["cmdline", "environ"] {
        // An error, if there is no memory where these were.
        let text = fs::read(format!("/proc/{child}/{name}")).unwrap_or_default();
        assert!(text.is_empty(), "{name}: {text:?}");
    }
}

fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// As on Linux before 5.9, or behind a filter that rejects the call.
fn without_close_range_it_has_no_files_either() {
    const CLOSE_RANGE: libc::c_long = 436;
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    for answer in [unknown, SeccompAction::Trap] {
        let mut command = process("escape", &[], &["spin"]);
        let guest = Guest::start(refuse::refuses(&mut command, CLOSE_RANGE, &[], answer));
        guest.wait_for("escape: spin\n");
        assert_eq!(open_files(child_of(guest.pid()).unwrap()), 0);
    }
}

/// A guest runs without timers, and without a choice of processors.
fn behind_a_filter_it_runs_too() {
    for call in [
        libc::SYS_timer_create,
        libc::SYS_timer_settime,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_getscheduler,
    ] {
        let mut command = process("hello", &[], &["here"]);
        let output = run(refuse::refuses(
            &mut command,
            call,
            &[],
            SeccompAction::Trap,
        ));
        output.exits(0).prints("hello: here");
    }
}

fn it_has_no_rights() {
    let (guest, child) = start("escape", &["spin"]);
    assert_eq!(status(child, "TracerPid"), guest.pid().to_string());
    assert_eq!(status(child, "NoNewPrivs"), "1");
    assert_eq!(status(child, "Seccomp"), "2");
    assert_eq!(status(child, "Threads"), "1");
    let blocked = status(child, "SigBlk");
    assert_eq!(u64::from_str_radix(&blocked, 16), Ok(0));
    // SAFETY: the call takes a number.
    let session = unsafe { libc::getsid(child as i32) };
    assert_eq!(session, child as i32);
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        let set = status(child, name);
        assert_eq!(u64::from_str_radix(&set, 16), Ok(0), "{name}");
    }
}

fn it_leaves_no_core_file() {
    let mut command = process("escape", &[], &["spin"]);
    let guest = Guest::start(limit(&mut command, Resource::Core, u64::MAX));
    guest.wait_for("escape: spin\n");
    let child = child_of(guest.pid()).unwrap();
    let limits = fs::read_to_string(format!("/proc/{child}/limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let values: Vec<_> = line.unwrap().split_whitespace().skip(4).take(2).collect();
    assert_eq!(values, ["0", "0"], "{limits}");
}

/// The kernel makes root the owner of the files of a process that is not dumpable.
fn other_processes_of_the_user_cannot_read_it() {
    let directory = common::directory();
    // This adds the engine under test.
    let options = ["--mem=4", "--engine=process"];
    let options = &options[..if common::by_process() { 1 } else { 2 }];
    let mut command = common::as_nobody("clock", directory.path(), &[], options);
    let guest = Guest::start(command.arg("poll=60000000000"));
    guest.wait_for("clock");
    let child = child_of(guest.pid()).unwrap();
    assert_ne!(fs::metadata(format!("/proc/{child}")).unwrap().uid(), 0);
    assert_eq!(
        fs::metadata(format!("/proc/{child}/maps")).unwrap().uid(),
        0
    );
}

/// Of a guest that has made a hypercall, and sleeps.
fn it_shares_one_processor_with_its_tender() {
    let mut command = process("clock", &[], &["poll=60000000000"]);
    let guest = Guest::start(&mut command);
    guest.wait_for("clock");
    let child = child_of(guest.pid()).unwrap();
    let own = status(child, PROCESSORS);
    assert!(own.parse::<u32>().is_ok(), "{own}");
    assert_eq!(status(guest.pid(), PROCESSORS), own);
}

fn a_guest_that_computes_may_use_any_processor() {
    let (guest, child) = start("escape", &["spin"]);
    let all = status(std::process::id(), PROCESSORS);
    let deadline = Instant::now() + LIMIT;
    for task in [child, guest.pid()] {
        while status(task, PROCESSORS) != all {
            assert!(Instant::now() < deadline, "{}", status(task, PROCESSORS));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// General, vector and debug registers, and bases of segments.
fn registers_are_those_of_a_reset() {
    let output = run(&mut process("escape", &[], &["registers"]));
    let lines = output.exits(0).is_quiet().stdout.lines();
    let lines: Vec<_> = lines.filter(|line| !line.contains("bytes of")).collect();
    let expected = [
        "escape: registers",
        "escape: registers read",
        "escape: registers came back",
    ];
    assert_eq!(lines, expected, "{output:?}");
}
