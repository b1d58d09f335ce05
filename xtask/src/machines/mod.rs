//! Places to run unikernels: this machine with its networks, and the emulated ones.

pub mod assets;
pub mod engine;
pub mod host;
pub mod initramfs;
pub mod lab;
pub mod machine;
pub mod net;
pub mod qemu;
