//! `cargo xtask fuzz`: the fuzz targets, built with a stable compiler and run for a limited time.
//!
//! cargo-fuzz needs a nightly compiler for flags that only lack a stable name. Here they are passed
//! to any compiler, as cargo-fuzz does; AddressSanitizer is used if that compiler has it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::base::error::{Context, Result, fail};
use crate::base::options::Options;
use crate::base::{process, progress};
use crate::build::cargo::{self, Built};
use crate::build::packages::{self, Package};
use crate::checks::corpus;

/// The targets, each with its longest useful input, in bytes.
const TARGETS: [(&str, usize); 5] = [
    ("image", 8192),
    ("cli", 4096),
    ("config", 2048),
    ("hypercall", 1024),
    ("ring", 2048),
];

/// Default time of each target, in seconds.
const SECONDS: u64 = 60;

/// The longest input that is committed, in bytes.
const LONGEST_SEED: u64 = 1024;

/// Interval of progress messages.
const PAUSE: Duration = Duration::from_secs(15);

/// Time limit for one input, in seconds.
const INPUT_LIMIT: u64 = 20;

/// What libFuzzer observes: edges, and the operands of comparisons.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
];

pub fn run(options: &mut Options) -> Result<()> {
    let seconds = options
        .value("--seconds")?
        .map_or(Ok(SECONDS), |text| text.parse());
    let seconds = seconds.context("--seconds takes a number")?;
    let minimise = options.flag("--minimise");
    let only = options.positional();
    options.finish()?;
    let targets = chosen(only.as_deref())?;
    let inputs = &options.rest;
    if !inputs.is_empty() && (targets.len() > 1 || minimise) {
        return fail("inputs are tried by one target: cargo xtask fuzz TARGET -- FILE...");
    }
    let built = build()?;
    for &(name, longest) in targets {
        let Some(program) = built.iter().find(|built| built.name == name) else {
            return fail(format!(
                "cargo named no fuzz target '{name}' among what it built"
            ));
        };
        let target = Target {
            name,
            longest,
            program: program.path.clone(),
        };
        match (inputs.is_empty(), minimise) {
            (false, _) => process::run(Command::new(&target.program).args(inputs))?,
            (true, true) => target.minimise()?,
            (true, false) => target.fuzz(seconds)?,
        }
    }
    Ok(())
}

fn chosen(only: Option<&str>) -> Result<&'static [(&'static str, usize)]> {
    let Some(only) = only else {
        return Ok(&TARGETS);
    };
    match TARGETS.iter().position(|(name, _)| *name == only) {
        Some(at) => Ok(&TARGETS[at..=at]),
        None => fail(format!(
            "'{only}' is no fuzz target; those are {}",
            TARGETS.map(|(name, _)| name).join(", ")
        )),
    }
}

fn directory() -> PathBuf {
    cargo::root().join("fuzz")
}

/// Builds all targets into `fuzz/target/`.
fn build() -> Result<Vec<Built>> {
    packages::ensure("fuzzing", &[Package::program("g++", "c++")])?;
    let version = process::output(Command::new("rustc").arg("-vV"))?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .unwrap_or_default();
    let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let has_sanitizer = has_address_sanitizer(
        &Path::new(sysroot.trim())
            .join("lib/rustlib")
            .join(host)
            .join("lib"),
    );
    let with = if has_sanitizer {
        "with"
    } else {
        "without (this compiler has none)"
    };
    progress::note(format_args!(
        "building the fuzz targets, {with} AddressSanitizer"
    ));
    let mut flags = COVERAGE.to_vec();
    if has_sanitizer {
        flags.push("-Zsanitizer=address");
    }
    let mut command = cargo::cargo("build");
    // With a target given, the flags apply only to it: programs that run during the build are built
    // without.
    command
        .args(["--release", "--locked", "--target", host])
        .current_dir(directory());
    command.env("CARGO_TARGET_DIR", directory().join("target"));
    command
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("RUSTC_BOOTSTRAP", "1");
    cargo::build(&mut command)
}

/// Whether a directory of the compiler's libraries has the sanitizer's runtime, such as
/// `librustc-stable_rt.asan.a`.
fn has_address_sanitizer(libraries: &Path) -> bool {
    let files = fs::read_dir(libraries).into_iter().flatten().flatten();
    files
        .map(|entry| entry.file_name())
        .any(|name| name.to_string_lossy().ends_with("_rt.asan.a"))
}

struct Target {
    name: &'static str,
    longest: usize,
    program: PathBuf,
}

/// A status line of libFuzzer such as `#1024 NEW cov: 401 ft: 1110 corp: 100/908b lim: 21 …`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    executions: u64,
    edges: u64,
    features: u64,
    inputs: u64,
}

impl State {
    fn parse(line: &str) -> Option<State> {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let executions = arguments.first()?.strip_prefix('#')?.parse().ok()?;
        let after = |key: &str| {
            arguments
                .iter()
                .position(|word| *word == key)
                .and_then(|at| arguments.get(at + 1))
        };
        let number = |key: &str| after(key)?.split('/').next()?.parse().ok();
        Some(State {
            executions,
            edges: number("cov:")?,
            features: number("ft:")?,
            inputs: number("corp:")?,
        })
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let State {
            executions,
            edges,
            features,
            inputs,
        } = self;
        write!(
            f,
            "{executions} executions, {edges} edges, {features} features, {inputs} inputs kept"
        )
    }
}

impl Target {
    /// Inputs kept from run to run, never committed; those from the fixtures are written again.
    fn corpus(&self) -> Result<PathBuf> {
        let corpus = made(directory().join("corpus").join(self.name))?;
        if self.name == "image" {
            corpus::grow(&corpus)?;
        }
        Ok(corpus)
    }

    /// Committed inputs.
    fn seeds(&self) -> PathBuf {
        directory().join("seeds").join(self.name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args([
            format!("-max_len={}", self.longest),
            format!("-timeout={INPUT_LIMIT}"),
        ]);
        command
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Searches for so many seconds; an input that violates a property is an error with its file.
    fn fuzz(&self, seconds: u64) -> Result<()> {
        let artifacts = made(directory().join("artifacts").join(self.name))?;
        let mut command = self.command();
        command.arg(format!("-max_total_time={seconds}"));
        command.arg(format!("-artifact_prefix={}/", artifacts.display()));
        command.args([self.corpus()?, self.seeds()]);
        let before = processor_time();
        let (state, arguments) = self.follow(&mut command)?;
        let time = processor_time().saturating_sub(before).as_secs();
        let Some(arguments) = arguments else {
            println!(
                "fuzz {}: {state}; {time} s of processor time; nothing found",
                self.name
            );
            return Ok(());
        };
        eprintln!("{arguments}");
        let mark = "Test unit written to ";
        let file = arguments
            .lines()
            .find_map(|line| line.split_once(mark))
            .map_or("(none)", |(_, file)| file);
        fail(format!(
            "fuzz {}: an input violates a property after {state}: {file}; 'cargo xtask fuzz {} -- {file}' tries it again",
            self.name, self.name
        ))
    }

    /// Runs libFuzzer to its end. Returns its message, if it failed.
    fn follow(&self, command: &mut Command) -> Result<(State, Option<String>)> {
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start the fuzz target")?;
        let (mut state, mut arguments) = (State::default(), String::new());
        let (start, mut last_note) = (Instant::now(), Instant::now());
        // Requested above, so it is there.
        for line in child
            .stderr
            .take()
            .into_iter()
            .flat_map(|stderr| BufReader::new(stderr).split(b'\n'))
        {
            let line = line.context("cannot read the fuzz target's output")?;
            let line = String::from_utf8_lossy(&line);
            match State::parse(&line) {
                Some(now) => state = now,
                None => arguments += &format!("{line}\n"),
            }
            if last_note.elapsed() > PAUSE {
                progress::note(format_args!(
                    "{}: {state} ({} s)",
                    self.name,
                    start.elapsed().as_secs()
                ));
                last_note = Instant::now();
            }
        }
        let status = child.wait().context("cannot wait for the fuzz target")?;
        Ok((state, (!status.success()).then_some(arguments)))
    }

    /// Replaces the seeds by the fewest inputs that cover everything that seeds and corpus cover,
    /// except the longest of them.
    fn minimise(&self) -> Result<()> {
        let fresh = directory().join("seeds").join(format!("{}.new", self.name));
        let _ = fs::remove_dir_all(&fresh);
        let fresh = made(fresh)?;
        let mut command = self.command();
        command
            .arg("-set_cover_merge=1")
            .arg(&fresh)
            .args([self.corpus()?, self.seeds()]);
        let (_, arguments) = self.follow(&mut command)?;
        if let Some(arguments) = arguments {
            return fail(format!(
                "fuzz {}: the inputs cannot be merged: {arguments}",
                self.name
            ));
        }
        let _ = fs::remove_dir_all(self.seeds());
        fs::rename(&fresh, self.seeds()).context("cannot place the new seeds")?;
        let (mut files, mut bytes) = (0, 0);
        for entry in fs::read_dir(self.seeds()).into_iter().flatten().flatten() {
            let size = entry.metadata().map_or(0, |metadata| metadata.len());
            if size > LONGEST_SEED {
                fs::remove_file(entry.path()).context("cannot remove a long seed")?;
                continue;
            }
            files += 1;
            bytes += size;
        }
        println!("fuzz {}: {files} seeds of {bytes} bytes", self.name);
        Ok(())
    }
}

fn made(directory: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&directory).context(format_args!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// Returns the processor time of ended children so far.
fn processor_time() -> Duration {
    // SAFETY: all zero is a valid value of this plain structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills in the structure; with these arguments it cannot fail.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_of_libfuzzer_are_parsed() {
        let line = "#188622\tREDUCE cov: 3196 ft: 8573 corp: 736/59Kb lim: 1142 exec/s: 1867 rss: 435Mb L: 5/58 MS: 1";
        let state = State {
            executions: 188_622,
            edges: 3196,
            features: 8573,
            inputs: 736,
        };
        assert_eq!(State::parse(line), Some(state));
        for other in [
            "INFO: Seed: 1",
            "#2 pulse",
            "",
            "thread panicked at src/guest/image.rs:1:1",
        ] {
            assert_eq!(State::parse(other), None, "{other}");
        }
    }

    /// Each target is a file of the fuzz workspace, and each such file is a target.
    #[test]
    fn every_target_is_known() {
        let files = fs::read_dir(directory().join("fuzz_targets")).unwrap();
        let mut there: Vec<String> = files
            .map(|file| {
                file.unwrap()
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        there.sort();
        let mut known = TARGETS.map(|(name, _)| name);
        known.sort();
        assert_eq!(there, known);
        assert!(chosen(Some("nonsense")).is_err());
        assert_eq!(chosen(Some("ring")).unwrap().len(), 1);
    }
}
