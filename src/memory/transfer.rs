//! Bulk data between guest memory and the host's files, moved by the kernel without an intermediate
//! copy.
//!
//! The calls bypass the C library's wrappers. Those are cancellation points, which this program
//! does not use and which cost two atomic operations per call in a process with two threads.

#![expect(unsafe_code, reason = "system calls read and write guest memory")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{SYS_pread64, SYS_pwrite64, SYS_read, SYS_write, c_long, syscall};
use vm_memory::{VolatileMemory, VolatileSlice};

use super::PAGE_SIZE;
use crate::host::signal;

/// Guest memory for the host to read. The guest may change it at any time.
#[derive(Clone, Copy, Debug)]
pub struct GuestBytes<'m>(pub(super) VolatileSlice<'m>);

/// Guest memory for the host to write.
#[derive(Clone, Copy, Debug)]
pub struct GuestBuffer<'m>(pub(super) VolatileSlice<'m>);

/// Most bytes that one system call moves between guest memory and a file. Signals do not interrupt
/// such a call, and a guest may request all of its memory in one request.
pub(super) const PIECE: usize = 1 << 20;

/// Makes one `read(2)` or `write(2)`.
#[inline]
fn once(call: c_long, fd: BorrowedFd<'_>, memory: &VolatileSlice<'_>) -> io::Result<usize> {
    let pointer = memory.ptr_guard_mut();
    // SAFETY: the slice is inside a live mapping that no Rust reference points into, and the kernel
    // tolerates bytes that change while it reads.
    let moved = unsafe { syscall(call, fd.as_raw_fd(), pointer.as_ptr(), memory.len()) };
    usize::try_from(moved).map_err(|_| failed(memory))
}

/// Returns the error of the last call on `memory`. If a page that is shared with the unikernel's
/// file cannot be read, touching it ends the process with a message.
#[cold]
fn failed(memory: &VolatileSlice<'_>) -> io::Error {
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EFAULT) {
        let pages = (0..memory.len()).step_by(PAGE_SIZE as usize);
        for offset in pages.chain(memory.len().checked_sub(1)) {
            let byte = memory.get_ref::<u8>(offset);
            let _ = byte.map(|byte| byte.load());
        }
    }
    error
}

/// Repeats `pread(2)` or `pwrite(2)` until all bytes are moved. An earlier end of file is
/// `UnexpectedEof`, the end of the run `Interrupted`.
#[inline]
fn all(
    call: c_long,
    file: BorrowedFd<'_>,
    memory: &VolatileSlice<'_>,
    offset: u64,
) -> io::Result<()> {
    let pointer = memory.ptr_guard_mut();
    let mut done = 0;
    while done < memory.len() {
        let piece = PIECE.min(memory.len() - done);
        let position = (offset + done as u64) as libc::off_t;
        let at = pointer.as_ptr().wrapping_add(done);
        // SAFETY: as in `once`; `done + piece` is at most the slice's length.
        match unsafe { syscall(call, file.as_raw_fd(), at, piece, position) } {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            moved @ 1.. => done += moved as usize,
            _ => match failed(memory) {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
        if done < memory.len() && signal::received().is_some() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    Ok(())
}

impl GuestBytes<'_> {
    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the bytes from `start` on; none if `start` is past the end.
    pub fn skip(&self, start: usize) -> Self {
        let start = start.min(self.len());
        GuestBytes(self.0.offset(start).unwrap_or(self.0))
    }

    /// Returns the first `len` bytes, or all if there are fewer.
    pub fn first(&self, len: usize) -> Self {
        GuestBytes(self.0.subslice(0, len.min(self.len())).unwrap_or(self.0))
    }

    /// Copies as many bytes as fit into `target`; returns the number.
    pub fn copy_to(&self, target: &mut [u8]) -> usize {
        self.0.copy_to(target)
    }

    /// Makes one `write(2)` of these bytes to `fd`.
    #[inline]
    pub fn write_to(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        once(SYS_write, fd, &self.0)
    }

    /// Writes all of these bytes to `file` at `offset`: one `pwrite(2)` per MiB unless the host
    /// writes less.
    #[inline]
    pub fn write_all_at(&self, file: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
        all(SYS_pwrite64, file, &self.0, offset)
    }
}

impl GuestBuffer<'_> {
    /// Makes one `read(2)` from `fd` into these bytes.
    #[inline]
    pub fn read_from(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        once(SYS_read, fd, &self.0)
    }

    /// Fills all of these bytes from `file` at `offset`: one `pread(2)` per MiB unless the host
    /// reads less.
    #[inline]
    pub fn read_exact_at(&self, file: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
        all(SYS_pread64, file, &self.0, offset)
    }
}
