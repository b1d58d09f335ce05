//! Guests that never end: SIGTERM ends them soon, whatever `tender` does for them, and `tender`
//! takes no more memory and no more descriptors however long they run.
//!
//! The time to the end is printed. The documented limit is 100 ms on a machine that is not busy;
//! the asserted limit suits the slowest machine.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, KvmEngine};
use crate::common::Resource;
use crate::common::hostile::{ERAS, Environment};
use crate::common::{self, Guest, full_pipe, pipe, trial};

/// Longest time from a signal to the end of a run, on any machine.
const BOUND: Duration = Duration::from_secs(10);

/// The measurements, by name.
static MEASURED: Mutex<Vec<(String, Duration)>> = Mutex::new(Vec::new());

/// Destination of the guest's output.
#[derive(Clone, Copy, Debug)]
enum Sink {
    Null,
    /// A pipe without a reader.
    Full,
    /// A pipe whose other end is closed.
    Closed,
    /// A pipe that is read continuously, but never fast enough.
    Slow,
    /// A file on a disk.
    File,
}

const WAYS: [&str; 13] = [
    "spin",
    "wait-event",
    "exceptions",
    "poll",
    "poll-storm",
    "time-storm",
    "net",
    "disk-write",
    "disk-read",
    "kick",
    "touch",
    "console",
    "console-all",
];

pub fn tests() -> Vec<Trial> {
    let mut tests: Vec<Trial> = Vec::new();
    let mut add = |program: &'static str, way: &'static str, sink, options: &'static [&str]| {
        let name = format!("ends_soon::{program}::{way}::{sink:?}{}", options.concat());
        // A process cannot change its page tables.
        let is_kvms = way == "kick" || way.starts_with("tables");
        tests.push(
            trial(&name.clone())
                .needs(&[if is_kvms { KvmEngine } else { Kvm }])
                .run(move || ends_soon(name, program, way, sink, options)),
        );
    };
    for way in WAYS {
        add("hostile", way, Sink::Null, &[]);
    }
    if cfg!(target_arch = "aarch64") {
        // On x86_64 they end.
        for way in ["wait", "no-vectors", "tables-outside", "tables-self"] {
            add("hostile", way, Sink::Null, &[]);
        }
    }
    for program in &ERAS[1..] {
        for way in ["spin", "poll", "time-storm", "net", "disk-write", "console"] {
            add(program, way, Sink::Null, &[]);
        }
    }
    for sink in [Sink::Full, Sink::Closed, Sink::Slow, Sink::File] {
        add("hostile", "console", sink, &[]);
        add("hostile", "console-all", sink, &["--mem=64"]);
    }
    add("hostile", "console", Sink::Null, &["--console-rate=1K"]);
    add("hostile", "disk-read", Sink::Null, &["--mem=256"]);
    add("hostile", "touch", Sink::Null, &["--mem=256"]);
    tests
}

pub fn report() {
    let mut measured = MEASURED.lock().unwrap();
    measured.sort();
    for (name, latency) in &*measured {
        eprintln!(
            "{:>7.1} ms from SIGTERM to the end: {name}",
            latency.as_secs_f64() * 1000.0
        );
    }
    if let Some((name, worst)) = measured.iter().max_by_key(|(_, latency)| *latency) {
        eprintln!(
            "{:>7.1} ms is the longest, of {} runs: {name}",
            worst.as_secs_f64() * 1000.0,
            measured.len()
        );
    }
}

/// Resources of `tender`, none of which may grow: its data, descriptors and threads. The guest's
/// memory is part of the data from the start.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    data: String,
    descriptors: usize,
    threads: String,
}

fn held(guest: &Guest) -> Held {
    let line = |name| common::status(guest.pid(), name);
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", guest.pid()))
        .unwrap()
        .count();
    Held {
        data: line("VmData"),
        descriptors,
        threads: line("Threads"),
    }
}

fn ends_soon(name: String, program: &str, way: &str, sink: Sink, options: &[&str]) {
    let (mut command, surroundings) =
        Environment::of(program, &[&["-v"], options].concat(), &[way]);
    let (mut reader, writer) = match sink {
        Sink::Full => full_pipe(),
        _ => pipe(),
    };
    let stdout = match sink {
        Sink::Null => Stdio::null(),
        Sink::Full | Sink::Closed | Sink::Slow => writer.into(),
        Sink::File => surroundings.file("output").into(),
    };
    let mut guest = Guest::spawn(with_small_files(&mut command).stdout(stdout));
    // The command holds our copy.
    drop(command);
    match sink {
        Sink::Closed => drop(reader),
        Sink::Slow => _ = std::thread::spawn(move || read_slowly(&mut reader)),
        // Held until the end.
        _ => std::mem::forget(reader),
    }
    // Logged when all threads and descriptors exist.
    guest.wait_for_complaint("sandbox: ");
    std::thread::sleep(Duration::from_millis(400));
    let before = held(&guest);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(held(&guest), before);
    let since = Instant::now();
    guest.signal(libc::SIGTERM);
    let output = guest.end();
    let latency = since.elapsed();
    output
        .dies_by(libc::SIGTERM)
        .complains("signal 15 ended the run");
    assert!(
        output
            .stderr
            .lines()
            .filter(|line| line.contains(": warn: "))
            .count()
            <= 4,
        "{output:?}"
    );
    assert!(!output.stderr.contains("panicked"), "{output:?}");
    assert!(latency < BOUND, "{latency:?}");
    MEASURED.lock().unwrap().push((name, latency));
}

/// Keeps a guest from filling the disk. Output beyond the limit is dropped.
fn with_small_files(command: &mut Command) -> &mut Command {
    common::limit(command, Resource::Fsize, 128 << 20)
}

/// Reads about 4 MiB a second, so that all of memory takes 16 seconds; and often, so that each
/// interrupted write has made progress.
fn read_slowly(reader: &mut File) {
    let mut piece = [0; 1 << 14];
    while let Ok(1..) = reader.read(&mut piece) {
        std::thread::sleep(Duration::from_millis(4));
    }
}
