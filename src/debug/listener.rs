//! Listens for gdb, once, before the guest's first instruction: on a TCP port of localhost, or on a
//! Unix socket.
//!
//! A client becomes the debugger when it has sent a packet of gdb's protocol. Until then the guest
//! waits: a port probe or a silent client neither takes gdb's place nor delays gdb.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kvm_ioctls::VmFd;
use rustix::fs::OFlags;
use rustix::net::SocketFlags;

use super::points::Points;
use super::wire::{Opening, Wire};
use super::{Guest, Session};
use crate::arch::{Debugging, Vcpu};
use crate::config::{GdbAddress, SocketAddress};
use crate::host::files::Files;
use crate::host::signal;
use crate::host::unix_socket;

/// How long a client may take to send its first packet.
const PATIENCE: Duration = Duration::from_secs(5);

/// Maximum number of clients. One more replaces the first.
const CLIENTS: usize = 8;

/// Errors of `--gdb`.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub(crate) enum Error {
    #[error("--gdb: cannot listen at 127.0.0.1:{port}: {source}")]
    #[diagnostic(help("choose another port with --gdb-port, or 0 for any"))]
    Listen { port: u16, source: io::Error },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Socket(#[from] unix_socket::Error),
    #[error("--gdb: connection failed: {0}")]
    Connection(io::Error),
    #[error("--gdb: no debugger connected within {0} s (--timeout)")]
    Timeout(u64),
}

/// A socket that listens for a debugger.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    /// Argument of gdb's `target remote`.
    target: String,
    unikernel: PathBuf,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(unix_socket::Listener),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

/// A client that has yet to send a packet.
struct Client {
    wire: Wire,
    deadline: Instant,
}

impl Listener {
    /// Opens the port or socket. A client that reaches it controls the guest, so a port is open to
    /// localhost only.
    ///
    /// # Errors
    /// [`Error::Listen`], [`Error::Socket`].
    pub(crate) fn bind(
        address: &GdbAddress,
        unikernel: &Path,
        files: &mut Files,
    ) -> Result<Listener, Error> {
        let (socket, target) = match address {
            GdbAddress::Port(port) => {
                unix_socket::may_wait("--gdb")?;
                listen(*port).map_err(|source| Error::Listen {
                    port: *port,
                    source,
                })?
            }
            GdbAddress::Unix(address) => {
                let target = match address {
                    SocketAddress::Path(path) => path.display().to_string(),
                    SocketAddress::Abstract(name) => {
                        log::warn!(
                            "--gdb-port=unix:{address}: any user in this network namespace can connect; give a path"
                        );
                        format!(
                            "| socat - ABSTRACT-CONNECT:{}",
                            String::from_utf8_lossy(name)
                        )
                    }
                };
                (
                    Socket::Unix(unix_socket::Listener::bind("--gdb-port", address, files)?),
                    target,
                )
            }
        };
        Ok(Listener {
            socket,
            target,
            unikernel: unikernel.to_owned(),
        })
    }

    /// Checks that [`Listener::bind`] would succeed, and returns the address. Makes no file.
    ///
    /// # Errors
    /// Those of [`Listener::bind`].
    pub(crate) fn probe(address: &GdbAddress, files: &mut Files) -> Result<String, Error> {
        match address {
            GdbAddress::Port(_) => Ok(Listener::bind(address, Path::new(""), files)?.target),
            GdbAddress::Unix(address) => {
                unix_socket::Listener::probe("--gdb-port", address, files)?;
                Ok(format!("unix:{address}"))
            }
        }
    }

    /// Logs how to connect, waits for a debugger, and returns a session about `guest`, which `vm`
    /// runs. From then on, data from the debugger interrupts the calling thread, which must be the
    /// guest's.
    ///
    /// # Errors
    /// [`Error::Connection`]; [`Error::Timeout`] if there is a `limit` and no debugger within it.
    pub(crate) fn accept<'m>(
        self,
        vm: Option<&VmFd>,
        guest: &mut Guest<'m>,
        limit: Option<Duration>,
    ) -> Result<Session<'m>, Error> {
        log::warn!(
            "waiting for gdb; connect with: gdb -ex 'target remote {}' {}",
            self.target,
            self.unikernel.display()
        );
        let wire = self.debugger(limit)?;
        signal::handle_sigio().map_err(|error| Error::Connection(error.into()))?;
        enable_sigio(&wire).map_err(Error::Connection)?;
        guest.points = Points::with_capacity(Vcpu::hardware_points(vm));
        Ok(Session::new(wire, guest))
    }

    /// Waits for the first client that sends a packet.
    fn debugger(&self, limit: Option<Duration>) -> Result<Wire, Error> {
        let end = limit.map(|limit| Instant::now() + limit);
        let mut clients: Vec<Client> = Vec::new();
        loop {
            let now = Instant::now();
            if let (Some(limit), true) = (limit, end.is_some_and(|end| end <= now)) {
                return Err(Error::Timeout(limit.as_secs()));
            }
            clients.retain(|client| client.deadline > now || no_debugger());
            let next = clients
                .iter()
                .map(|client| client.deadline)
                .chain(end)
                .min();
            let listener = self.socket.as_fd().as_raw_fd();
            let mut polls: Vec<_> = clients
                .iter()
                .map(|client| poll_in(client.wire.descriptor()))
                .collect();
            polls.push(poll_in(listener));
            unix_socket::poll(&mut polls, next.map(|next| next - now))
                .map_err(Error::Connection)?;
            for place in (0..clients.len())
                .rev()
                .filter(|place| polls[*place].revents != 0)
            {
                match clients[place].wire.more() {
                    Opening::Packet => return Ok(clients.swap_remove(place).wire),
                    Opening::Unfinished => {}
                    Opening::Foreign => {
                        clients.remove(place);
                        no_debugger();
                    }
                }
            }
            if polls.last().is_some_and(|poll| poll.revents != 0) {
                self.accept_client(&mut clients)
                    .map_err(Error::Connection)?;
            }
        }
    }

    fn accept_client(&self, clients: &mut Vec<Client>) -> io::Result<()> {
        let stream = match unix_socket::accept(self.socket.as_fd(), SocketFlags::empty()) {
            Ok(stream) => stream,
            // The client has disconnected, or a signal arrived.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let stream = match self.socket {
            Socket::Unix(_) => stream,
            Socket::Tcp(_) => {
                let stream = TcpStream::from(stream);
                // A failure costs only time.
                let _ = stream.set_nodelay(true);
                stream.into()
            }
        };
        clients.push(Client {
            wire: Wire::new(stream),
            deadline: Instant::now() + PATIENCE,
        });
        if clients.len() > CLIENTS {
            clients.remove(0);
            no_debugger();
        }
        Ok(())
    }
}

fn no_debugger() -> bool {
    log::info!("--gdb: a client sent no gdb packet; waiting for another");
    false
}

fn poll_in(fd: RawFd) -> libc::pollfd {
    libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    }
}

/// Listens on a TCP port of localhost.
fn listen(port: u16) -> io::Result<(Socket, String)> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    // A client may disconnect before it is accepted; then accepting must not wait.
    socket.set_nonblocking(true)?;
    let target = socket.local_addr()?.to_string();
    Ok((Socket::Tcp(socket), target))
}

/// Makes the kernel send SIGIO to this thread when there is something to read.
fn enable_sigio(wire: &Wire) -> io::Result<()> {
    signal::own(wire.descriptor())?;
    let flags = rustix::fs::fcntl_getfl(wire)?;
    Ok(rustix::fs::fcntl_setfl(wire, flags | OFlags::ASYNC)?)
}
