//! What runs the guest, behind KVM's requests for registers: a vCPU of KVM, or a process. Each
//! architecture adds the requests that it uses.

use kvm_ioctls::VcpuFd;

use super::process::Process;

/// What runs the guest.
#[derive(Debug)]
pub(super) enum Engine {
    /// KVM's vCPU.
    Kvm(VcpuFd),
    /// A process.
    Process(Box<Process>),
}

/// Forwards requests to KVM's vCPU or to the process.
macro_rules! requests {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        impl $crate::arch::engine::Engine {
            $(pub(in crate::arch) fn $name(&self $(, $argument: $type)*)
                -> Result<$result, kvm_ioctls::Error>
            {
                match self {
                    $crate::arch::engine::Engine::Kvm(fd) => fd.$name($($argument),*),
                    $crate::arch::engine::Engine::Process(process) => {
                        process.$name($($argument),*).map_err($crate::arch::process::errno)
                    }
                }
            })*
        }
    };
}

pub(super) use requests;
