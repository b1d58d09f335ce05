//! What ends a run before or beside the guest's own HALT, in the words that the operator gets to read. Each message
//! follows the unikernel's name.

use std::fmt::{self, Write};
use std::io;

use crate::arch;
use crate::debug;
use crate::debug::core;
use crate::devices;
use crate::exit::Broken;
use crate::guest::boot_info::TooLong;
use crate::guest::era::Era;
use crate::guest::image;
use crate::guest::image::Machine;
use crate::host::device_file;
use crate::host::files;
use crate::memory;
use crate::metrics;
use crate::sandbox;

/// A message for the operator, whatever names and paths are in it: nothing in them starts another line, or speaks to
/// the terminal.
pub fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    // A string has room for everything.
    let _ = OneLine(&mut line).write_str(message);
    line
}

/// Makes [`one_line`] of what is written to it.
pub struct OneLine<'w, W>(pub &'w mut W);

impl<W: Write> Write for OneLine<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| {
            if c.is_control() { write!(self.0, "{}", c.escape_default()) } else { self.0.write_char(c) }
        })
    }
}

/// Why a unikernel could not be run, or not to its end.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum Error {
    #[error("cannot be opened: {source}; give the path of an hvt unikernel that this user may read")]
    Open { source: io::Error },
    #[error("is a {0}; an hvt unikernel (usually NAME.hvt) was expected")]
    NotAFile(&'static str),
    #[error("{0}")]
    Shared(#[from] files::Shared),
    #[error("{0}")]
    Image(#[from] image::Error),
    #[error("is a unikernel for {image}, and this host is {host}; build it for {host}")]
    Machine { image: Machine, host: Machine },
    #[error("does not fit into {given} MiB of memory; it needs at least --mem={needed}")]
    TooLittleMemory { given: u64, needed: u64 },
    #[error("needs {needed} MiB of memory, and 4096 MiB are the most a guest can have; build a smaller one")]
    TooLarge { needed: u64 },
    #[error("the guest's command line has {0} bytes, and 8191 are the most; give it fewer words, or shorter ones")]
    CommandLine(usize),
    #[error(
        "'{name}' names a device, and devices of this unikernel have no names ({era}); use --net=IFACE, --disk=PATH"
    )]
    UnnamedDevices { name: String, era: Era },
    #[error("{0}")]
    Devices(#[from] devices::Error),
    #[error("{0}")]
    Tables(#[from] arch::TablesFull),
    #[error("{0}")]
    Memory(#[from] memory::Error),
    #[error("{0}")]
    Range(#[from] memory::RangeError),
    #[error("cannot open /dev/kvm: {source}; {hint}")]
    NoKvm { source: io::Error, hint: String },
    #[error("/dev/kvm speaks version {0} of its interface, not 12; boot a Linux with a KVM of its own")]
    KvmVersion(i32),
    #[error("/dev/kvm is not KVM's device; make it anew (mknod /dev/kvm c 10 232)")]
    NotKvm,
    #[error("{0}")]
    Arch(arch::Error),
    #[error(
        "cannot share the network interfaces with the ring's thread: {0}; raise 'ulimit -n', or do without it \
         (--net-ring=off)"
    )]
    Descriptors(io::Error),
    #[error("cannot catch signals: {0}")]
    Signals(vmm_sys_util::errno::Error),
    #[error("cannot start the timer of --timeout: {0}; leave the option out")]
    Timer(io::Error),
    #[error("was ended after {seconds} s, as --timeout says ({registers})")]
    Timeout { seconds: u32, registers: String },
    #[error("{error} ({registers})")]
    Host { error: arch::Error, registers: String },
    #[error("{0}")]
    Sandbox(#[from] sandbox::Error),
    #[error("{0}")]
    Metrics(#[from] metrics::Error),
    #[error("{0}")]
    Debugger(#[from] debug::Error),
    #[error("was ended by its debugger")]
    Killed,
    #[error("{0}")]
    Core(#[from] core::Error),
    #[error("{broken} ({registers})")]
    Guest { broken: Broken, registers: String },
}

impl From<TooLong> for Error {
    fn from(TooLong(size): TooLong) -> Error {
        Error::CommandLine(size)
    }
}

impl Error {
    /// Why /dev/kvm did not open, with what to do about it.
    pub fn no_kvm(errno: i32) -> Error {
        let hint = match errno {
            libc::ENOENT | libc::ENODEV | libc::ENXIO if !device_file::KVM.has_driver() => {
                "the kernel has no KVM here: it needs virtualisation enabled in the firmware, and on ARM64 to be \
                 booted in EL2 (hyp mode)"
                    .to_owned()
            }
            _ => device_file::KVM.hint(errno),
        };
        Error::NoKvm { source: io::Error::from_raw_os_error(errno), hint }
    }
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_message_is_one_line_and_harmless_to_a_terminal() {
        assert_eq!(one_line("a\nb\r\tc\x1b[31m\u{9b}\0"), "a\\nb\\r\\tc\\u{1b}[31m\\u{9b}\\u{0}");
        assert_eq!(one_line("disk 'für mich'"), "disk 'für mich'");
    }
}
