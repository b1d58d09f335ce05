//! Entry and exit of the process: arguments in, exit status out, log lines on stderr. The rest is
//! in [`tender`].

#![no_main]
#![deny(
    clippy::dbg_macro,
    clippy::expect_used,
    clippy::panic,
    clippy::todo,
    clippy::unwrap_used,
    unreachable_pub,
    unsafe_code
)]

use std::ffi::{OsStr, OsString, c_char, c_int};
use std::io::{IsTerminal, Write};

use tender::Outcome;
use tender::cli::config_file;
use tender::cli::{self, Command, Format, Inspection};
use tender::config::Config;
use tender::devices::console;
use tender::host::descriptors;
use tender::host::files::{Files, Use};
use tender::host::signal;
use tender::host::start;
use tender::inspect::elftool;
use tender::report::log_lines::{self, Line, Stderr, Subject};
use tender::report::message::Message;

/// An exit status.
type Status = u8;

/// The C library's entry point; see [`start`] for why it is not Rust's.
#[expect(unsafe_code, reason = "the C library calls it")]
// SAFETY: no other function has this name.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, argv: *const *const c_char) -> c_int {
    start::prepare();
    // SAFETY: both arguments come unchanged from the C library.
    let arguments = unsafe { start::arguments(count, argv) };
    std::process::exit(run_command(arguments).into())
}

fn run_command(arguments: Vec<OsString>) -> Status {
    let program = arguments.first().cloned().unwrap_or_default();
    if cli::name(&program) == elftool::NAME {
        return elftool(&arguments[1..]);
    }
    // Errors use that format, too.
    cli::log_format(&arguments).set_global();
    execute(
        cli::parse(arguments).map_err(config_file::Error::from),
        None,
        &program,
    )
}

fn execute(
    command: Result<Command, config_file::Error>,
    config_file: Option<Use>,
    program: &OsStr,
) -> Status {
    match command {
        Ok(Command::Run(mut config)) => {
            config.debugging.as_solo5_hvt = cli::is_solo5_hvt(program);
            run(&config, config_file)
        }
        Ok(Command::Check(config)) => check(&config, config_file),
        Ok(Command::Configured(configured)) => match config_file::complete(configured) {
            Ok((command, config_file)) => execute(Ok(command), config_file, program),
            Err(error) => execute(Err(error), None, program),
        },
        Ok(Command::Help(text)) => print(&text),
        Ok(Command::Inspect(inspection)) => inspect(&inspection),
        Ok(Command::Version { json: true }) => print(&cli::version_json()),
        Ok(Command::Version { json: false }) => version(program),
        Err(error) => {
            let messages = error.messages();
            messages
                .iter()
                .fold(1, |_, message| fail(format_args!("{message}")))
        }
    }
}

/// Finds the files that `config` names, while descriptors still have the caller's numbers. Then
/// closes all descriptors that `config` does not name.
fn find_files(config: &Config, config_file: Option<Use>) -> Files {
    let files = Files::find(config, config_file);
    // A name that no descriptor has is reported later, with the device that it is for.
    let inherited = config.inherited().filter_map(|fd| fd.number().ok());
    descriptors::close_inherited(inherited.chain(files.descriptors()));
    files
}

fn run(config: &Config, config_file: Option<Use>) -> Status {
    let is_configured = config_file.is_some();
    let mut files = find_files(config, config_file);
    start_log(config);
    match tender::run_with(config, &mut files) {
        Ok(Outcome::Halted(status)) => status,
        Ok(Outcome::Signal(number)) => {
            signal::raise_default(number);
            // The first process of a container does not die by its own signals. So it exits with
            // the status that a shell would report.
            128 + number as u8
        }
        Err(error) => {
            let unikernel = config.unikernel.display();
            // A start ends at its first error, and a file has room for many.
            let hint = match error {
                tender::Error::Start { .. } if is_configured => {
                    "; add --check to list every problem"
                }
                _ => "",
            };
            let subject = Subject {
                device: error.device(),
                cause: Some(error.cause()),
            };
            fail_with(subject, format_args!("{unikernel}: {error}{hint}"))
        }
    }
}

fn check(config: &Config, config_file: Option<Use>) -> Status {
    let mut files = find_files(config, config_file);
    start_log(config);
    let report = tender::check::check(config, &mut files);
    let text = if config.output.json {
        report.to_json()
    } else {
        report.to_text()
    };
    if let Err(error) = console::print(text.as_bytes()) {
        return fail(format_args!("cannot write to standard output: {error}"));
    }
    u8::from(!report.would_start())
}

/// Starts logging. RUST_LOG sets the level; without it, `-v` and `-q` do.
fn start_log(config: &Config) {
    let mut builder = env_logger::Builder::new();
    config.output.log_format.set_global();
    if log_lines::are_json() {
        log_lines::name_run(&config.name());
    }
    builder.filter_level(config.verbosity.level());
    // gdbstub's debug output is for authors of stubs: gdb tries packets that this stub lacks.
    builder.filter_module("gdbstub", log::LevelFilter::Warn);
    builder.format(|target, record| target.write_all(Line::record(record).bytes()));
    let filters = std::env::var("RUST_LOG").unwrap_or_default();
    // Parsed first, because env_logger reports errors in its own format and panics if it cannot.
    let malformed = env_filter::Builder::new().try_parse(&filters).err();
    if malformed.is_none() {
        builder.parse_filters(&filters);
    }
    builder
        .target(env_logger::Target::Pipe(Box::new(Stderr)))
        .init();
    if let Some(error) = malformed {
        log::warn!("RUST_LOG is ignored: {error}");
    }
}

fn inspect(inspection: &Inspection) -> Status {
    let file = inspection.unikernel.display();
    let report = match tender::inspect::inspect(&inspection.unikernel) {
        Ok(report) => report,
        Err(error) => return fail(format_args!("{file}: {}", Message::of(&error))),
    };
    let text = match inspection.format {
        Format::Text => Ok(report.to_text()),
        Format::Json => Ok(report.to_json()),
        Format::Toml => report.to_toml(),
        Format::Oci => report.to_oci(),
    };
    let text = match text {
        Ok(text) => text,
        Err(error) => return fail(format_args!("{file}: {}", Message::of(&error))),
    };
    if let Err(error) = console::print(text.as_bytes()) {
        return fail(format_args!(
            "{file}: cannot write to standard output: {error}"
        ));
    }
    report
        .refusal
        .map_or(0, |reason| fail(format_args!("{file}: {reason}")))
}

/// Prints the version on stdout. Programs that know upstream's tenders read stderr, so the version
/// is printed there as well, unless stderr is a terminal: a person sees it once.
fn version(program: &OsStr) -> Status {
    if !std::io::stderr().is_terminal() {
        let _ = std::io::stderr().write_all(cli::upstream_version(program).as_bytes());
    }
    print(&cli::version(program))
}

/// Runs as `solo5-elftool`: a result on stdout, or an output file.
fn elftool(arguments: &[OsString]) -> Status {
    let answer = match elftool::run(arguments) {
        Ok(answer) => answer,
        Err(error) => return fail(format_args!("{}", Message::of(&error))),
    };
    match console::print(answer.as_bytes()) {
        Ok(()) => 0,
        Err(error) => fail(format_args!("cannot write to standard output: {error}")),
    }
}

/// Prints text; a failure to print is not an error of the tender.
fn print(text: &str) -> Status {
    let _ = console::print(text.as_bytes());
    0
}

/// Prints one line and returns status 1 for every failure of the tender; orchestrators rely on
/// this.
fn fail(message: std::fmt::Arguments<'_>) -> Status {
    fail_with(Subject::default(), message)
}

/// Fails as [`fail`] does, with members for JSON lines.
fn fail_with(subject: Subject<'_>, message: std::fmt::Arguments<'_>) -> Status {
    let _ = Stderr.write_all(Line::fatal(subject, message).bytes());
    1
}
