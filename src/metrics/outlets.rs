//! The outputs of a run's statistics: opened before the sandbox, served during the run, and written
//! at its end.

use std::sync::Arc;

use super::server::{Socket, next_descriptors};
use super::{Error, Registry, Server, StatsFile, summary};
use crate::config::Output;
use crate::host::files::Files;
use crate::host::unix_socket::Listener;
use crate::outcome::{Error as RunError, Outcome};
use crate::sandbox::Confined;
use crate::sandbox::rules::Parameters;

/// The outputs before the run.
#[derive(Debug)]
pub(crate) struct Opened {
    stats: Option<StatsFile>,
    socket: Option<Socket>,
}

/// The outputs during the run.
#[derive(Debug)]
pub(crate) struct Running {
    registry: Arc<Registry>,
    stats: Option<StatsFile>,
    server: Option<Server>,
}

impl Opened {
    /// Opens the outputs that `output` requests. If the start fails later, the socket's file is
    /// removed; after the run, it is removed only if `removable` is set.
    ///
    /// # Errors
    /// An output cannot be opened.
    pub(crate) fn open(
        output: &Output,
        removable: bool,
        files: &mut Files,
    ) -> Result<Opened, Error> {
        let stats = output.stats.as_ref();
        let stats = stats.map(|target| StatsFile::open(target, files));
        let stats = stats.transpose()?;
        let metrics = output.metrics.as_ref();
        let socket = metrics.map(|address| {
            let listener = Listener::bind("--metrics", address, files)?;
            Socket::new(listener, removable)
        });
        let socket = socket.transpose()?;
        Ok(Opened { stats, socket })
    }

    /// Returns whether costly statistics are needed.
    pub(crate) fn any(&self) -> bool {
        self.stats.is_some() || self.socket.is_some()
    }

    /// Adds the parameters for the sandbox. Call when everything that the run needs is open.
    ///
    /// # Errors
    /// No descriptors are available.
    pub(crate) fn parameters(
        &self,
        registry: &Registry,
        parameters: Parameters,
    ) -> Result<Parameters, Error> {
        let (stats, process) = (self.stats.iter(), registry.process.iter());
        let mut parameters = Parameters {
            stats: stats.filter_map(StatsFile::descriptor).collect(),
            statm: process.map(|process| process.descriptor()).collect(),
            ..parameters
        };
        if let Some(socket) = &self.socket {
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
    pub(crate) fn start(
        self,
        registry: &Arc<Registry>,
        confined: &Confined,
    ) -> Result<Running, RunError> {
        let Opened { mut stats, socket } = self;
        let serve = |socket| Server::start(socket, Arc::clone(registry), confined);
        let server = socket.map(serve).transpose()?;
        stats.as_mut().map_or(Ok(()), StatsFile::begin)?;
        Ok(Running {
            registry: Arc::clone(registry),
            stats,
            server,
        })
    }
}

impl Running {
    /// Writes the final statistics. Call when the guest has stopped, while everything is still
    /// open.
    pub(crate) fn finish(self, outcome: &Result<Outcome, RunError>) {
        if let Some(server) = self.server {
            server.stop();
        }
        log::info!("{}", summary::Run(&self.registry));
        if let Some(stats) = self.stats {
            stats.write(&self.registry, outcome);
        }
    }
}
