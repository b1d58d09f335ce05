//! Values in the rules that are known only at run time.

use std::os::fd::RawFd;

use super::MINCORE_PIECE;
use crate::arch::{self, CoreRegisters, Debugging, Processor};

/// Numbers that are known only at run time, or that differ between architectures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// The descriptor of KVM's vCPU, if there is one.
    Vcpu,
    /// The process that is the guest, if there is one.
    Child,
    /// That process and the guest's thread.
    Placed,
    /// The null pointer, if the guest is a process.
    Null,
    /// Ioctls on the vCPU for reports, and for a core file if there may be one.
    Reports,
    /// The descriptor of the debugger, if there is one.
    Debugger,
    /// Ioctls on the vCPU for a debugger, if there is one.
    DebugRequests,
    /// Descriptors of network interfaces.
    Nets,
    /// Descriptors of the same interfaces, for the ring.
    RingNets,
    /// The timer that interrupts a guest that does not kick, if there is one.
    Alarm,
    /// Descriptors of disks.
    Disks,
    /// The lease on the unikernel's file, if memory shares pages with it.
    Lease,
    /// The lengths of the mappings of those pages.
    Shared,
    /// The directory for a core file.
    CoreDirectory,
    /// The descriptor that the core file will get.
    CoreFile,
    /// The statistics file.
    Stats,
    /// The file with this process's memory use, if statistics are enabled.
    Statm,
    /// Bytes of guest memory per mincore call, if statistics are enabled.
    Pieces,
    /// The listening socket for metrics.
    Listener,
    /// The clients' descriptors.
    Client,
    /// The event that ends the metrics thread.
    MetricsEnd,
    /// The descriptor of the service manager's socket, if there is one.
    Notify,
    /// The epoll set that POLL waits on.
    Waits,
    /// That set, if a timer ends its waits; [`Parameter::Timer`] is that timer.
    OldWaits,
    /// The timer that ends the waits of POLL.
    Timer,
    /// The epoll sets of standard output and standard error, if `ppoll` is refused.
    Room,
    /// This process.
    Process,
    /// The guest's thread.
    Thread,
    /// The signals that end a run.
    Signals,
}

/// The parameters of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The descriptor of KVM's vCPU.
    pub vcpu: Option<RawFd>,
    /// The process that is the guest.
    pub child: Option<i32>,
    /// The epoll set that POLL waits on, and the timer that ends its waits, if any.
    pub waits: Vec<RawFd>,
    /// See `waits`.
    pub timer: Option<RawFd>,
    /// The epoll sets of standard output and standard error, if `ppoll` is refused.
    pub room: Vec<RawFd>,
    /// The descriptor of the debugger.
    pub debugger: Vec<RawFd>,
    /// Descriptors of network interfaces.
    pub nets: Vec<RawFd>,
    /// Descriptors of the same interfaces, for the ring.
    pub ring_nets: Vec<RawFd>,
    /// The timer that interrupts a guest that does not kick.
    pub alarm: Option<i32>,
    /// Descriptors of disks.
    pub disks: Vec<RawFd>,
    /// The lease on the unikernel's file, and the lengths of the mappings of its pages.
    pub lease: Option<RawFd>,
    /// See `lease`.
    pub shared: Vec<u64>,
    /// The directory for a core file, and the descriptor that the file will get.
    pub cores: Option<(RawFd, RawFd)>,
    /// The statistics file.
    pub stats: Vec<RawFd>,
    /// The file with this process's memory use.
    pub statm: Vec<RawFd>,
    /// The listening socket for metrics.
    pub listener: Vec<RawFd>,
    /// The clients' descriptors.
    pub client: Vec<RawFd>,
    /// The event that ends the metrics thread.
    pub metrics_end: Vec<RawFd>,
    /// The descriptor of the service manager's socket, if there is one.
    pub notify: Option<RawFd>,
    /// This process and the guest's thread.
    pub process: i32,
    /// See `process`.
    pub thread: i32,
}

impl Parameters {
    /// Returns the values of `parameter`.
    pub fn values(&self, parameter: Parameter) -> Vec<u64> {
        let fds = |fds: &[RawFd]| fds.iter().map(|&fd| fd as u64).collect();
        match parameter {
            Parameter::Vcpu => fds(self.vcpu.as_slice()),
            Parameter::Child => fds(self.child.as_slice()),
            Parameter::Placed => self
                .child
                .iter()
                .flat_map(|&child| [child, self.thread])
                .map(|id| id as u64)
                .collect(),
            Parameter::Null => self.child.iter().map(|_| 0).collect(),
            Parameter::Debugger => fds(&self.debugger),
            Parameter::DebugRequests if self.debugger.is_empty() => Vec::new(),
            Parameter::DebugRequests => arch::Vcpu::DEBUG_REQUESTS.to_vec(),
            Parameter::Nets => fds(&self.nets),
            Parameter::RingNets => fds(&self.ring_nets),
            Parameter::Alarm => fds(self.alarm.as_slice()),
            Parameter::Disks => fds(&self.disks),
            Parameter::Lease => fds(self.lease.as_slice()),
            Parameter::Shared => self.shared.clone(),
            Parameter::CoreDirectory => fds(self.cores.map(|(directory, _)| directory).as_slice()),
            Parameter::CoreFile => fds(self.cores.map(|(_, file)| file).as_slice()),
            Parameter::Stats => fds(&self.stats),
            Parameter::Statm => fds(&self.statm),
            Parameter::Pieces => self.statm.iter().map(|_| MINCORE_PIECE as u64).collect(),
            Parameter::Listener => fds(&self.listener),
            Parameter::Client => fds(&self.client),
            Parameter::MetricsEnd => fds(&self.metrics_end),
            Parameter::Notify => fds(self.notify.as_slice()),
            Parameter::Waits => fds(&self.waits),
            Parameter::OldWaits => {
                let waits = self.timer.iter().flat_map(|_| &self.waits);
                waits.chain(&self.room).map(|&fd| fd as u64).collect()
            }
            Parameter::Timer => fds(self.timer.as_slice()),
            Parameter::Room => fds(&self.room),
            Parameter::Process => vec![self.process as u64],
            Parameter::Thread => vec![self.thread as u64],
            Parameter::Reports if self.cores.is_none() => arch::Vcpu::REPORT_REQUESTS.to_vec(),
            Parameter::Reports => [arch::Vcpu::REPORT_REQUESTS, arch::Vcpu::CORE_REQUESTS].concat(),
            Parameter::Signals => crate::host::signal::SIGNALS
                .map(|signal| signal as u64)
                .to_vec(),
        }
    }
}
