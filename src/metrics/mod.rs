//! Run statistics, exported in four ways: as JSON at the end of the run ([`StatsFile`]), in a few
//! log lines on SIGUSR1 ([`on_demand`]), in the log at the end with `-v`, and to Prometheus during
//! the run (`metrics/server.rs`).
//!
//! The thread that does the work counts it, and readers take no lock: a reader cannot delay the
//! guest.

mod client;
mod document;
mod exposition;
mod http;
pub(crate) mod on_demand;
mod outlets;
mod phases;
mod process;
mod server;
mod stats_file;
mod summary;
mod times;

use std::path::Path;
use std::sync::Arc;

pub(crate) use exposition::Exposition;
pub(crate) use outlets::Opened;
pub(crate) use phases::{Phase, Phases};
pub(crate) use stats_file::StatsFile;
pub(crate) use summary::summary;

use process::Process;
use server::Server;
use times::{Asleep, Times};

use crate::block;
use crate::config::{Config, Engine, run_name};
use crate::devices::Devices;
use crate::devices::console::{self, Console};
use crate::devices::ring::Ring;
use crate::guest::era::Era;
use crate::guest::hypercall::{Current, Interface, Legacy};
use crate::host::unix_socket;
use crate::memory::GuestMemory;
use crate::net;
use crate::report::counters::Counter;

/// Errors of `--stats` and `--metrics`.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub(crate) enum Error {
    #[error("--stats={path}: {source}")]
    #[diagnostic(help("give a writable file or a pipe with a reader"))]
    Stats {
        path: String,
        source: std::io::Error,
    },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Socket(#[from] unix_socket::Error),
    #[error("--metrics: cannot start the server thread: {0}")]
    #[diagnostic(help("raise the unit's TasksMax=, or 'ulimit -u' and 'ulimit -n'"))]
    Thread(std::io::Error),
}

/// Slots for hypercall numbers; all unknown numbers share the last.
const NUMBERS: usize = 16;

/// Exits of the guest, by reason. Only the thread that runs the guest counts.
#[derive(Debug, Default)]
pub(crate) struct Exits {
    hypercalls: [Counter; NUMBERS],
    /// Kicks: the guest queued frames in the network ring.
    pub kicks: Counter,
    /// A signal arrived, or the run is to end.
    pub interruptions: Counter,
}

impl Exits {
    /// Counts a hypercall of any number, valid or not.
    #[inline]
    pub(crate) fn hypercall(&self, number: u32) {
        self.hypercalls[(number as usize).min(NUMBERS - 1)].add(1);
    }
}

/// The counters of a network device.
#[derive(Debug)]
pub(crate) struct Net {
    /// Its name in the manifest.
    pub name: String,
    /// The interface or descriptor on the host.
    pub interface: String,
    /// Traffic by hypercall.
    pub calls: Arc<net::Stats<Counter>>,
    /// Traffic by the shared ring, if there is one.
    pub ring: Option<Arc<net::Stats<Counter>>>,
}

impl Net {
    /// Returns the sum of both.
    pub(crate) fn stats(&self) -> net::Stats {
        let ring = self.ring.as_ref().map(|counters| counters.read());
        self.calls.read() + ring.unwrap_or_default()
    }
}

/// The counters of a block device.
#[derive(Debug)]
pub(crate) struct Block {
    /// Its name in the manifest.
    pub name: String,
    /// The file or disk behind it.
    pub path: String,
    /// Its counters.
    pub counters: Arc<block::Stats<Counter>>,
}

/// All counters of one run, and its properties.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Path of the unikernel.
    pub unikernel: String,
    /// The name of the run, if one is given.
    name: Option<String>,
    /// The tender's PID.
    pub process_id: u32,
    /// Its era.
    pub era: Era,
    /// What runs the guest.
    pub engine: Engine,
    /// Bytes of guest memory.
    pub memory: u64,
    /// The start time of the run, and the durations of its start.
    pub phases: Phases,
    /// Exits of the guest.
    pub exits: Exits,
    /// The console.
    pub console: Arc<console::Stats<Counter>>,
    /// The network devices, by handle.
    pub nets: Vec<Net>,
    /// The block devices, by handle.
    pub blocks: Vec<Block>,
    /// The time that the run has spent, if requested.
    pub times: Option<Times>,
    /// Resource use of the process, if requested and available on this host.
    pub process: Option<Process>,
}

impl Registry {
    /// Collects the counters of all parts.
    pub(crate) fn new(
        config: &Config,
        era: Era,
        engine: Engine,
        phases: Phases,
        devices: &Devices,
        console: &Console,
        ring: Option<&Ring>,
    ) -> Registry {
        let by_ring = |handle| Some(ring?.nic(handle)?.counters());
        let net = |(handle, name, nic): (usize, &str, &net::Nic)| Net {
            name: name.to_owned(),
            interface: nic.interface_name().to_owned(),
            calls: nic.counters(),
            ring: by_ring(handle),
        };
        let block = |(name, disk): (&str, &block::Disk)| Block {
            name: name.to_owned(),
            path: disk.path().to_string_lossy().into_owned(),
            counters: disk.counters(),
        };
        Registry {
            unikernel: config.unikernel.to_string_lossy().into_owned(),
            name: config.name.clone(),
            process_id: std::process::id(),
            era,
            engine,
            memory: config.memory.given,
            phases,
            exits: Exits::default(),
            console: console.counters(),
            nets: devices.nets().map(net).collect(),
            blocks: devices.disks().map(block).collect(),
            times: None,
            process: None,
        }
    }

    /// Returns the name of the run.
    pub(crate) fn name(&self) -> String {
        run_name(self.name.as_deref(), Path::new(&self.unikernel))
    }

    /// Measures from now on what is costly: times and the use of `memory`.
    pub(crate) fn measure(&mut self, memory: &GuestMemory) {
        self.times = Some(Times::begin());
        self.process = Process::open(memory).ok();
    }

    /// Returns the hypercalls of this era with their names and counts, in the order of their
    /// numbers.
    pub(crate) fn hypercalls(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let (last, name): (u32, fn(u32) -> &'static str) = match self.era {
            Era::Legacy => (Legacy::LAST, Legacy::name),
            Era::Abi1 | Era::Abi2 => (Current::LAST, Current::name),
        };
        (1..=last).map(move |number| (name(number), self.exits.hypercalls[number as usize].get()))
    }

    /// Returns the number of all hypercalls, including unknown ones.
    pub(crate) fn hypercall_sum(&self) -> u64 {
        self.exits.hypercalls.iter().map(Counter::get).sum()
    }

    /// Accounts the time to POLL until the result is dropped.
    pub(crate) fn asleep(&self) -> Option<Asleep<'_>> {
        self.times.as_ref().map(Times::asleep)
    }
}

const _: () =
    assert!((Legacy::LAST as usize) < NUMBERS - 1 && (Current::LAST as usize) < NUMBERS - 1);
