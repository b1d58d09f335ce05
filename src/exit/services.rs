//! What serves the guest, and which descriptors the sandbox leaves it.

use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::arch::Vcpu;
use crate::debug::{Session, core};
use crate::devices::Devices;
use crate::devices::console::Console;
use crate::devices::ring::{GuestRing, Worker};
use crate::host::lease;
use crate::host::service_manager::Notifier;
use crate::host::signal;
use crate::report::log_lines;
use crate::sandbox::rules::Parameters;

/// What serves the guest, and the limits of its run.
pub(crate) struct Services {
    pub(crate) devices: Devices,
    pub(crate) console: Console,
    pub(crate) notifier: Notifier,
    /// Protects pages of memory that are shared with the unikernel's file.
    pub(crate) lease: Option<lease::Guard>,
    /// Longest sleep of one POLL, in nanoseconds.
    pub(crate) poll_limit: u64,
    /// Seconds after which the run is ended.
    pub(crate) timeout: Option<NonZeroU32>,
}

impl Services {
    /// Returns the limit of `--timeout`.
    pub(super) fn time_limit(&self) -> Option<Duration> {
        self.timeout
            .map(|seconds| Duration::from_secs(seconds.get().into()))
    }

    /// Returns the sandbox parameters of this run.
    pub(super) fn parameters(
        &self,
        vcpu: &Vcpu,
        worker: Option<&Worker<GuestRing<'_>>>,
        session: Option<&Session<'_>>,
        cores: Option<&core::Directory>,
    ) -> Parameters {
        let (nets, disks) = self.devices.descriptors();
        let fds = |worker: &Worker<GuestRing<'_>>| {
            let nics = worker.ring().nics();
            nics.map(|nic| nic.as_fd().as_raw_fd()).collect()
        };
        let ring_nets = worker.map(fds).unwrap_or_default();
        let (process, thread) = signal::claim_thread();
        let (waits, timer) = self.devices.waits();
        let lease = self.lease.as_ref().map(lease::Guard::parameters);
        let (lease, shared) = lease.unzip();
        Parameters {
            vcpu: vcpu.descriptor(),
            waits: vec![waits],
            timer,
            room: log_lines::room_without_ppoll(),
            nets,
            ring_nets,
            alarm: worker.and_then(Worker::alarm),
            disks,
            lease,
            shared: shared.unwrap_or_default(),
            notify: self.notifier.descriptor(),
            debugger: session.map(Session::descriptor).into_iter().collect(),
            cores: cores.map(core::Directory::descriptors),
            process,
            thread,
            ..Parameters::default()
        }
    }
}
