//! How QEMU boots an emulated machine, each with a real /dev/kvm, and how its console is followed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::base::error::{Result, fail};
use crate::base::process::{self, Followed, Next};
use crate::base::progress;
use crate::build::arch::Arch;
use crate::build::packages::{self, Package};
use crate::build::toolchain::StaticToolchain;
use crate::machines::assets::{self, Assets};
use crate::machines::initramfs::{Archive, MARK};
use crate::machines::machine::Emulated;

/// The clock of an emulated machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    Real,
    /// One nanosecond per instruction: slow, but the same in every run.
    Instructions,
}

// `thread=single`: with more virtual CPUs than real ones, QEMU's threads spend their time waiting for each other.
// The features removed from `max` are expensive to emulate and are not tested.
const PI3: &[&str] = &[
    "-M",
    "raspi3b",
    "-accel",
    "tcg,thread=single",
    "-net",
    "none",
];
const VIRT: &[&str] = &[
    "-M",
    "virt,virtualization=on,gic-version=3",
    "-cpu",
    "max,pauth=off,sve=off,sme=off,lpa2=off",
    "-smp",
    "2",
    "-m",
    "1024",
    "-accel",
    "tcg,thread=single",
    "-net",
    "none",
];
const PC: &[&str] = &[
    "-cpu",
    "qemu64,+svm,+npt",
    "-m",
    "1024",
    "-accel",
    "tcg",
    "-nic",
    "none",
];

/// Additions to the kernel's command line, such as `kvm-arm.mode=protected`.
const APPEND: &str = "TENDER_LAB_APPEND";

impl Emulated {
    fn emulator(self) -> Package {
        match self.arch() {
            Arch::Aarch64 => Package::program("qemu-system-arm", "qemu-system-aarch64"),
            Arch::X86_64 => Package::program("qemu-system-x86", "qemu-system-x86_64"),
        }
    }

    /// The console that prints fastest.
    fn console(self) -> &'static str {
        match self {
            Emulated::Pi3 | Emulated::Virt => "ttyAMA0",
            Emulated::Pc => "ttyS0",
        }
    }

    /// Prepares the emulator, the tools that build programs for it, and the machine's files.
    pub fn prepare(self) -> Result<Assets> {
        let mut wanted = vec![self.emulator()];
        wanted.extend(StaticToolchain::packages(self.arch())?);
        packages::ensure(self.title(), &wanted)?;
        Assets::get(self.arch())
    }

    /// The emulator's command line, except the console's destination.
    fn command(self, assets: &Assets, initramfs: &Path, console: &str) -> Command {
        let (program, arguments) = match self {
            Emulated::Pi3 => ("qemu-system-aarch64", PI3),
            Emulated::Virt => ("qemu-system-aarch64", VIRT),
            Emulated::Pc => ("qemu-system-x86_64", PC),
        };
        let mut qemu = Command::new(program);
        qemu.args(arguments)
            .arg("-kernel")
            .arg(assets.file("vmlinuz"))
            .arg("-initrd")
            .arg(initramfs);
        if self == Emulated::Pi3 {
            qemu.arg("-dtb").arg(assets.file("bcm2837-rpi-3-b.dtb"));
        }
        let more = std::env::var(APPEND).unwrap_or_default();
        // On a busy host, the kernel may find the emulated TSC unstable. Each reading of the clock is
        // a system call then, which filters in the tests reject.
        let clock = match self.arch() {
            Arch::Aarch64 => "",
            Arch::X86_64 => "tsc=reliable",
        };
        let line = format!(
            "console={console} rdinit=/init quiet loglevel=2 panic=-1 mitigations=off {clock} {more}"
        );
        qemu.args(["-append", &line, "-display", "none", "-no-reboot"]);
        qemu
    }

    /// Boots with the console on our terminal, until the machine is switched off.
    pub fn interactive(self, assets: &Assets, archive: Archive) -> Result<()> {
        let initramfs = self.write(archive)?;
        // The Pi's first UART belongs to its Bluetooth chip, according to the device tree: it
        // prints, but is no terminal. Its second is one, as on the real board.
        let (console, first) = match self {
            Emulated::Pi3 => ("ttyS1,115200", &["-serial", "null"][..]),
            _ => (self.console(), &[][..]),
        };
        let mut qemu = self.command(assets, &initramfs, console);
        // "mon:" makes the terminal raw, passes Ctrl-C to the guest, and makes Ctrl-A X the way
        // out.
        let ended = process::run(qemu.args(first).args(["-serial", "mon:stdio"]));
        let _ = std::fs::remove_file(initramfs);
        ended
    }

    /// Boots, and follows the console.
    pub fn boot(self, assets: &Assets, archive: Archive) -> Result<Console> {
        self.boot_by(Clock::Real, assets, archive)
    }

    /// Boots with a clock of either kind, and follows the console.
    pub fn boot_by(self, clock: Clock, assets: &Assets, archive: Archive) -> Result<Console> {
        let initramfs = self.write(archive)?;
        let mut qemu = self.command(assets, &initramfs, self.console());
        if clock == Clock::Instructions {
            // Later options win: with one processor nothing depends on the scheduling of threads.
            qemu.args(["-icount", "shift=0", "-smp", "1"]);
        }
        qemu.args(["-serial", "stdio", "-monitor", "none"])
            .stdin(Stdio::null());
        let qemu = Followed::start(&mut qemu)?;
        let start = Instant::now();
        let mut console = Console {
            machine: self,
            qemu,
            last: String::new(),
        };
        let up = progress::during(&format!("waiting for {} to boot", self.title()), || {
            loop {
                match console.next(start + BOOT_LIMIT)? {
                    Event::Mark(mark) if mark == "up" => return Ok(()),
                    Event::Mark(mark) => {
                        return fail(format!("{} sent '{mark}' before it was up", self.title()));
                    }
                    Event::Line(_) => {}
                }
            }
        });
        // Already read to its end; the next boot writes a new one.
        let _ = std::fs::remove_file(initramfs);
        up?;
        progress::note(format_args!(
            "{} is up after {:.1} s",
            self.title(),
            start.elapsed().as_secs_f32()
        ));
        Ok(console)
    }

    fn write(self, archive: Archive) -> Result<std::path::PathBuf> {
        let path = assets::lab_dir()?.join(format!(
            "initramfs-{}.{}.cpio",
            self.name(),
            std::process::id()
        ));
        archive.write(&path)?;
        Ok(path)
    }
}

/// Boot limit. A boot takes 3 to 10 s, that of a whole Debian 30 to 70 s.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// The console of a running machine. Drop switches the machine off.
pub struct Console {
    machine: Emulated,
    qemu: Followed,
    last: String,
}

/// An event of a machine: a line of output, or a mark of /init.
pub enum Event {
    Line(String),
    Mark(String),
}

impl Console {
    /// Waits for the next event. The end of the machine, or silence until the deadline, is an
    /// error: the machine must send `done`.
    pub fn next(&mut self, deadline: Instant) -> Result<Event> {
        let title = self.machine.title();
        match self.qemu.next(deadline) {
            Next::Line(line) => {
                // A test that dies in the middle of a line leaves the mark after its text.
                if let Some((_, mark)) = line.split_once(MARK) {
                    return Ok(Event::Mark(mark.trim().to_string()));
                }
                self.last.clone_from(&line);
                Ok(Event::Line(line))
            }
            Next::End => fail(format!(
                "{title} switched off before its work was done; its last lines: {}",
                self.last
            )),
            Next::TimedOut => fail(format!(
                "{title} took too long and was switched off; its last lines: {}",
                self.last
            )),
        }
    }

    /// Passes each line to `show` until the job is done. Fails if the job fails, or if no line
    /// arrives for `silence`; the error begins with `what`.
    pub fn follow(
        mut self,
        what: &str,
        silence: Duration,
        mut show: impl FnMut(String),
    ) -> Result<()> {
        loop {
            match self.next(Instant::now() + silence)? {
                Event::Line(line) => show(line),
                Event::Mark(mark) if mark == "done 0" => return Ok(()),
                Event::Mark(mark) => {
                    return fail(format!(
                        "{what} failed inside {} ({mark})",
                        self.machine.title()
                    ));
                }
            }
        }
    }
}
