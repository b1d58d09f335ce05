//! `cargo xtask lab`: a shell inside an emulated machine.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use crate::error::{Context, Result, fail};
use crate::host;
use crate::initramfs;
use crate::machine::{Console, Emulated, Machine, Said};
use crate::options::Options;
use crate::{demo, dist, progress};

/// A script that says nothing for this long is taken to hang.
const BATCH_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Runs what came by standard input instead of a person: a serial line would lose what is sent before it is listened to.
const BATCH: &str = "\
export TENDER_BIN=/bin/tender TENDER_FIXTURES=/fixtures
cd /fixtures
sh /lab/input
";

/// Starts the shell on a terminal of its own, so that Ctrl-C reaches what runs in it; leaving it switches off.
const JOB: &str = "\
export PS1='\\h:\\w# ' TENDER_BIN=/bin/tender TENDER_FIXTURES=/fixtures
cd /fixtures
echo 'tender and test unikernels: tender hello.hvt; \"exit\" switches off'
setsid cttyhack sh -c '@SIZE@exec sh'
";

pub fn run(options: &mut Options) -> Result<()> {
    let machine = match options
        .value("--machine")?
        .map(|name| Machine::parse(&name))
        .transpose()?
    {
        None => Emulated::Pi3,
        Some(Machine::Emulated(machine)) => machine,
        Some(Machine::Host) => {
            return fail("the lab is an emulated machine: --machine pi3, virt or pc");
        }
    };
    options.finish()?;
    let assets = machine.prepare()?;
    let tender = dist::binary(machine.arch())?;
    let typed = std::io::stdin().is_terminal();
    let job = if typed {
        JOB.replace("@SIZE@", &terminal_size())
    } else {
        BATCH.into()
    };
    let mut archive = initramfs::base(machine, &assets, &job)?;
    archive.copy("bin/tender", &tender)?;
    archive.copy("bin/xtask", &demo::own_binary(machine.arch())?)?;
    host::pack_fixtures(&mut archive, machine.arch())?;
    if typed {
        progress::note(format_args!(
            "booting {} (a few seconds); Ctrl-A X switches it off at once",
            machine.title()
        ));
        return machine.interactive(&assets, archive);
    }
    archive.text(
        "lab/input",
        &std::io::read_to_string(std::io::stdin()).context("cannot read standard input")?,
    );
    batch(machine.boot(&assets, archive)?)
}

/// Shows what the script prints; its exit status decides.
fn batch(mut console: Console) -> Result<()> {
    loop {
        match console.next(Instant::now() + BATCH_LIMIT)? {
            Said::Line(line) => println!("{line}"),
            Said::Mark(mark) if mark == "done 0" => return Ok(()),
            Said::Mark(mark) => {
                return fail(format!(
                    "the script in the emulated machine failed ({mark})"
                ));
            }
        }
    }
}

/// A serial line carries no window size, so it is told.
fn terminal_size() -> String {
    // SAFETY: winsize is plain numbers, for which zeros are a value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes one winsize, which `size` is; it fails where standard output is no terminal.
    let known = unsafe { libc::ioctl(1, libc::TIOCGWINSZ, &raw mut size) } == 0 && size.ws_col > 0;
    if known {
        format!("stty rows {} cols {}; ", size.ws_row, size.ws_col)
    } else {
        String::new()
    }
}
