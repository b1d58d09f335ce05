//! `cargo xtask lab`: a shell inside an emulated machine.

use std::io::IsTerminal;
use std::time::Duration;

use crate::base::error::{Context, Result, fail};
use crate::base::options::Options;
use crate::base::progress;
use crate::machines::initramfs;
use crate::machines::machine::{Emulated, Machine};

/// A script without output for this long is considered hung.
const BATCH_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Runs standard input instead of a person: a serial line would lose bytes that are sent before a
/// reader exists.
const BATCH: &str = "\
export TENDER_BIN=/bin/tender TENDER_FIXTURES=/fixtures
cd /fixtures
sh /lab/input
";

/// Starts the shell on a separate terminal, so that Ctrl-C reaches its programs; leaving it
/// switches the machine off.
const JOB: &str = "\
export PS1='\\h:\\w# ' TENDER_BIN=/bin/tender TENDER_FIXTURES=/fixtures
cd /fixtures
echo 'tender and test unikernels: tender hello.hvt; \"exit\" switches off'
setsid cttyhack sh -c '@SIZE@exec sh'
";

pub fn run(options: &mut Options) -> Result<()> {
    let machine = match Machine::option(options)? {
        None => Emulated::Pi3,
        Some(Machine::Emulated(machine)) => machine,
        Some(Machine::Host) => {
            return fail("the lab is an emulated machine: --machine pi3, virt or pc");
        }
    };
    options.finish()?;
    let assets = machine.prepare()?;
    let typed = std::io::stdin().is_terminal();
    let job = if typed {
        JOB.replace("@SIZE@", &terminal_size())
    } else {
        BATCH.into()
    };
    let mut archive = initramfs::with_tender(machine, &assets, &job)?;
    if typed {
        progress::note(format_args!(
            "booting {} (a few seconds); Ctrl-A X switches it off immediately",
            machine.title()
        ));
        return machine.interactive(&assets, archive);
    }
    archive.text(
        "lab/input",
        &std::io::read_to_string(std::io::stdin()).context("cannot read standard input")?,
    );
    machine
        .boot(&assets, archive)?
        .follow("the script", BATCH_LIMIT, |line| println!("{line}"))
}

/// A serial line carries no window size, so it is passed to the shell.
fn terminal_size() -> String {
    // SAFETY: winsize is plain numbers, for which zeros are a value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes one winsize, which `size` is; it fails where standard output is no
    // terminal.
    let known = unsafe { libc::ioctl(1, libc::TIOCGWINSZ, &raw mut size) } == 0 && size.ws_col > 0;
    if known {
        format!("stty rows {} cols {}; ", size.ws_row, size.ws_col)
    } else {
        String::new()
    }
}
