//! Building: cargo, the compilers and their Debian packages, the test unikernels.

pub mod arch;
pub mod cargo;
pub mod elf;
pub mod fixtures;
pub mod packages;
pub mod toolchain;
