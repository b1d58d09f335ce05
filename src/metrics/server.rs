//! `--metrics`: a thread that serves several clients at a time. A slow or silent client delays
//! neither other clients nor the guest. `sandbox/rules.rs` allows the thread nothing else.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use super::client::Place;
use super::{Error, Exposition, Registry};
use crate::host::signal;
use crate::host::threads::report;
use crate::host::unix_socket::{self, Listener};
use crate::outcome::Error as RunError;
use crate::sandbox::Confined;
use crate::sandbox::rules::{CLIENTS, POLLED};

/// Time limit of one client, from its connection to the end of its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Pause after a failed accept, for example because descriptors have run out.
const PAUSE: Duration = Duration::from_secs(1);

/// The listening socket, before the thread starts.
#[derive(Debug)]
pub(super) struct Socket {
    listener: Listener,
    removable: bool,
    /// An event descriptor that ends the thread.
    end: Arc<OwnedFd>,
}

impl Socket {
    /// Wraps `listener`. Its file is removed after the run only if it is `removable`: nothing can
    /// remove it from within a sandbox.
    ///
    /// # Errors
    /// No descriptor is available.
    pub(super) fn new(listener: Listener, removable: bool) -> Result<Socket, Error> {
        let end = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let end = end.map_err(|error| Error::Thread(error.into()))?;
        Ok(Socket {
            listener,
            removable,
            end: Arc::new(end),
        })
    }

    /// Returns the listening socket and the event.
    pub(super) fn descriptors(&self) -> (RawFd, RawFd) {
        (self.listener.as_fd().as_raw_fd(), self.end.as_raw_fd())
    }
}

/// Returns the numbers of the next descriptors: while a guest runs, only clients' descriptors are
/// opened and closed.
pub(super) fn next_descriptors() -> io::Result<Vec<RawFd>> {
    let files: Vec<_> = (0..CLIENTS)
        .map(|_| File::open("/"))
        .collect::<io::Result<_>>()?;
    Ok(files.iter().map(File::as_raw_fd).collect())
}

/// The running server thread.
#[derive(Debug)]
pub(super) struct Server {
    end: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Starts the thread, which is in its sandbox when this returns.
    ///
    /// # Errors
    /// The thread cannot be started or confined.
    pub(super) fn start(
        mut socket: Socket,
        registry: Arc<Registry>,
        confined: &Confined,
    ) -> Result<Server, RunError> {
        if !socket.removable {
            socket.listener.leave_file();
        }
        let end = Arc::clone(&socket.end);
        let (reporter, confinement) = report();
        let confined = confined.clone();
        // The room suffices for the longest numbers, so the thread allocates none in the sandbox.
        // It is on this thread's heap: when another thread's heap shrinks, glibc opens a file.
        let room = 2 * Exposition(&registry).to_string().len() + 4096;
        let mut places: Vec<_> = (0..CLIENTS).map(|_| Place::new(room)).collect();
        let serve = move || {
            signal::block_all_signals();
            let result = confined.confine_metrics_thread();
            let is_confined = result.is_ok();
            reporter.send(result);
            if is_confined {
                socket.serve(&registry, &mut places);
            }
        };
        let thread = thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(serve)
            .map_err(Error::Thread)?;
        confinement.wait()?;
        Ok(Server { end, thread })
    }

    /// Ends the thread immediately, in any state. Call before any descriptor is closed, because the
    /// thread's clients would get its number.
    pub(super) fn stop(self) {
        // An event descriptor has room for the first event.
        let _ = rustix::io::write(&self.end, &1_u64.to_ne_bytes());
        // The thread does not panic; if it did, the panic is already reported.
        let _ = self.thread.join();
    }
}

impl Socket {
    fn serve(&self, registry: &Registry, places: &mut [Place]) {
        let (listener, end) = self.descriptors();
        let mut pause = None;
        loop {
            let now = Instant::now();
            for place in places
                .iter_mut()
                .filter(|place| place.deadline().is_some_and(|deadline| deadline <= now))
            {
                place.expire(registry);
            }
            pause = pause.filter(|pause| *pause > now);
            let listener = if pause.is_some() { -1 } else { listener };
            let mut polls = [libc::pollfd {
                fd: -1,
                events: libc::POLLIN,
                revents: 0,
            }; POLLED];
            (polls[0].fd, polls[1].fd) = (end, listener);
            for (poll, place) in polls[2..].iter_mut().zip(&*places) {
                *poll = place.poll();
            }
            let next = places.iter().filter_map(Place::deadline).chain(pause).min();
            if let Err(error) = unix_socket::poll(&mut polls, next.map(|next| next - now)) {
                return log::warn!(
                    "--metrics: cannot wait for clients: {error}; no further request is answered"
                );
            }
            if polls[0].revents != 0 {
                return;
            }
            for (_, place) in polls[2..]
                .iter()
                .zip(&mut *places)
                .filter(|(poll, _)| poll.revents != 0)
            {
                place.go_on(registry);
            }
            // Without free descriptors, this fails until one is closed.
            if polls[1].revents != 0 && self.accept(registry, places).is_err() {
                pause = Some(now + PAUSE);
            }
        }
    }

    /// Accepts a client; without a free place, it replaces the client that has waited longest.
    fn accept(&self, registry: &Registry, places: &mut [Place]) -> io::Result<()> {
        // A free place has no deadline, and none sorts first.
        let Some(place) = places.iter_mut().min_by_key(|place| place.deadline()) else {
            return Ok(());
        };
        place.expire(registry);
        match unix_socket::accept(self.listener.as_fd(), rustix::net::SocketFlags::NONBLOCK) {
            Ok(stream) => place.take(stream.into(), Instant::now() + PATIENCE),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::ConnectionAborted
                ) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
