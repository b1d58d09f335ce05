//! The sandbox from inside: a compromised `tender` tries what an attacker would, and is killed.
//! Also what the operator sees of it: its options, and what a kernel lacks.
//!
//! `tender` has no code for these tests. The run is one of the library in this test program,
//! started again with [`ATTEMPT`] set. Its logger is ours; it takes over the calling thread when
//! the guest has ended.

mod attempts;
mod layers;
mod users;

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use libtest_mimic::Trial;
use tender::arch::{Architecture, Native};
use tender::config::SandboxMode;
use tender::sandbox::rules::{self, Parameters};
use tender::sandbox::{Confined, Sandbox};

use crate::common::Need::{self, Kvm, KvmEngine};
use crate::common::trace::trace_threads;
use crate::common::{self, Output, fixture, landlock, run, status, text, trial};
use attempts::{
    Attempt, CLIENT, CORE, CORE_FILE, CORES, DEBUGGERS, FORBIDDEN, FORBIDDEN_TO_METRICS,
    FORBIDDEN_TO_THE_GUEST, FORBIDDEN_WITH_CORES, FORBIDDEN_WITH_GDB, LISTENER, NEW, NEW_ELSEWHERE,
    PAGE, PARENT, PATH, SELF, STATM, TRIED_WITH_GDB, VCPU, find,
};

/// The environment variable with the thread and what it tries.
const ATTEMPT: &str = "TENDER_ATTEMPT";

/// The environment variable with the directory for core files, if any.
const CORES_PATH: &str = "TENDER_CORES";

/// Makes the attempt that this process was started for, if it was.
pub fn attempt() -> Option<ExitCode> {
    std::env::var(ATTEMPT)
        .ok()
        .map(|attempt| attempt_here(&attempt))
}

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        trial("the_guests_thread_survives")
            .needs(&[Kvm])
            .run(|| survives("guest", "nothing")),
        trial("the_metrics_thread_survives").run(|| survives("metrics", "nothing")),
        trial!(a_violation_is_handled_once),
        trial("without_a_sandbox_every_thread_survives").run(|| survives("none", "getppid")),
    ];
    tests.extend(
        FORBIDDEN
            .iter()
            .chain(FORBIDDEN_TO_THE_GUEST)
            .map(|attempt| dies("guest", attempt)),
    );
    tests.extend(
        FORBIDDEN
            .iter()
            .chain(FORBIDDEN_TO_METRICS)
            .map(|attempt| dies("metrics", attempt)),
    );
    tests.extend(
        FORBIDDEN_WITH_CORES
            .iter()
            .map(|attempt| dies("dumper", attempt)),
    );
    let with_gdb = TRIED_WITH_GDB
        .iter()
        .map(|name| find(name).expect("it is there"))
        .chain(FORBIDDEN_WITH_GDB.to_vec());
    tests.extend(with_gdb.map(|attempt| dies("debuggee", &attempt)));
    tests.push(
        trial("the_debuggees_thread_lives")
            .needs(&[KvmEngine])
            .run(|| survives("debuggee", DEBUGGERS.0)),
    );
    // Without the option, all of it fails.
    tests.push(dies("guest", &DEBUGGERS));
    tests.extend(CORE.iter().map(|attempt| dies("guest", attempt)));
    tests.extend(
        CORE.iter()
            .map(|(name, ..)| trial(name).needs(&[Kvm]).run(|| survives("dumper", name))),
    );
    tests.push(
        trial("cores_stay_in_their_directory")
            .needs(&[Kvm])
            .try_run(cores_stay_in_their_directory),
    );
    tests.extend(THREADS.map(ends_at_a_panic));
    tests.extend(["open", "fork", "vfork"].into_iter().flat_map(|name| {
        // Calls that only x86_64 has.
        let there = Native::OLD_CALLS.iter().any(|(_, old)| *old == name);
        THREADS
            .into_iter()
            .filter(move |_| there)
            .map(move |thread| attempted(thread, name, name))
    }));
    tests.extend(users::tests());
    tests.extend(layers::tests());
    tests
}

/// The attempt in which the thread is not taken over, but panics.
const PANIC: &str = "a panic on purpose";

/// The threads that the sandbox confines.
const THREADS: [&str; 2] = ["guest", "metrics"];

fn dies(thread: &'static str, &(name, call, _): &Attempt) -> Trial {
    attempted(thread, name, rules::name(call).unwrap_or("unknown"))
}

/// A test that a panic ends the run with one line, in a thread that may do little more than that.
fn ends_at_a_panic(thread: &'static str) -> Trial {
    let name = format!("a_panic_ends_the_run::{thread}");
    let body = move || {
        attempt_in(thread, PANIC).fails(&[
            "internal error, please report it: ",
            "tests/e2e/sandbox.rs",
            PANIC,
        ]);
    };
    if thread == "guest" {
        trial(&name).needs(&[Kvm]).run(body)
    } else {
        trial(&name).run(body)
    }
}

/// A test that `attempt` kills the process, and that the message has the call's name.
fn attempted(thread: &'static str, attempt: &'static str, call: &'static str) -> Trial {
    let whose = if thread == "metrics" {
        thread
    } else {
        &format!("{thread}s")
    };
    let name = format!("the_{whose}_thread_may_not::{attempt}");
    let body = move || {
        let output = attempt_in(thread, attempt);
        output
            .dies_by(libc::SIGSYS)
            .complains(&format!(" ({call}) is not allowed by the sandbox"));
        assert!(!output.stderr.contains("survived"), "{output:?}");
    };
    if ["guest", "dumper", "debuggee"].contains(&thread) {
        trial(&name).needs(&[engine(attempt)]).run(body)
    } else {
        trial(&name).run(body)
    }
}

/// The engine for an attempt by the guest's thread: only KVM's has a vCPU.
fn engine(attempt: &str) -> Need {
    match find(attempt) {
        Some((_, _, arguments)) if arguments.contains(&VCPU) => KvmEngine,
        _ => Kvm,
    }
}

fn survives(thread: &str, attempt: &str) {
    attempt_in(thread, attempt).exits(0).complains("survived");
}

/// Runs this program with the thread taken over.
fn attempt_in(thread: &str, attempt: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(ATTEMPT, format!("{thread} {attempt}"));
    let directory = common::directory();
    if thread == "dumper" {
        command.env(CORES_PATH, directory.path());
    }
    run(&mut command)
}

/// When the SIGSYS handler writes its line, the signal's action is already the default: an attacker
/// cannot call the handler a second time.
fn a_violation_is_handled_once() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(ATTEMPT, "metrics ptrace");
    let caught = |pid| {
        u64::from_str_radix(&status(pid as u32, "SigCgt"), 16).unwrap() >> (libc::SIGSYS - 1) & 1
    };
    let mut seen = Vec::new();
    let ended = trace_threads(&mut command, |pid, _, call| {
        match call.number {
            libc::SYS_ptrace => seen.push(("the violation", caught(pid))),
            libc::SYS_write if call.arguments[0] == 2 && !seen.is_empty() => {
                seen.push(("its line", caught(pid)))
            }
            _ => {}
        }
        false
    });
    assert!(
        libc::WIFSIGNALED(ended) && libc::WTERMSIG(ended) == libc::SIGSYS,
        "{ended:#x}"
    );
    assert_eq!(seen, [("the violation", 1), ("its line", 0)]);
}

/// A path that leads out of it is refused as well.
fn cores_stay_in_their_directory() -> Result<(), String> {
    landlock()?;
    let directory = common::directory();
    let cores = directory.path().join("cores");
    std::fs::create_dir(&cores).unwrap();
    for attempt in ["a file there", "a file elsewhere"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .env(ATTEMPT, format!("dumper {attempt}"))
            .env(CORES_PATH, &cores);
        run(&mut command).exits(0).complains("survived");
        let files = [cores.join("new"), directory.path().join("new")].map(|path| path.exists());
        assert_eq!(files, [true, false], "{attempt}");
    }
    Ok(())
}

static TAKEN_OVER: OnceLock<String> = OnceLock::new();
static DEBUGGER: OnceLock<TcpStream> = OnceLock::new();
static VCPU_FD: AtomicI32 = AtomicI32::new(-1);
static CORES_FD: AtomicI32 = AtomicI32::new(-1);
static CORE_FILE_FD: AtomicI32 = AtomicI32::new(-1);
static PARENT_ID: AtomicI32 = AtomicI32::new(0);
static SELF_ID: AtomicI32 = AtomicI32::new(0);

fn attempt_here(argument: &str) -> ExitCode {
    let (thread, attempt) = argument.split_once(' ').expect("a thread and an attempt");
    PARENT_ID.store(
        std::os::unix::process::parent_id() as i32,
        Ordering::Relaxed,
    );
    SELF_ID.store(std::process::id() as i32, Ordering::Relaxed);
    // As `main` does.
    tender::host::start::prepare();
    match thread {
        "guest" | "dumper" | "debuggee" => {
            TAKEN_OVER.set(attempt.to_owned()).expect("the first");
            log::set_logger(&Intruder).expect("the first");
            log::set_max_level(log::LevelFilter::Info);
            let mut config = config();
            config.debugging.dumpcore = std::env::var_os(CORES_PATH).map(Into::into);
            config.debugging.gdb = thread == "debuggee";
            config.debugging.gdb_port = config
                .debugging
                .gdb
                .then_some(tender::config::GdbAddress::Port(0));
            let outcome = tender::run(&config);
            ExitCode::from(if outcome.is_ok() { 0 } else { 4 })
        }
        "metrics" => {
            let confined = confined();
            let done = confined.confine_metrics_thread();
            done.expect("this kernel has filters");
            try_it(attempt);
            // Only the thread may end; without the main thread there is no process.
            // SAFETY: the call takes a number, and does not return.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
            ExitCode::FAILURE
        }
        _ => {
            try_it(attempt);
            ExitCode::SUCCESS
        }
    }
}

fn config() -> tender::config::Config {
    let hello = fixture("hello");
    let args = ["tender", "--sandbox=best-effort", "--mem=2"];
    let args = args.into_iter().chain(common::engine_option());
    let args = args.chain([text(&hello)]).map(Into::into);
    match tender::cli::parse(args) {
        Ok(tender::cli::Command::Run(config)) => config,
        other => panic!("{other:?}"),
    }
}

/// The sandbox of a run without devices, with `--metrics`; vCPU and thread IDs are this program's.
fn confined() -> Confined {
    let process = SELF_ID.load(Ordering::Relaxed);
    VCPU_FD.store(0, Ordering::Relaxed);
    let (listener, client, statm) = (
        vec![LISTENER as i32],
        vec![CLIENT as i32],
        vec![STATM as i32],
    );
    let parameters = Parameters {
        process,
        thread: process,
        listener,
        client,
        statm,
        ..Parameters::default()
    };
    Sandbox::new(SandboxMode::BestEffort, None, None)
        .enter(parameters)
        .expect("this kernel has a sandbox")
}

/// Takes over the guest's thread while it logs.
struct Intruder;

impl log::Log for Intruder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args().to_string();
        if text.contains("MiB of memory") {
            if let Some(&vcpu) = open("anon_inode:kvm-vcpu").first() {
                VCPU_FD.store(vcpu, Ordering::Relaxed);
            }
            if let Ok(directory) = std::env::var(CORES_PATH) {
                let [first, second] = open(&directory)[..] else {
                    panic!("not two descriptors are {directory}")
                };
                CORES_FD.store(first, Ordering::Relaxed);
                CORE_FILE_FD.store(second, Ordering::Relaxed);
            }
        } else if let Some((_, rest)) = text.split_once("target remote ") {
            let address = rest.split_once('\'').expect("the message has a command").0;
            DEBUGGER
                .set(debugger_in_advance(address))
                .expect("the first");
        } else if text.contains("the guest halted") {
            try_it(TAKEN_OVER.get().expect("set at the start"));
        }
    }

    fn flush(&self) {}
}

/// A debugger that has sent its only packet, which resumes the guest, before `tender` listens to
/// it.
fn debugger_in_advance(address: &str) -> TcpStream {
    let mut debugger = TcpStream::connect(address).expect("the port is open");
    debugger
        .write_all(b"$vCont;c#a8")
        .expect("there is room for a packet");
    debugger
}

/// Returns this process's descriptors whose target begins with `beginning`, in order.
fn open(beginning: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_it = |path: &PathBuf| {
        std::fs::read_link(path).is_ok_and(|link| text(&link).starts_with(beginning))
    };
    let mut found: Vec<i32> = entries
        .filter(is_it)
        .map(|path| text(path.file_name().unwrap().as_ref()).parse().unwrap())
        .collect();
    found.sort_unstable();
    found
}

fn try_it(attempt: &str) {
    static PAGE_ITSELF: [u64; 512] = [0; 512];
    assert!(attempt != PANIC, "{attempt}");
    if let Some((_, call, arguments)) = find(attempt) {
        let [a, b, c, d, e, f] = arguments.map(|argument| match argument {
            VCPU => VCPU_FD.load(Ordering::Relaxed).into(),
            PARENT => PARENT_ID.load(Ordering::Relaxed).into(),
            CORES => CORES_FD.load(Ordering::Relaxed).into(),
            CORE_FILE => CORE_FILE_FD.load(Ordering::Relaxed).into(),
            SELF => SELF_ID.load(Ordering::Relaxed).into(),
            PAGE => PAGE_ITSELF.as_ptr() as i64,
            PATH => c"/etc/passwd".as_ptr() as i64,
            NEW => c"new".as_ptr() as i64,
            NEW_ELSEWHERE => c"../new".as_ptr() as i64,
            value => value,
        });
        // SAFETY: it is an attack. If it succeeds, the test has failed, and the process ends.
        unsafe { libc::syscall(call, a, b, c, d, e, f) };
    }
    let line = b"survived\n";
    // SAFETY: the bytes are there.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}
