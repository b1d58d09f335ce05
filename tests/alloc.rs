//! A hypercall allocates nothing on the heap: a run with many makes exactly as many allocations as
//! one with few.
//!
//! The runs are those of the library in this test program, started again with [`ARGUMENTS`] set:
//! there `tender`'s thread is the only one, and every allocation is its own.

#[macro_use]
#[path = "e2e/common/mod.rs"]
#[allow(dead_code, unused_imports, reason = "it is made for the other tests")]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};

use common::Need::Kvm;
use common::{FD, Guest, fixture, pass_fd, run, text};

/// The environment variable with `tender`'s arguments, one a line.
const ARGUMENTS: &str = "TENDER_ALLOC_ARGUMENTS";

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

// SAFETY: the system's allocator does the work, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the allocator's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the allocator's contract.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the allocator's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    if let Ok(args) = std::env::var(ARGUMENTS) {
        return run_here(&args);
    }
    common::net::become_root();
    libtest_mimic::run(
        &libtest_mimic::Arguments::from_args(),
        vec![
            trial!(allocations_are_counted, Kvm),
            trial!(ten_thousand_calls_allocate_nothing, Kvm),
            trial!(output_allocates_nothing, Kvm),
            trial!(blocks_and_frames_allocate_nothing, Kvm),
        ],
    )
    .exit_code()
}

/// Runs `tender` in this process and prints how many allocations that took.
fn run_here(args: &str) -> ExitCode {
    let args = std::iter::once("tender")
        .chain(args.lines())
        .map(Into::into);
    let Ok(tender::cli::Command::Run(config)) = tender::cli::parse(args) else {
        panic!("the command line is one for a run");
    };
    let before = COUNT.load(Ordering::Relaxed);
    let outcome = tender::run(&config);
    let count = COUNT.load(Ordering::Relaxed) - before;
    eprintln!("{count}");
    match outcome {
        Ok(tender::Outcome::Halted(status)) => ExitCode::from(status),
        other => panic!("{other:?}"),
    }
}

/// This program as a `tender` with these arguments.
fn tender_here(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(ARGUMENTS, args.join("\n"));
    command
}

fn count(command: &mut Command) -> u64 {
    let output = run(command);
    output.exits(0);
    output
        .stderr
        .trim_end()
        .parse()
        .unwrap_or_else(|_| panic!("no number: {output:?}"))
}

fn hypercalls(arguments: &[&str]) -> u64 {
    let image = fixture("hypercalls");
    count(&mut tender_here(
        &[&["--mem=4", text(&image)], arguments].concat(),
    ))
}

/// Checks that the counter counts.
fn allocations_are_counted() {
    let before = COUNT.load(Ordering::Relaxed);
    drop(std::hint::black_box(Box::new(1)));
    assert!(COUNT.load(Ordering::Relaxed) > before);
    assert!(
        hypercalls(&["ok-storm", "10"]) > 5,
        "to start a guest takes some"
    );
}

fn ten_thousand_calls_allocate_nothing() {
    assert_eq!(
        hypercalls(&["ok-storm", "00010"]),
        hypercalls(&["ok-storm", "10010"])
    );
}

fn output_allocates_nothing() {
    assert_eq!(
        hypercalls(&["puts-flood", "0010"]),
        hypercalls(&["puts-flood", "1010"])
    );
}

/// Six kinds of calls, on a disk and on a socket that is read now and then: sent and dropped frames
/// allocate nothing.
fn blocks_and_frames_allocate_nothing() {
    let directory = common::directory();
    let path = directory.path().join("disk.img");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let [few, many] = ["n=0010", "n=0510"].map(|n| {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let image = fixture("bench-io");
        let args = [
            "--mem=4",
            &format!("--net=@{FD}"),
            &format!("--disk={}", text(&path)),
            text(&image),
            n,
        ];
        let mut guest = Guest::start(&mut pass_fd(tender_here(&args), theirs));
        let mut received = 0;
        let mut running = true;
        // Once more after its end, which may precede the first frame.
        while std::mem::replace(&mut running, guest.is_running()) {
            while ours.recv(&mut [0; 2000]).is_ok() {
                received += 1;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(received > 0, "no frame arrived");
        let output = guest.end();
        output.exits(0).prints("bench net-read-empty");
        output
            .stderr
            .trim_end()
            .parse::<u64>()
            .unwrap_or_else(|_| panic!("no number: {output:?}"))
    });
    assert_eq!(few, many);
}
