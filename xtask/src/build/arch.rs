//! The two architectures and their names.

use crate::base::error::{Result, fail};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    Aarch64,
    X86_64,
}

impl Arch {
    pub const ALL: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

    /// The architecture this program runs on.
    pub fn host() -> Result<Self> {
        Self::parse(std::env::consts::ARCH)
    }

    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "aarch64" => Ok(Arch::Aarch64),
            "x86_64" => Ok(Arch::X86_64),
            other => fail(format!(
                "'{other}' is no architecture of tender; it has aarch64 and x86_64"
            )),
        }
    }

    /// The name in Rust and in the kernel (`uname -m`).
    pub fn name(self) -> &'static str {
        match self {
            Arch::Aarch64 => "aarch64",
            Arch::X86_64 => "x86_64",
        }
    }

    /// The name in Debian packages.
    pub fn debian(self) -> &'static str {
        match self {
            Arch::Aarch64 => "arm64",
            Arch::X86_64 => "amd64",
        }
    }

    /// The ELF machine number.
    pub fn elf_machine(self) -> u16 {
        match self {
            Arch::Aarch64 => 183,
            Arch::X86_64 => 62,
        }
    }
}
