//! The machines that QEMU plays, each with a real /dev/kvm of its own, and how one is booted and followed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::arch::Arch;
use crate::assets::{self, Assets};
use crate::error::{Result, fail};
use crate::initramfs::{Archive, MARK};
use crate::packages::{self, Package};
use crate::process::{Followed, Next};
use crate::progress;
use crate::toolchain::StaticToolchain;

/// Where something runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    Host,
    Emulated(Emulated),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emulated {
    /// Raspberry Pi 3B with its stock device tree: no vGIC, nVHE, as on the real board.
    Pi3,
    /// An ARM64 server: VHE, GICv3.
    Virt,
    /// x86_64 with AMD's virtualisation: every instruction, and faults as on bare metal.
    Pc,
}

/// What the clock of an emulated machine goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    Real,
    /// One nanosecond an instruction: slow, but the same in every run.
    Instructions,
}

impl Machine {
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "host" => Ok(Machine::Host),
            "pi3" => Ok(Machine::Emulated(Emulated::Pi3)),
            "virt" => Ok(Machine::Emulated(Emulated::Virt)),
            "pc" => Ok(Machine::Emulated(Emulated::Pc)),
            other => fail(format!(
                "'{other}' is no machine; there are host, pi3, virt and pc"
            )),
        }
    }
}

// `thread=single`: with more virtual CPUs than real ones, QEMU's threads spend their time waiting for each other.
// The features taken off `max` cost much to emulate and are not what is tested.
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
/// Additions to the kernel's command line, such as `kvm-arm.mode=protected`.
const APPEND: &str = "TENDER_LAB_APPEND";

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

impl Emulated {
    pub fn arch(self) -> Arch {
        match self {
            Emulated::Pi3 | Emulated::Virt => Arch::Aarch64,
            Emulated::Pc => Arch::X86_64,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Emulated::Pi3 => "pi3",
            Emulated::Virt => "virt",
            Emulated::Pc => "pc",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Emulated::Pi3 => "the emulated Raspberry Pi 3B",
            Emulated::Virt => "the emulated ARM64 server",
            Emulated::Pc => "the emulated x86_64 machine",
        }
    }

    /// Kernel modules in the order of loading, with their arguments.
    pub fn modules(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // The watchdog is what switches a Pi off.
            Emulated::Pi3 => &[("bcm2835-rng", ""), ("tun", ""), ("bcm2835_wdt", "")],
            Emulated::Virt => &[("tun", "")],
            Emulated::Pc => &[
                ("irqbypass", ""),
                ("kvm", ""),
                ("kvm-amd", "npt=1"),
                ("tun", ""),
            ],
        }
    }

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

    /// Sees to the emulator, to what builds programs for it, and to the machine's files.
    pub fn prepare(self) -> Result<Assets> {
        let mut wanted = vec![self.emulator()];
        wanted.extend(StaticToolchain::packages(self.arch())?);
        packages::ensure(self.title(), &wanted)?;
        Assets::get(self.arch())
    }

    /// The emulator's command line, but for what becomes of the console.
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
        let line = format!(
            "console={console} rdinit=/init quiet loglevel=2 panic=-1 mitigations=off {more}"
        );
        qemu.args(["-append", &line, "-display", "none", "-no-reboot"]);
        qemu
    }

    /// Boots with the console on our own terminal, until the machine is switched off.
    pub fn interactive(self, assets: &Assets, archive: Archive) -> Result<()> {
        let initramfs = self.write(archive)?;
        // The Pi's first UART belongs to its Bluetooth chip, says the device tree: it prints, but is no terminal. Its
        // second is one, as on the real board.
        let (console, first) = match self {
            Emulated::Pi3 => ("ttyS1,115200", &["-serial", "null"][..]),
            _ => (self.console(), &[][..]),
        };
        let mut qemu = self.command(assets, &initramfs, console);
        // "mon:" makes the terminal raw, Ctrl-C the guest's own, and Ctrl-A X the way out.
        let ended = crate::process::run(qemu.args(first).args(["-serial", "mon:stdio"]));
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
            // Later options win: with one processor nothing depends on how threads take turns.
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
                    Said::Mark(mark) if mark == "up" => return Ok(()),
                    Said::Mark(mark) => {
                        return fail(format!("{} said '{mark}' before it was up", self.title()));
                    }
                    Said::Line(_) => {}
                }
            }
        });
        // Read to its end by now; the next boot writes its own.
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

/// A boot takes 3 to 10 s, that of a whole Debian 30 to 70; a machine that is not up after this will not come up.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// The console of a running machine. Dropping it switches the machine off.
pub struct Console {
    machine: Emulated,
    qemu: Followed,
    last: String,
}

/// What a machine says: a line of output, or something of /init's to us.
pub enum Said {
    Line(String),
    Mark(String),
}

impl Console {
    /// The next thing said. That the machine ends, or says nothing more by the deadline, is an error: it has to say
    /// `done`.
    pub fn next(&mut self, deadline: Instant) -> Result<Said> {
        let title = self.machine.title();
        match self.qemu.next(deadline) {
            Next::Line(line) => {
                // A test that dies in the middle of a line leaves the mark behind its words.
                if let Some((_, mark)) = line.split_once(MARK) {
                    return Ok(Said::Mark(mark.trim().to_string()));
                }
                self.last.clone_from(&line);
                Ok(Said::Line(line))
            }
            Next::End => fail(format!(
                "{title} switched off before its work was done; its last words: {}",
                self.last
            )),
            Next::TimedOut => fail(format!(
                "{title} took too long and was switched off; its last words: {}",
                self.last
            )),
        }
    }
}
