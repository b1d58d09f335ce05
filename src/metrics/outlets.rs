//! The statistics of one run: opens the requested outputs before the sandbox, serves during the
//! run, and writes at its end.

use std::sync::Arc;

use super::server::{Socket, next_descriptors};
use super::{End, Error, Registry, Server, StatsFile, summary};
use crate::config::{Config, SandboxMode};
use crate::host::files::Files;
use crate::host::unix_socket::Listener;
use crate::outcome::{Error as RunError, Outcome};
use crate::sandbox::Confined;
use crate::sandbox::rules::Parameters;

/// The outputs, opened.
#[derive(Debug)]
pub struct Outlets {
    stats: Option<StatsFile>,
    socket: Option<Socket>,
    /// Whether the socket's file can be removed at the end of the run.
    removable: bool,
}

impl Outlets {
    /// Opens the outputs that `config` requests. If the start fails later, the socket is removed
    /// again.
    ///
    /// # Errors
    /// An output cannot be opened.
    pub fn open(config: &Config, files: &mut Files) -> Result<Outlets, Error> {
        let stats = config
            .output
            .stats
            .as_ref()
            .map(|target| StatsFile::open(target, files))
            .transpose()?;
        let listener = config
            .output
            .metrics
            .as_ref()
            .map(|address| Listener::bind("--metrics", address, files));
        let listener = listener.transpose()?;
        let socket = listener.map(Socket::new).transpose()?;
        let removable = config.sandbox == SandboxMode::Off && config.chroot.is_none();
        Ok(Outlets {
            stats,
            socket,
            removable,
        })
    }

    /// Returns whether costly statistics are needed.
    pub fn any(&self) -> bool {
        self.stats.is_some() || self.socket.is_some()
    }
}

/// The statistics of a run, before it starts.
#[derive(Debug)]
pub struct Observer {
    registry: Arc<Registry>,
    outlets: Outlets,
}

/// The statistics of a run, while it runs.
#[derive(Debug)]
pub struct Observed {
    registry: Arc<Registry>,
    stats: Option<StatsFile>,
    server: Option<Server>,
}

impl Observer {
    /// Combines counters and outputs.
    pub fn new(registry: Registry, outlets: Outlets) -> Observer {
        Observer {
            registry: Arc::new(registry),
            outlets,
        }
    }

    /// Returns the counters.
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    /// Adds the parameters for the sandbox. Call when everything that the run needs is open.
    ///
    /// # Errors
    /// No descriptors are available.
    pub fn parameters(&self, parameters: Parameters) -> Result<Parameters, Error> {
        let Outlets { stats, socket, .. } = &self.outlets;
        let process = self.registry.process.as_ref();
        let mut parameters = Parameters {
            stats: stats.iter().filter_map(StatsFile::descriptor).collect(),
            statm: process.iter().map(|process| process.descriptor()).collect(),
            ..parameters
        };
        if let Some(socket) = socket {
            let (listener, end) = socket.descriptors();
            (parameters.listener, parameters.metrics_end) = (vec![listener], vec![end]);
            parameters.client = next_descriptors().map_err(Error::Thread)?;
        }
        Ok(parameters)
    }

    /// Starts to serve. Call when the sandbox is entered, except for its filters.
    ///
    /// # Errors
    /// An output is unavailable.
    pub fn start(self, confined: &Confined) -> Result<Observed, RunError> {
        let Observer {
            registry,
            outlets:
                Outlets {
                    mut stats,
                    socket,
                    removable,
                },
        } = self;
        let serve = |mut socket: Socket| {
            if !removable {
                socket.leave_file();
            }
            Server::start(socket, Arc::clone(&registry), confined)
        };
        let server = socket.map(serve).transpose()?;
        stats.as_mut().map_or(Ok(()), StatsFile::begin)?;
        Ok(Observed {
            registry,
            stats,
            server,
        })
    }
}

impl Observed {
    /// Writes the final statistics. Call when the guest has stopped, while everything is still
    /// open.
    pub fn finish(self, outcome: &Result<Outcome, RunError>) {
        if let Some(server) = self.server {
            server.stop();
        }
        log::info!("{}", summary::Run(&self.registry));
        if let Some(stats) = self.stats {
            stats.write(&self.registry, &End::from(outcome));
        }
    }
}
