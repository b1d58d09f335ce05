//! Bulk data between guest memory and the host's files, moved by the kernel without an intermediate
//! copy.
//!
//! The calls bypass the C library's wrappers. Those are cancellation points, which this program
//! does not use and which cost two atomic operations per call in a process with two threads.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{SYS_pread64, SYS_pwrite64, SYS_read, SYS_write, c_long, syscall};
use vm_memory::VolatileSlice;

use crate::host::signal;

/// Guest memory for the host to read. The guest may change it at any time.
#[derive(Clone, Copy, Debug)]
pub struct GuestBytes<'m>(pub(super) VolatileSlice<'m>);

/// Guest memory for the host to write.
#[derive(Clone, Copy, Debug)]
pub struct GuestBuffer<'m>(pub(super) VolatileSlice<'m>);

/// Converts the result of a system call into a count or an error.
fn count(result: c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Most bytes that one system call moves between guest memory and a file. Signals do not interrupt
/// such a call, and a guest may request all of its memory in one request.
pub(super) const PIECE: usize = 1 << 20;

/// Repeats `transfer(done, piece)` until `len` bytes are moved. An earlier end of file is
/// `UnexpectedEof`, the end of the run `Interrupted`.
fn repeat(
    len: usize,
    mut transfer: impl FnMut(usize, usize) -> io::Result<usize>,
) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        match transfer(done, PIECE.min(len - done)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if done < len && signal::received().is_some() {
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
        let pointer = self.0.ptr_guard();
        // SAFETY: the slice is inside a live mapping, and the kernel tolerates bytes that change
        // while it reads.
        count(unsafe { syscall(SYS_write, fd.as_raw_fd(), pointer.as_ptr(), self.0.len()) })
    }

    /// Writes all of these bytes to `file` at `offset`: one `pwrite(2)` per MiB unless the host
    /// writes less.
    #[inline]
    pub fn write_all_at(&self, file: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
        let pointer = self.0.ptr_guard();
        repeat(self.0.len(), |done, piece| {
            let position = (offset + done as u64) as libc::off_t;
            // SAFETY: as in `write_to`; `done + piece` is at most the slice's length.
            count(unsafe {
                syscall(
                    SYS_pwrite64,
                    file.as_raw_fd(),
                    pointer.as_ptr().add(done),
                    piece,
                    position,
                )
            })
        })
    }
}

impl GuestBuffer<'_> {
    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes one `read(2)` from `fd` into these bytes.
    #[inline]
    pub fn read_from(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let pointer = self.0.ptr_guard_mut();
        // SAFETY: the slice is inside a live mapping that no Rust reference points into; the kernel
        // writes at most its length.
        count(unsafe { syscall(SYS_read, fd.as_raw_fd(), pointer.as_ptr(), self.0.len()) })
    }

    /// Fills all of these bytes from `file` at `offset`: one `pread(2)` per MiB unless the host
    /// reads less.
    #[inline]
    pub fn read_exact_at(&self, file: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
        let pointer = self.0.ptr_guard_mut();
        repeat(self.0.len(), |done, piece| {
            let position = (offset + done as u64) as libc::off_t;
            // SAFETY: as in `read_from`; `done + piece` is at most the slice's length.
            count(unsafe {
                syscall(
                    SYS_pread64,
                    file.as_raw_fd(),
                    pointer.as_ptr().add(done),
                    piece,
                    position,
                )
            })
        })
    }
}
