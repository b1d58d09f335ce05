//! Why a unikernel cannot be set up.

use std::io;

use crate::guest::era::Era;
use crate::guest::image::Machine;
use crate::host::device_file;

/// An error of setup itself; those of other rooms pass through it unchanged.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum Error {
    #[error(
        "cannot be opened: {source}; give the path of an hvt unikernel that this user may read"
    )]
    Open { source: io::Error },
    #[error("is a {0}; an hvt unikernel (usually NAME.hvt) was expected")]
    NotAFile(&'static str),
    #[error("is a unikernel for {image}, and this host is {host}; build it for {host}")]
    Machine { image: Machine, host: Machine },
    #[error("does not fit into {given} MiB of memory; it needs at least --mem={needed}")]
    TooLittleMemory { given: u64, needed: u64 },
    #[error(
        "needs {needed} MiB of memory, and 4096 MiB are the most a guest can have; build a smaller one"
    )]
    TooLarge { needed: u64 },
    #[error(
        "'{name}' names a device, and devices of this unikernel have no names ({era}); use --net=IFACE, --disk=PATH"
    )]
    UnnamedDevices { name: String, era: Era },
    #[error("cannot open /dev/kvm: {source}; {hint}")]
    NoKvm { source: io::Error, hint: String },
    #[error(
        "/dev/kvm speaks version {0} of its interface, not 12; boot a Linux with a KVM of its own"
    )]
    KvmVersion(i32),
    #[error("/dev/kvm is not KVM's device; make it anew (mknod /dev/kvm c 10 232)")]
    NotKvm,
    #[error(
        "cannot share the network interfaces with the ring's thread: {0}; raise 'ulimit -n', or do without it \
         (--net-ring=off)"
    )]
    Descriptors(io::Error),
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
        Error::NoKvm {
            source: io::Error::from_raw_os_error(errno),
            hint,
        }
    }
}
