//! Memory of idle guests without devices, several at the same time, of a small and of a large
//! image. In an emulated machine it is measured with and without transparent huge pages.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use super::inside::{self, Bench};
use super::proc::Memory;
use super::sample::{Samples, Subject};
use super::starts::MEMORY;
use crate::base::error::{Context, Result, fail};

pub const UNIKERNEL: &str = "clock.hvt";

/// Makes it sleep for an hour.
const SLEEP: &str = "poll=3600000000000";

const GUESTS: usize = 8;

/// Time from the first output of the last guest to the measurement: all sleep then.
pub const SETTLE: Duration = Duration::from_millis(300);

/// Transparent huge pages: `always [madvise] never`.
const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

pub fn measure(bench: &Bench) -> Result<()> {
    let setting = fs::read_to_string(SETTING).unwrap_or_default();
    let current = active(&setting);
    if !bench.emulated || current.is_empty() {
        return with_setting(bench, current);
    }
    for wanted in ["always", "madvise", "never"] {
        set(wanted)?;
        with_setting(bench, wanted)?;
    }
    set(current)
}

/// Returns the setting in brackets.
fn active(text: &str) -> &str {
    let rest = text.split_once('[').map_or("", |(_, rest)| rest);
    rest.split_once(']').map_or("", |(setting, _)| setting)
}

/// Only for emulated machines: it concerns every process.
fn set(setting: &str) -> Result<()> {
    fs::write(SETTING, setting).context(format_args!("cannot write '{setting}' to {SETTING}"))
}

fn with_setting(bench: &Bench, setting: &str) -> Result<()> {
    let suffix = match setting {
        "" => String::new(),
        setting => format!(", THP {setting}"),
    };
    let images = [
        ("idle", bench.fixture(UNIKERNEL)),
        ("idle, large image", bench.large(UNIKERNEL)),
    ];
    let what = format!("memory of {GUESTS} idle guests{suffix}");
    bench.take_turns(&what, 1, |samples, subject, tender| {
        images.iter().try_for_each(|(name, unikernel)| {
            together(
                samples,
                subject,
                tender,
                unikernel,
                &format!("{name}{suffix}"),
            )
        })
    })
}

fn together(
    samples: &mut Samples,
    subject: Subject,
    tender: &Path,
    unikernel: &Path,
    name: &str,
) -> Result<()> {
    let guests: Result<Vec<Guest>> = (0..GUESTS)
        .map(|_| Guest::start(subject, tender, unikernel))
        .collect();
    let guests = guests?;
    std::thread::sleep(SETTLE);
    for guest in &guests {
        let memory = Memory::of(guest.id())?;
        samples.add(&format!("{name}: RSS, KiB"), subject, memory.resident);
        samples.add(&format!("{name}: PSS, KiB"), subject, memory.proportional);
        samples.add(&format!("{name}: own, KiB"), subject, memory.own);
    }
    Ok(())
}

/// A sleeping guest. Drop kills it.
pub struct Guest {
    tender: Child,
    _output: BufReader<ChildStdout>,
}

impl Guest {
    /// Starts it and waits for its first line: then it sleeps, or is about to.
    pub fn start(subject: Subject, tender: &Path, unikernel: &Path) -> Result<Guest> {
        let mut command = inside::command(subject, tender, MEMORY, &[], unikernel);
        let mut tender = command
            .arg(SLEEP)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the tender")?;
        let Some(output) = tender.stdout.take() else {
            return fail("its output is no pipe");
        };
        let mut output = BufReader::new(output);
        let mut line = String::new();
        let read = output.read_line(&mut line);
        let guest = Guest {
            tender,
            _output: output,
        };
        if read.context("cannot read the unikernel's output")? == 0 {
            return fail("the unikernel ended without output");
        }
        Ok(guest)
    }

    /// Its process ID.
    pub fn id(&self) -> u32 {
        self.tender.id()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only if it was already waited for.
        let _ = self.tender.kill();
        let _ = self.tender.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::active;

    #[test]
    fn the_active_setting_is_in_brackets() {
        assert_eq!(active("always [madvise] never\n"), "madvise");
        assert_eq!(active(""), "");
    }
}
