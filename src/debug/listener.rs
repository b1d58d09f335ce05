//! Where gdb connects to: a TCP port of this host alone, once, before the guest's first instruction.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use kvm_ioctls::VmFd;

use super::{Guest, Session};
use crate::{arch, signal};

/// Why no debugger can be waited for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port cannot be had.
    #[error("--gdb: cannot listen at 127.0.0.1:{port}: {source}; give another port by --gdb-port, or 0 for any")]
    Listen {
        /// The port.
        port: u16,
        /// The host's reason.
        source: io::Error,
    },
    /// The connection cannot be used.
    #[error("--gdb: cannot talk to the debugger: {0}")]
    Connection(io::Error),
}

/// A port where a debugger is waited for.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    unikernel: PathBuf,
}

impl Listener {
    /// Opens the port; 0 is any that is free. Whoever reaches it has the guest, so it is never one of the network's.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub fn bind(port: u16, unikernel: &Path) -> Result<Listener, Error> {
        let opened = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let (address, socket) = opened
            .and_then(|socket| Ok((socket.local_addr()?, socket)))
            .map_err(|source| Error::Listen { port, source })?;
        Ok(Listener { socket, address, unikernel: unikernel.to_owned() })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells how to connect, and waits until somebody does, for a session about `guest`, the one of `vm`. From then on,
    /// what a debugger sends interrupts the guest's thread, which is to be the one that calls.
    ///
    /// # Errors
    /// [`Error::Connection`].
    pub fn accept<'m>(self, vm: &VmFd, guest: &mut Guest<'m>) -> Result<Session<'m>, Error> {
        let (address, file) = (self.address, self.unikernel.display());
        log::warn!("waiting for gdb; connect by: gdb -ex 'target remote {address}' {file}");
        let accept = || loop {
            match self.socket.accept() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                accepted => return accepted,
            }
        };
        let (stream, _) = accept().map_err(Error::Connection)?;
        stream.set_nodelay(true).map_err(Error::Connection)?;
        signal::heed_debugger().map_err(|error| Error::Connection(error.into()))?;
        call_when_readable(stream.as_raw_fd()).map_err(Error::Connection)?;
        guest.points.capacity = arch::hardware_points(vm);
        // As a file it is read and written by just these calls, which take no address.
        Ok(Session::new(OwnedFd::from(stream).into(), guest))
    }
}

/// Has the kernel send SIGIO to this thread when there is something to read.
fn call_when_readable(fd: RawFd) -> io::Result<()> {
    // SAFETY: the calls take plain numbers. Not libc's gettid: see `signal::claim_thread`.
    let done = unsafe {
        let owner = Owner { kind: F_OWNER_TID, id: libc::syscall(libc::SYS_gettid) as i32 };
        libc::fcntl(fd, F_SETOWN_EX, &raw const owner) == 0
            && libc::fcntl(fd, libc::F_SETFL, libc::fcntl(fd, libc::F_GETFL) | libc::O_ASYNC) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The kernel's `struct f_owner_ex`, of linux/fcntl.h, which libc does not have for all targets.
#[repr(C)]
struct Owner {
    kind: i32,
    id: i32,
}

const F_SETOWN_EX: i32 = 15;
const F_OWNER_TID: i32 = 0;
