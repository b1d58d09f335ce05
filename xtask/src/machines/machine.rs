//! The kinds of machines, and what distinguishes them.

use crate::base::error::{Result, fail};
use crate::base::options::Options;
use crate::build::arch::Arch;

/// A place to run something.
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

impl Machine {
    /// Takes the option `--machine`.
    pub fn option(options: &mut Options) -> Result<Option<Self>> {
        let name = options.value("--machine")?;
        name.map(|name| Machine::parse(&name)).transpose()
    }

    fn parse(name: &str) -> Result<Self> {
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
            // The watchdog switches a Pi off.
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
}
