//! One run, observed: what was asked for is opened before the sandbox, begins with it, and ends with the run.

use std::sync::Arc;

use super::server::{Socket, next_descriptors};
use super::{End, Error, Registry, Server, StatsFile, summary};
use crate::config::{Config, SandboxMode};
use crate::host::files::Files;
use crate::host::unix_socket::Listener;
use crate::outcome::{Error as RunError, Outcome};
use crate::sandbox::Confined;
use crate::sandbox::rules::Parameters;

/// Where figures go, opened.
#[derive(Debug)]
pub struct Outlets {
    stats: Option<StatsFile>,
    socket: Option<Socket>,
    /// The socket's file can still be removed when the run has ended.
    removable: bool,
}

impl Outlets {
    /// Opens what `config` asks for. A start that fails later takes the socket away again.
    ///
    /// # Errors
    /// Something cannot be opened.
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

    /// Whether somebody wants to know what has its price.
    pub fn any(&self) -> bool {
        self.stats.is_some() || self.socket.is_some()
    }
}

/// A run that can be observed.
#[derive(Debug)]
pub struct Observer {
    registry: Arc<Registry>,
    outlets: Outlets,
}

/// A run that is observed.
#[derive(Debug)]
pub struct Observed {
    registry: Arc<Registry>,
    stats: Option<StatsFile>,
    server: Option<Server>,
}

impl Observer {
    /// What is counted in `registry` goes to `outlets`.
    pub fn new(registry: Registry, outlets: Outlets) -> Observer {
        Observer {
            registry: Arc::new(registry),
            outlets,
        }
    }

    /// Where everything is counted.
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    /// What the sandbox has to know: to be asked when all that the run needs is open.
    ///
    /// # Errors
    /// The host has no descriptors to give.
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

    /// The sandbox is entered but for its filters: begins to serve.
    ///
    /// # Errors
    /// What was asked for cannot be had.
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
    /// The guest runs no more, and everything is still open.
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
