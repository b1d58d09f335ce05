//! `cargo xtask test`: runs every test on this machine, then the same test binaries inside an
//! emulated one.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::base::error::{Context, Error, Result, fail};
use crate::base::options::Options;
use crate::base::process::{Followed, Next};
use crate::base::progress;
use crate::build::arch::Arch;
use crate::build::cargo::{self, Built};
use crate::build::packages;
use crate::build::packages::Package;
use crate::build::toolchain::StaticToolchain;
use crate::checks::tally::Tally;
use crate::machines::engine::Engine;
use crate::machines::initramfs::{self, Archive};
use crate::machines::machine::{Emulated, Machine};
use crate::machines::qemu::Event;

/// Time limit of one test binary inside an emulated machine, in seconds.
const BINARY_LIMIT: u64 = 600;

/// Time limit of all tests on this machine, including compilation.
const HOST_LIMIT: Duration = Duration::from_secs(40 * 60);

pub fn run(options: &mut Options) -> Result<()> {
    let machine = Machine::option(options)?;
    let engine = Engine::option(options)?;
    options.finish()?;
    let arguments = &options.rest;
    let tally = match machine {
        Some(Machine::Host) => on_host(engine, arguments)?,
        Some(Machine::Emulated(machine)) => emulated(machine, engine, arguments)?,
        None => {
            let mut tally = on_host(engine, arguments)?;
            tally += pi3_where_possible(engine, arguments)?;
            tally
        }
    };
    // Last and plain: its reader (a person, CI) need not know how many binaries there were.
    println!("{tally}");
    if tally.failed > 0 {
        std::process::exit(1)
    } else {
        Ok(())
    }
}

/// Root can install missing packages, so for root this is never skipped.
fn pi3_where_possible(engine: Option<Engine>, arguments: &[String]) -> Result<Tally> {
    let ready: Result<()> = Emulated::Pi3
        .prepare()
        .and_then(|_| StaticToolchain::choose(Arch::Aarch64))
        .map(drop);
    match ready {
        Err(error) if !packages::is_root() => {
            println!("pi3: skipped, as its packages are missing: {error}");
            Ok(Tally::default())
        }
        _ => emulated(Emulated::Pi3, engine, arguments),
    }
}

/// Installs external checkers for tests of `packaging/` and of documents; without them, those tests
/// are ignored.
fn external_checkers() {
    let wanted = [
        Package::program("systemd", "systemd-analyze"),
        Package::program("iproute2", "ip"),
        Package::program("curl", "curl"),
        Package::program("procps", "sysctl"),
        Package::program("nftables", "nft"),
        Package::program("fish", "fish"),
    ];
    if !packages::is_root() {
        return;
    }
    if let Err(error) = packages::ensure("tests of units, networks and documents", &wanted) {
        progress::note(format_args!("some tests are skipped here: {error}"));
    }
}

/// The engines on a machine on which `best` can run guests: all of its tests run by the first, and
/// those that run guests again by the others.
fn engines(asked: Option<Engine>, best: impl FnOnce() -> Engine) -> Vec<Engine> {
    match asked.unwrap_or_else(best) {
        Engine::Kvm if asked.is_none() => vec![Engine::Kvm, Engine::Process],
        engine => vec![engine],
    }
}

fn on_host(engine: Option<Engine>, arguments: &[String]) -> Result<Tally> {
    let start = Instant::now();
    external_checkers();
    let mut tallies = Vec::new();
    for engine in engines(engine, Engine::of_this_host) {
        let what: &[&str] = match tallies.is_empty() {
            true => &["--workspace"],
            false => &["--workspace", "--test", "e2e"],
        };
        tallies.push((engine, on_host_by(engine, what, arguments)?));
    }
    Ok(summary("host", &tallies, start))
}

fn on_host_by(engine: Engine, what: &[&str], arguments: &[String]) -> Result<Tally> {
    progress::note(format_args!("tests on this machine, {}", engine.name()));
    let mut command = cargo::cargo("test");
    command
        .args(what)
        .args(["--no-fail-fast", "--"])
        .args(arguments)
        .env(VARIABLE, engine.name());
    let start = Instant::now();
    let cargo = Followed::start(&mut command)?;
    let mut tally = Tally::default();
    loop {
        match cargo.next(start + HOST_LIMIT) {
            Next::Line(line) => {
                println!("{line}");
                tally += Tally::parse(&line).unwrap_or_default();
            }
            Next::End => break,
            Next::TimedOut => {
                return fail(format!(
                    "the tests took more than {} min",
                    HOST_LIMIT.as_secs() / 60
                ));
            }
        }
    }
    let status = cargo.finish(Duration::from_secs(10))?;
    Ok(tally.with_exit(status.success()))
}

/// Prints the results of a machine, and returns their sum.
fn summary(machine: &str, tallies: &[(Engine, Tally)], start: Instant) -> Tally {
    let mut sum = Tally::default();
    for (engine, tally) in tallies {
        println!("{machine}, {}: {tally}", engine.name());
        sum += *tally;
    }
    println!("{machine}: {} s\n", start.elapsed().as_secs());
    sum
}

fn emulated(machine: Emulated, engine: Option<Engine>, arguments: &[String]) -> Result<Tally> {
    let engines = engines(engine, || Engine::Kvm);
    progress::note(format_args!("tests inside {}", machine.title()));
    let start = Instant::now();
    let assets = machine.prepare()?;
    let built = build_tests(machine.arch())?;
    let capabilities = capabilities()?;
    let mut archive = initramfs::base(
        machine,
        &assets,
        &job(&passed_on(), arguments, &capabilities, &engines),
    )?;
    // The end-to-end tests count once for each capability and engine.
    let expected = pack_tests(&mut archive, &built)? - 1 + capabilities.len() * engines.len();
    archive.fixtures(machine.arch())?;
    let mut console = machine.boot(&assets, archive)?;
    let mut follower = Follower {
        prefix: machine.name(),
        tallies: engines
            .into_iter()
            .map(|engine| (engine, Tally::default()))
            .collect(),
        running: None,
        ended: 0,
    };
    loop {
        let deadline = Instant::now() + Duration::from_secs(BINARY_LIMIT + 60);
        match console.next(deadline) {
            Ok(Event::Mark(mark)) if mark.starts_with("done") => break,
            Ok(event) => follower.handle(event),
            Err(error) => {
                follower.died(&error);
                return Ok(summary(machine.name(), &follower.tallies, start));
            }
        }
    }
    if follower.ended != expected {
        return fail(format!(
            "{} of {expected} test binaries ran inside {}",
            follower.ended,
            machine.title()
        ));
    }
    Ok(summary(machine.name(), &follower.tallies, start))
}

/// Builds, for this architecture, every test binary of the workspace except those of `manual/`, and
/// the tender that they start.
fn build_tests(arch: Arch) -> Result<Vec<Built>> {
    let toolchain = StaticToolchain::choose(arch)?;
    progress::note(format_args!(
        "building the tests for {}",
        toolchain.describe()
    ));
    let mut command = cargo::cargo("test");
    command.args([
        "--no-run",
        "--workspace",
        "--exclude",
        "xtask",
        "--exclude",
        "manual",
        "--lib",
        "--tests",
    ]);
    cargo::small_profile(&mut command);
    toolchain.apply(&mut command);
    cargo::build(&mut command)
}

fn pack_tests(archive: &mut Archive, built: &[Built]) -> Result<usize> {
    let mut count = 0;
    for program in built {
        if program.is_test {
            // Cargo's file name: it distinguishes the unit tests of the library from those of the
            // binary.
            let name = program
                .path
                .file_name()
                .unwrap_or_else(|| Path::new(&program.name).as_os_str());
            archive.copy(&format!("tests/{}", name.to_string_lossy()), &program.path)?;
            count += 1;
        } else {
            archive.copy(&format!("bin/{}", program.name), &program.path)?;
        }
    }
    if count == 0 {
        fail("cargo built no test binary")
    } else {
        Ok(count)
    }
}

/// The engine of the guests of end-to-end tests.
const VARIABLE: &str = "TENDER_ENGINE";

/// Variables that set the amount of work of tests; see `docs/testing.md`.
const PASSED_ON: [&str; 6] = [
    "TENDER_RING_FRAMES",
    "TENDER_SLOW_TESTS",
    "TENDER_HOSTILE_CALLS",
    "TENDER_HOSTILE_RUNS",
    "TENDER_HOSTILE_SEED",
    "TENDER_KILLS",
];

/// Shell assignments of those that are set.
fn passed_on() -> String {
    let set = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|value| format!("export {name}={}\n", quoted(&value)))
    };
    PASSED_ON.into_iter().filter_map(set).collect()
}

/// The modules of the end-to-end tests, each of which runs by itself.
fn capabilities() -> Result<Vec<String>> {
    let path = cargo::root().join("tests/e2e/main.rs");
    let text = std::fs::read_to_string(&path).context(path.display())?;
    let list = text.split_once("tests_of! { only;\n");
    let list = list.and_then(|(_, rest)| rest.split_once('}'));
    match list.map(|(list, _)| list.split_whitespace().map(str::to_owned).collect()) {
        Some(names) => Ok(names),
        None => fail(format!("{}: no list of capabilities", path.display())),
    }
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The shell script that runs all tests, after the lines `before`.
fn job(before: &str, arguments: &[String], capabilities: &[String], engines: &[Engine]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
    let engines: Vec<&str> = engines.iter().map(|engine| engine.name()).collect();
    format!(
        "{before}export TENDER_BIN=/bin/tender TENDER_FIXTURES=/fixtures TENDER_MAY_SET_CLOCK=1 RUST_BACKTRACE=1\n\
         for test in /tests/*; do\n\
         case $test in /tests/e2e-*) parts='{capabilities}' engines='{engines}';; *) parts=all engines={first};; esac\n\
         for {VARIABLE} in $engines; do export {VARIABLE}\n\
         for part in $parts; do\n\
         export TENDER_TESTS_OF=$part\n\
         echo '{mark}run' ${{test##*/}} $part ${VARIABLE}\n\
         timeout -s KILL {BINARY_LIMIT} $test --color=never {arguments}\n\
         echo '{mark}exit' $?\n\
         done\n\
         done\n\
         done\n",
        mark = initramfs::MARK,
        capabilities = capabilities.join(" "),
        engines = engines.join(" "),
        first = engines.first().copied().unwrap_or_default(),
        arguments = arguments.join(" "),
    )
}

/// Counts results while the machine runs.
struct Follower {
    prefix: &'static str,
    /// Results by engine.
    tallies: Vec<(Engine, Tally)>,
    /// The running binary, and its results so far.
    running: Option<(String, Tally)>,
    ended: usize,
}

impl Follower {
    fn handle(&mut self, event: Event) {
        match event {
            Event::Line(line) => {
                println!("{} | {line}", self.prefix);
                if let (Some((_, tally)), Some(read)) = (&mut self.running, Tally::parse(&line)) {
                    *tally += read;
                }
            }
            Event::Mark(mark) => match mark.split_once(' ') {
                Some(("run", name)) => {
                    println!("{} | {name}", self.prefix);
                    self.running = Some((name.to_string(), Tally::default()));
                }
                Some(("exit", status)) => self.ended(status),
                _ => println!("{} | {mark}", self.prefix),
            },
        }
    }

    fn ended(&mut self, status: &str) {
        self.ended += 1;
        let Some((name, tally)) = self.running.take() else {
            return;
        };
        // 137 is 128 + SIGKILL, the status of busybox's timeout.
        let why = if status == "137" {
            format!(" (killed after {BINARY_LIMIT} s)")
        } else {
            String::new()
        };
        if status != "0" {
            println!("{} | {name} ended with status {status}{why}", self.prefix);
        } else if tally == Tally::default() {
            println!("{} | {name} ran no test", self.prefix);
        }
        *self.tally(&name) += tally.with_exit(status == "0");
    }

    /// The results by the engine that is the last word of `name`.
    fn tally(&mut self, name: &str) -> &mut Tally {
        let is_its = |(engine, _): &(Engine, Tally)| name.ends_with(engine.name());
        let at = self.tallies.iter().position(is_its).unwrap_or(0);
        &mut self.tallies[at].1
    }

    /// The machine is gone: the running binary has failed, and the number of missing ones is
    /// printed.
    fn died(&mut self, error: &Error) {
        let running = self.running.take();
        let name = running.map(|(name, _)| name).unwrap_or_default();
        let during = match name.is_empty() {
            true => "between tests".into(),
            false => format!("while {name} ran"),
        };
        println!(
            "{} | {error}; it happened {during}, and what should have come after did not run",
            self.prefix
        );
        self.tally(&name).failed += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower() -> Follower {
        Follower {
            prefix: "test",
            tallies: [Engine::Kvm, Engine::Process]
                .map(|engine| (engine, Tally::default()))
                .into(),
            running: None,
            ended: 0,
        }
    }

    fn mark(text: &str) -> Event {
        Event::Mark(text.into())
    }

    #[test]
    fn counts_are_summed_over_binaries() {
        let mut follower = follower();
        for _ in 0..2 {
            follower.handle(mark("run e2e halt process"));
            follower.handle(Event::Line(
                "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured".into(),
            ));
            follower.handle(mark("exit 0"));
        }
        let [kvm, process] = [0, 1].map(|at| follower.tallies[at].1);
        assert_eq!((process.passed, process.skipped, follower.ended), (6, 2, 2));
        assert_eq!(kvm, Tally::default());
    }

    #[test]
    fn a_crash_and_a_dead_machine_are_failures() {
        let mut follower = follower();
        follower.handle(mark("run e2e halt kvm"));
        follower.handle(mark("exit 139"));
        follower.handle(mark("run e2e net kvm"));
        follower.died(&fail::<()>("gone").unwrap_err());
        assert_eq!(follower.tallies[0].1.failed, 2);
    }

    #[test]
    fn guests_run_by_both_engines_where_both_are_there() {
        let of = |asked, best| engines(asked, || best);
        let both = [Engine::Kvm, Engine::Process];
        assert_eq!(of(None, Engine::Kvm), both);
        assert_eq!(of(None, Engine::Process), [Engine::Process]);
        assert_eq!(of(Some(Engine::Kvm), Engine::Process), [Engine::Kvm]);
        let job = job("", &[], &["net".into(), "web".into()], &both);
        assert!(job.contains("parts='net web' engines='kvm process';; *) parts=all engines=kvm;;"));
    }

    #[test]
    fn arguments_reach_the_tests_unchanged() {
        assert!(
            job(
                "",
                &["a b".into(), "it's".into()],
                &["net".into()],
                &[Engine::Kvm]
            )
            .contains(r"$test --color=never 'a b' 'it'\''s'")
        );
    }
}
