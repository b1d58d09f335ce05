//! What a run has come to so far, in figures: for its operator, who sees the same in four ways. As JSON when it has ended
//! ([`StatsFile`]), in a few lines at SIGUSR1 ([`on_demand`]) and at the end with `-v`, and at any time by Prometheus
//! (`metrics/server.rs`).
//!
//! Everything is counted where it happens, by the thread that does it, and read from here without a lock: nobody who
//! looks can hold up a guest.

mod client;
mod document;
mod exposition;
mod http;
mod observer;
pub mod on_demand;
mod phases;
mod probe;
mod process;
mod server;
mod stats_file;
mod summary;
mod times;

use std::sync::Arc;

pub use document::{End, document};
pub use exposition::Exposition;
pub use observer::{Observed, Observer, Outlets};
pub use phases::{Phase, Phases};
pub use process::Process;
pub use server::Server;
pub use stats_file::StatsFile;
pub use summary::summary;
pub use times::{Asleep, Spent, Times};

use crate::block;
use crate::config::Config;
use crate::devices::Devices;
use crate::devices::console;
use crate::devices::console::Console;
use crate::devices::ring::Ring;
use crate::guest::era::Era;
use crate::guest::hypercall::{Current, Interface, Legacy};
use crate::host::unix_socket;
use crate::memory::GuestMemory;
use crate::net;
use crate::report::counters::Counter;

/// Why what was asked for cannot be told.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum Error {
    #[error("--stats={path}: {source}; give a writable file or a pipe with a reader")]
    Stats {
        path: String,
        source: std::io::Error,
    },
    #[error("{0}")]
    Socket(#[from] unix_socket::Error),
    #[error(
        "--metrics: cannot start the server thread: {0}; raise the unit's TasksMax=, or 'ulimit -u' and 'ulimit -n'"
    )]
    Thread(std::io::Error),
}

/// Places for hypercall numbers; all that do not exist share the last.
const NUMBERS: usize = 16;

/// Why a guest left its processor, how often. For the thread that runs the guest to count.
#[derive(Debug, Default)]
pub struct Exits {
    hypercalls: [Counter; NUMBERS],
    /// It has put something into the network ring.
    pub kicks: Counter,
    /// A signal came, or the run is to end.
    pub interruptions: Counter,
}

impl Exits {
    /// Counts a hypercall of any number, whether it exists or not.
    #[inline]
    pub fn hypercall(&self, number: u32) {
        self.hypercalls[(number as usize).min(NUMBERS - 1)].add(1);
    }
}

/// A network device, and what goes through it.
#[derive(Debug)]
pub struct Net {
    /// Its name in the manifest.
    pub name: String,
    /// What it is attached to.
    pub interface: String,
    /// By hypercall.
    pub calls: Arc<net::Stats<Counter>>,
    /// By the shared ring, if there is one.
    pub ring: Option<Arc<net::Stats<Counter>>>,
}

impl Net {
    /// What went through so far, by whatever way.
    pub fn stats(&self) -> net::Stats {
        let ring = self.ring.as_ref().map(|counters| counters.read());
        self.calls.read() + ring.unwrap_or_default()
    }
}

/// A block device, and what goes through it.
#[derive(Debug)]
pub struct Block {
    /// Its name in the manifest.
    pub name: String,
    /// The file or disk behind it.
    pub path: String,
    /// What goes through.
    pub counters: Arc<block::Stats<Counter>>,
}

/// All that is counted in one run, and what it is about.
#[derive(Debug)]
pub struct Registry {
    /// The unikernel's file.
    pub unikernel: String,
    /// The process that runs it.
    pub process_id: u32,
    /// Its era.
    pub era: Era,
    /// Bytes of guest memory.
    pub memory: u64,
    /// When the run began, and what its start took.
    pub phases: Phases,
    /// Why the guest left its processor.
    pub exits: Exits,
    /// The console.
    pub console: Arc<console::Stats<Counter>>,
    /// The network devices, by handle.
    pub nets: Vec<Net>,
    /// The block devices, by handle.
    pub blocks: Vec<Block>,
    /// How the time was spent, if somebody wants to know.
    pub times: Option<Times>,
    /// What the process costs, if somebody wants to know, and the host tells.
    pub process: Option<Process>,
}

/// What there is to be counted in.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'p> {
    /// The guest's memory.
    pub memory: &'p GuestMemory,
    /// Its devices.
    pub devices: &'p Devices,
    /// Its console.
    pub console: &'p Console,
    /// Its network ring, if there is one.
    pub ring: Option<&'p Ring>,
}

impl Registry {
    /// All that will be counted in these parts; what has its price, such as the time, if it is `asked` for.
    pub fn new(
        config: &Config,
        era: Era,
        phases: Phases,
        parts: &Parts<'_>,
        asked: bool,
    ) -> Registry {
        let ring = parts.ring.map(Ring::consumer);
        let net = |(handle, name, nic): (usize, &str, &net::Nic)| Net {
            name: name.to_owned(),
            interface: nic.interface_name().to_owned(),
            calls: nic.counters(),
            ring: ring
                .as_ref()
                .and_then(|ring| ring.nic(handle))
                .map(net::Nic::counters),
        };
        let block = |(name, disk): (&str, &block::Disk)| Block {
            name: name.to_owned(),
            path: disk.path().to_string_lossy().into_owned(),
            counters: disk.counters(),
        };
        Registry {
            unikernel: config.unikernel.to_string_lossy().into_owned(),
            process_id: std::process::id(),
            era,
            memory: parts.memory.size(),
            phases,
            exits: Exits::default(),
            console: parts.console.counters(),
            nets: parts.devices.nets().map(net).collect(),
            blocks: parts.devices.disks().map(block).collect(),
            times: asked.then(Times::begin),
            process: asked.then(|| Process::open(parts.memory).ok()).flatten(),
        }
    }

    /// The hypercalls of this era with their names, in the order of their numbers, and how often each was made.
    pub fn hypercalls(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let (last, name): (u32, fn(u32) -> &'static str) = match self.era {
            Era::Legacy => (Legacy::LAST, Legacy::name),
            Era::Abi1 | Era::Abi2 => (Current::LAST, Current::name),
        };
        (1..=last).map(move |number| (name(number), self.exits.hypercalls[number as usize].get()))
    }

    /// All hypercalls, those that do not exist included.
    pub fn hypercall_sum(&self) -> u64 {
        self.exits.hypercalls.iter().map(Counter::get).sum()
    }

    /// Has the guest sleep, as POLL asks, until the result is dropped.
    pub fn asleep(&self, timeout: u64) -> Option<Asleep<'_>> {
        self.times
            .as_ref()
            .filter(|_| timeout > 0)
            .map(Times::asleep)
    }
}

const _: () =
    assert!((Legacy::LAST as usize) < NUMBERS - 1 && (Current::LAST as usize) < NUMBERS - 1);
