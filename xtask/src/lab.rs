//! `cargo xtask lab`: a shell inside an emulated machine.

use crate::error::Result;
use crate::host;
use crate::initramfs;
use crate::machine::{Emulated, Machine};
use crate::options::Options;
use crate::{demo, dist, progress};

/// Starts the shell on a terminal of its own, so that Ctrl-C reaches what runs in it; leaving it switches off.
const JOB: &str = "\
export PS1='\\u@\\h:\\w# ' TENDER_BIN=/bin/tender TENDER_FIXTURES=/fixtures
@SIZE@
cd /fixtures
echo 'tender and test unikernels: tender hello.hvt; \"exit\" switches off'
setsid cttyhack sh
";

pub fn run(options: &mut Options) -> Result<()> {
    let machine = match options.value("--machine")?.map(|name| Machine::parse(&name)).transpose()? {
        None => Emulated::Pi3,
        Some(Machine::Emulated(machine)) => machine,
        Some(Machine::Host) => return crate::error::fail("the lab is an emulated machine: --machine pi3, virt or pc"),
    };
    options.finish()?;
    let assets = machine.prepare()?;
    let tender = dist::binary(machine.arch())?;
    let mut archive = initramfs::base(machine, &assets, &JOB.replace("@SIZE@", &terminal_size()))?;
    archive.copy("bin/tender", &tender)?;
    archive.copy("bin/xtask", &demo::own_binary(machine.arch())?)?;
    host::pack_fixtures(&mut archive, machine.arch())?;
    progress::note(format_args!("booting {} (a few seconds); Ctrl-A X switches it off at once", machine.title()));
    machine.interactive(&assets, archive)
}

/// A serial line carries no window size, so it is told.
fn terminal_size() -> String {
    // SAFETY: winsize is plain numbers, for which zeros are a value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes one winsize, which `size` is; it fails where standard output is no terminal.
    let known = unsafe { libc::ioctl(1, libc::TIOCGWINSZ, &raw mut size) } == 0 && size.ws_col > 0;
    if known { format!("stty rows {} cols {}", size.ws_row, size.ws_col) } else { String::new() }
}
