//! The process around [`tender`]: arguments in, exit status out, the tender's own words on stderr.

use std::io::Write;
use std::process::ExitCode;

use tender::cli::{self, Command, Config};
use tender::{Outcome, signal};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Command::Run(config)) => run(&config),
        Ok(Command::Help(text)) => print(&text),
        Ok(Command::Version) => print(concat!("tender ", env!("CARGO_PKG_VERSION"), "\nABI version 2\n")),
        Err(error) => fail(format_args!("{error}")),
    }
}

fn run(config: &Config) -> ExitCode {
    start_log(config);
    match tender::run(config) {
        Ok(Outcome::Halted(status)) => ExitCode::from(status),
        Ok(Outcome::Signal(number)) => {
            signal::die_by(number);
            ExitCode::FAILURE
        }
        Err(error) => fail(format_args!("{}: {error}", config.unikernel.display())),
    }
}

/// RUST_LOG decides what is said; without it, `-v` and `-q` do.
fn start_log(config: &Config) {
    env_logger::Builder::new()
        .filter_level(config.verbosity.level())
        .parse_default_env()
        .format(|target, record| {
            writeln!(target, "tender: {}: {}", record.level().as_str().to_lowercase(), record.args())
        })
        .init();
}

/// Help that cannot be printed helps nobody, but is no failure of the tender either.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Every failure of the tender is one line and status 1, which orchestrators rely on.
fn fail(message: std::fmt::Arguments<'_>) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "tender: {message}");
    ExitCode::FAILURE
}
