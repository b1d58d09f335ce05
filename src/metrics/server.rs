//! `--metrics`: a thread that answers one scrape after the other. A client that is slow, or says nothing, keeps others
//! waiting for [`PATIENCE`] at most, and a guest not at all. The thread may do nothing else: see `sandbox/rules.rs`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::http::{self, Answer};
use super::{Error, Exposition, Registry};
use crate::error::Error as RunError;
use crate::sandbox::{self, Confined};
use crate::signal;
use crate::unix_socket::Listener;

/// How long one client may take, from being accepted to having read its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long nobody is accepted after that has failed, as it does where descriptors have run out.
const PAUSE: Duration = Duration::from_secs(1);

/// What is needed to serve.
#[derive(Debug)]
pub struct Socket {
    listener: Listener,
    /// An event that ends the thread.
    end: Arc<OwnedFd>,
}

impl Socket {
    /// Serves at `listener`.
    ///
    /// # Errors
    /// The host has no descriptor to give.
    pub fn new(listener: Listener) -> Result<Socket, Error> {
        // SAFETY: the call takes numbers.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if event < 0 {
            return Err(Error::Thread(io::Error::last_os_error()));
        }
        // SAFETY: it is new and nobody else's.
        Ok(Socket { listener, end: Arc::new(unsafe { OwnedFd::from_raw_fd(event) }) })
    }

    /// The socket that listens, and the event.
    pub fn descriptors(&self) -> (RawFd, RawFd) {
        (self.listener.as_fd().as_raw_fd(), self.end.as_raw_fd())
    }

    /// Lets the file of the socket be, as nobody can remove it from within a sandbox.
    pub fn leave_file(&mut self) {
        self.listener.leave_file();
    }
}

/// The number that the next descriptor will have: while a guest runs, those of clients are all that come and go.
pub fn next_descriptor() -> io::Result<RawFd> {
    Ok(File::open("/")?.as_raw_fd())
}

/// The thread, and how to end it.
#[derive(Debug)]
pub struct Server {
    end: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

/// How it went to confine the thread, once that is done.
type Confinement = Mutex<Option<Result<(), sandbox::Error>>>;

impl Server {
    /// Starts the thread, which is in its sandbox when this returns.
    ///
    /// # Errors
    /// There is no thread to be had, or it cannot be confined as asked.
    pub fn start(socket: Socket, registry: Arc<Registry>, confined: &Confined) -> Result<Server, RunError> {
        let (end, confinement) = (Arc::clone(&socket.end), Arc::<Confinement>::default());
        let (first, confined, told) = (thread::current(), confined.clone(), Arc::clone(&confinement));
        let serve = move || {
            signal::leave_to_the_guests_thread();
            // There is room for all numbers to grow, so that none is asked for in the sandbox.
            let mut text = String::with_capacity(2 * Exposition(&registry).to_string().len() + 4096);
            let result = confined.confine_metrics_thread();
            let failed = result.is_err();
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            first.unpark();
            if !failed {
                socket.serve(&registry, &mut text);
            }
        };
        let thread = thread::Builder::new().name("metrics".to_owned()).spawn(serve).map_err(Error::Thread)?;
        loop {
            if let Some(result) = confinement.lock().unwrap_or_else(PoisonError::into_inner).take() {
                result?;
                return Ok(Server { end, thread });
            }
            thread::park();
        }
    }

    /// Ends the thread at once, whatever it does, before any descriptor is closed: its clients have the next one.
    pub fn stop(self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the kernel reads the eight bytes.
        unsafe { libc::write(self.end.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        // It does not panic; if it did, that was told.
        let _ = self.thread.join();
    }
}

/// What a wait came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Ready,
    TooLate,
    End,
}

impl Socket {
    fn serve(&self, registry: &Registry, text: &mut String) {
        let (listener, _) = self.descriptors();
        loop {
            match self.wait(listener, libc::POLLIN, None) {
                Ok(Wait::Ready) => {}
                Ok(Wait::TooLate | Wait::End) => return,
                Err(error) => {
                    return log::warn!("--metrics: cannot wait for clients: {error}; there are no more answers");
                }
            }
            match accept(listener) {
                Ok(mut client) => self.answer(&mut client, registry, text),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {}
                // That this cannot be waited for either is told by the next wait.
                Err(_) => _ = self.wait(-1, 0, Some(Instant::now() + PAUSE)),
            }
        }
    }

    /// Waits until `fd` is ready, or `deadline`, or the end of the run.
    fn wait(&self, fd: RawFd, events: libc::c_short, deadline: Option<Instant>) -> io::Result<Wait> {
        loop {
            let mut waits = [
                libc::pollfd { fd, events, revents: 0 },
                libc::pollfd { fd: self.end.as_raw_fd(), events: libc::POLLIN, revents: 0 },
            ];
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.map(|left| libc::timespec {
                tv_sec: left.as_secs() as libc::time_t,
                tv_nsec: left.subsec_nanos() as libc::c_long,
            });
            let timeout = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            // SAFETY: the kernel reads the time, if there is one, and writes `revents` only.
            match unsafe { libc::ppoll(waits.as_mut_ptr(), 2, timeout, std::ptr::null()) } {
                -1 => match io::Error::last_os_error() {
                    // Stopped and continued.
                    error if error.kind() == ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
                0 => return Ok(Wait::TooLate),
                _ if waits[1].revents != 0 => return Ok(Wait::End),
                _ => return Ok(Wait::Ready),
            }
        }
    }

    fn answer(&self, client: &mut File, registry: &Registry, text: &mut String) {
        let deadline = Instant::now() + PATIENCE;
        let Some(answer) = self.request(client, deadline) else { return };
        text.clear();
        // Writing to a string does not fail.
        let _ = match answer {
            Answer::Metrics | Answer::Head => write!(text, "{}", Exposition(registry)),
            Answer::Refusal(_, reason) => writeln!(text, "{reason}; GET /metrics is all there is"),
        };
        let head = answer.head(text.len());
        let body = if answer == Answer::Head { "" } else { text };
        let _ = self.send(client, head.as_bytes(), deadline).is_some()
            && self.send(client, body.as_bytes(), deadline).is_some();
    }

    /// Reads a request, and says what to answer; nothing if nobody is there any more. What is too long is read on as long
    /// as it comes: a client that is still sending would not see the answer.
    fn request(&self, client: &mut File, deadline: Instant) -> Option<Answer> {
        let (mut request, mut length) = ([0; http::LONGEST], 0);
        loop {
            let too_long = length == request.len();
            let room = if too_long { &mut request[..] } else { &mut request[length..] };
            match client.read(room) {
                Ok(0) => return None,
                Ok(_) if too_long => {}
                Ok(count) => length += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if too_long {
                        return Some(http::TOO_LONG);
                    }
                    match self.wait(client.as_raw_fd(), libc::POLLIN, Some(deadline)) {
                        Ok(Wait::Ready) => {}
                        Ok(Wait::TooLate) => return Some(http::TOO_LATE),
                        Ok(Wait::End) | Err(_) => return None,
                    }
                }
                Err(_) => return None,
            }
            if Instant::now() > deadline {
                return Some(http::TOO_LATE);
            }
            if length < request.len() && http::is_complete(&request[..length]) {
                return Some(http::answer(&request[..length]));
            }
        }
    }

    /// Sends all of it; nothing if that cannot be done in time.
    fn send(&self, client: &mut File, mut rest: &[u8], deadline: Instant) -> Option<()> {
        while !rest.is_empty() {
            match client.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let room = self.wait(client.as_raw_fd(), libc::POLLOUT, Some(deadline)).ok()?;
                    (room == Wait::Ready).then_some(())?;
                }
                Err(_) => return None,
            }
        }
        Some(())
    }
}

/// Accepts a client, whose reads and writes do not wait.
fn accept(listener: RawFd) -> io::Result<File> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes numbers; nobody's address is asked for.
    let client = unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    if client < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is new and nobody else's.
    Ok(unsafe { File::from_raw_fd(client) })
}
