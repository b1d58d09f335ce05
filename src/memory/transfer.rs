//! Bulk data between guest memory and the host's files, moved by the kernel from where it lies to where it goes.
//!
//! The calls are made without the C library's wrappers: those are points where a thread can be cancelled, which nobody
//! does here, and which costs each of them two atomic operations in a process with two threads.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{SYS_pread64, SYS_pwrite64, SYS_read, SYS_write, c_long, syscall};
use vm_memory::VolatileSlice;

use crate::host::signal;

/// Bytes of guest memory that the host may read. They can change under it at any time.
#[derive(Clone, Copy, Debug)]
pub struct GuestBytes<'m>(pub(super) VolatileSlice<'m>);

/// Bytes of guest memory that the host may write.
#[derive(Clone, Copy, Debug)]
pub struct GuestBuffer<'m>(pub(super) VolatileSlice<'m>);

/// Turns the result of a system call into a count or its error.
fn count(result: c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Most bytes that one system call moves between guest memory and a file, which no signal interrupts: what a guest may
/// ask for at once is all of its memory.
pub(super) const PIECE: usize = 1 << 20;

/// Repeats `transfer(done, piece)` until `len` bytes are through; an end before that is `UnexpectedEof`, and the end of
/// the run `Interrupted`.
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
    /// How many bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes from `start` on; none when that is beyond the end.
    pub fn skip(&self, start: usize) -> Self {
        let start = start.min(self.len());
        GuestBytes(self.0.offset(start).unwrap_or(self.0))
    }

    /// The first `len` bytes; all of them when there are no more.
    pub fn first(&self, len: usize) -> Self {
        GuestBytes(self.0.subslice(0, len.min(self.len())).unwrap_or(self.0))
    }

    /// Copies as many bytes out as `target` holds and there are; returns how many.
    pub fn copy_to(&self, target: &mut [u8]) -> usize {
        self.0.copy_to(target)
    }

    /// One `write(2)` of these bytes to `fd`.
    #[inline]
    pub fn write_to(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let pointer = self.0.ptr_guard();
        // SAFETY: the slice lies within a live mapping, and the kernel copes with bytes that change while it reads.
        count(unsafe { syscall(SYS_write, fd.as_raw_fd(), pointer.as_ptr(), self.0.len()) })
    }

    /// Writes all of these bytes to `file` at `offset`; one `pwrite(2)` for each MiB unless the host stops short.
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
    /// How many bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One `read(2)` from `fd` into these bytes.
    #[inline]
    pub fn read_from(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let pointer = self.0.ptr_guard_mut();
        // SAFETY: the slice lies within a live mapping that no Rust reference points into; the kernel writes at most
        // its length.
        count(unsafe { syscall(SYS_read, fd.as_raw_fd(), pointer.as_ptr(), self.0.len()) })
    }

    /// Fills all of these bytes from `file` at `offset`; one `pread(2)` for each MiB unless the host stops short.
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
