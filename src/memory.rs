//! Guest memory: one region of host memory that is the guest's RAM from guest-physical address 0 up.
//!
//! Everything in it is under the guest's control and may change at any moment. So nothing here hands out a Rust
//! reference into it: values are copied out once ([`GuestMemory::read`]), and bulk data moves between guest memory
//! and a file descriptor in the kernel ([`GuestBytes`], [`GuestBuffer`]). Bytes that the guest itself may not write
//! — its text, its page tables, the boot pages — the tender does not write on its behalf either.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::{MmapRegion, VolatileMemory, VolatileSlice};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::signal;

pub use vm_memory::GuestAddress;

#[cfg(test)]
mod tests;

/// Size of a page in the guest's own tables, whatever the host's page size.
pub const PAGE_SIZE: u64 = 4096;

/// Size of a huge page of hosts with 4 KiB pages, and of the blocks in the guest's own tables.
const HUGE_PAGE_SIZE: usize = 2 << 20;

/// Why guest memory could not be had or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host has no memory to give.
    #[error("cannot reserve {size} bytes of guest memory: {source}")]
    Reserve {
        /// Bytes asked for.
        size: u64,
        /// The host's reason.
        source: io::Error,
    },
    /// The host does not keep so much memory in RAM for this user.
    #[error("cannot lock {size} bytes of guest memory: {source}; RLIMIT_MEMLOCK is {limit} bytes: {cure}")]
    Lock {
        /// Bytes to be locked.
        size: u64,
        /// The host's reason.
        source: io::Error,
        /// What this process may lock.
        limit: u64,
        /// What to do.
        cure: &'static str,
    },
    /// The range is not all RAM.
    #[error("{len} bytes at {addr:#x} do not lie within the {size:#x} bytes of guest memory")]
    OutOfRange {
        /// First address.
        addr: u64,
        /// Bytes.
        len: u64,
        /// Size of guest memory.
        size: u64,
    },
    /// The range is RAM, but the guest has no right to write all of it.
    #[error("{len} bytes at {addr:#x} touch memory that the guest may not write")]
    ReadOnly {
        /// First address.
        addr: u64,
        /// Bytes.
        len: u64,
    },
}

/// What the guest may do with a range of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: not mapped.
    None,
    /// Read.
    Read,
    /// Read and write, never execute.
    ReadWrite,
    /// Read and execute, never write.
    ReadExecute,
    /// Everything. Only for images of the era that has it.
    All,
}

impl Access {
    /// Whether the guest may write.
    pub fn is_writable(self) -> bool {
        matches!(self, Access::ReadWrite | Access::All)
    }

    /// Whether the guest may execute.
    pub fn is_executable(self) -> bool {
        matches!(self, Access::ReadExecute | Access::All)
    }
}

/// A range of guest memory with its access. Both ends are multiples of [`PAGE_SIZE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Guest-physical addresses.
    pub range: Range<u64>,
    /// What the guest may do there.
    pub access: Access,
}

/// The guest's RAM.
#[derive(Debug)]
pub struct GuestMemory {
    /// Host memory: the guest's RAM, and before it what aligns it.
    region: MmapRegion,
    /// Where in `region` the guest's RAM begins.
    start: usize,
    /// Bytes of RAM.
    size: u64,
    /// What the guest may not write, sorted, neighbours merged: with ordinary images a single range.
    read_only: Vec<Range<u64>>,
}

impl GuestMemory {
    /// Reserves `size` bytes, all zero, all writable. Host memory is taken when it is first touched.
    ///
    /// The guest's huge pages are to be the host's too, for which both must be aligned alike.
    pub fn new(size: u64) -> Result<GuestMemory, Error> {
        let reserve_error = |source| Error::Reserve { size, source };
        let length = usize::try_from(size).ok().and_then(|size| size.checked_add(HUGE_PAGE_SIZE));
        let length = length.ok_or_else(|| reserve_error(io::Error::from_raw_os_error(libc::ENOMEM)))?;
        let region = MmapRegion::build(
            None,
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        )
        .map_err(|error| match error {
            vm_memory::mmap::MmapRegionError::Mmap(source) => reserve_error(source),
            other => reserve_error(io::Error::other(other)),
        })?;
        let start = region.as_ptr().align_offset(HUGE_PAGE_SIZE);
        let memory = GuestMemory { region, start, size, read_only: Vec::new() };
        memory.keep_small(0);
        memory.keep_small((size as usize).saturating_sub(HUGE_PAGE_SIZE));
        Ok(memory)
    }

    /// Keeps the host from using a huge page for the 2 MiB at `offset`: it would have to be zeroed whole at every
    /// start, for the few pages that a small unikernel touches there. At the bottom lie tables and text, which the
    /// guest maps by small pages anyway; at the top lies its stack. Where the kernel has no huge pages, this fails,
    /// and may.
    fn keep_small(&self, offset: usize) {
        if cfg!(miri) {
            // Miri has no such pages.
            return;
        }
        let address = self.region.as_ptr().wrapping_add(self.start + offset);
        let length = HUGE_PAGE_SIZE.min(self.size as usize);
        // SAFETY: the range lies within our own fresh mapping, and the advice changes nothing in it.
        unsafe { libc::madvise(address.cast(), length, libc::MADV_NOHUGEPAGE) };
    }

    /// Takes all of the host's memory for it now, and keeps it in RAM: what the guest touches first is no slower than
    /// the rest, and a host without memory to spare is found out at the start.
    ///
    /// # Errors
    /// [`Error::Lock`], with what to do about it.
    pub fn lock(&self) -> Result<(), Error> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the range is our own mapping, and locking changes nothing in it.
        if unsafe { libc::mlock(self.host_address() as *const libc::c_void, self.size as usize) } == 0 {
            return Ok(());
        }
        let source = io::Error::last_os_error();
        // SAFETY: the kernel writes the one structure.
        unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
        let cure = if limit.rlim_cur < self.size {
            "raise it (LimitMEMLOCK= of a unit, ulimit -l), or leave --lock-memory out"
        } else {
            "free memory, or give the guest less by --mem"
        };
        Err(Error::Lock { size: self.size, source, limit: limit.rlim_cur, cure })
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the guest's RAM lies in the tender, for the hypervisor to map.
    pub fn host_address(&self) -> u64 {
        self.region.as_ptr() as u64 + self.start as u64
    }

    /// Refuses, from now on, to write for the guest where `map` lets it not write itself. `map` is in ascending
    /// order.
    pub fn protect(&mut self, map: &[Mapping]) {
        self.read_only.clear();
        for mapping in map.iter().filter(|mapping| !mapping.access.is_writable()) {
            match self.read_only.last_mut() {
                Some(last) if last.end == mapping.range.start => last.end = mapping.range.end,
                _ => self.read_only.push(mapping.range.clone()),
            }
        }
    }

    fn slice(&self, addr: u64, len: u64) -> Result<VolatileSlice<'_>, Error> {
        let out_of_range = Error::OutOfRange { addr, len, size: self.size };
        if addr.checked_add(len).is_none_or(|end| end > self.size) {
            return Err(out_of_range);
        }
        // No larger than `size`, which is a part of what was mapped.
        self.region.get_slice(self.start + addr as usize, len as usize).map_err(|_| out_of_range)
    }

    /// The `len` bytes at `addr`, for both sides to use at once.
    pub(crate) fn volatile(&self, addr: GuestAddress, len: u64) -> Result<VolatileSlice<'_>, Error> {
        self.slice(addr.0, len)
    }

    /// The `len` bytes at `addr`, for the host to read. A range that ends exactly at the end of memory is fine.
    pub fn bytes(&self, addr: GuestAddress, len: u64) -> Result<GuestBytes<'_>, Error> {
        Ok(GuestBytes(self.slice(addr.0, len)?))
    }

    /// The `len` bytes at `addr`, for the host to write; all of them must be writable by the guest itself.
    pub fn buffer(&self, addr: GuestAddress, len: u64) -> Result<GuestBuffer<'_>, Error> {
        let slice = self.slice(addr.0, len)?;
        let end = addr.0 + len;
        if self.read_only.iter().any(|range| addr.0.max(range.start) < end.min(range.end)) {
            return Err(Error::ReadOnly { addr: addr.0, len });
        }
        Ok(GuestBuffer(slice))
    }

    /// Copies a value out of guest memory: the only look the tender takes at it.
    #[inline]
    pub fn read<T: FromBytes + IntoBytes>(&self, addr: GuestAddress) -> Result<T, Error> {
        let slice = self.slice(addr.0, size_of::<T>() as u64)?;
        let mut value = T::new_zeroed();
        slice.copy_to(value.as_mut_bytes());
        Ok(value)
    }

    /// Copies a value into memory that the guest may write.
    #[inline]
    pub fn write<T: IntoBytes + Immutable>(&self, addr: GuestAddress, value: T) -> Result<(), Error> {
        let buffer = self.buffer(addr, size_of::<T>() as u64)?;
        buffer.0.copy_from(value.as_bytes());
        Ok(())
    }

    /// Copies the tender's own data (tables, boot info) anywhere into guest memory. For set-up only.
    pub fn place(&self, addr: GuestAddress, data: &[u8]) -> Result<(), Error> {
        self.slice(addr.0, data.len() as u64)?.copy_from(data);
        Ok(())
    }

    /// Fills `len` bytes at `addr` from `file` at `offset`, whatever the guest's access. For set-up only.
    pub fn load(
        &self,
        addr: GuestAddress,
        len: u64,
        file: BorrowedFd<'_>,
        offset: u64,
    ) -> Result<io::Result<()>, Error> {
        Ok(GuestBuffer(self.slice(addr.0, len)?).read_exact_at(file, offset))
    }
}

/// Bytes of guest memory that the host may read. They can change under it at any time.
#[derive(Clone, Copy, Debug)]
pub struct GuestBytes<'m>(VolatileSlice<'m>);

/// Bytes of guest memory that the host may write.
#[derive(Clone, Copy, Debug)]
pub struct GuestBuffer<'m>(VolatileSlice<'m>);

/// Turns the result of a system call into a count or its error.
fn count(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Most bytes that one system call moves between guest memory and a file, which no signal interrupts: what a guest may
/// ask for at once is all of its memory.
const PIECE: usize = 1 << 20;

/// Repeats `transfer(done, piece)` until `len` bytes are through; an end before that is `UnexpectedEof`, and the end of
/// the run `Interrupted`.
fn repeat(len: usize, mut transfer: impl FnMut(usize, usize) -> io::Result<usize>) -> io::Result<()> {
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
        count(unsafe { libc::write(fd.as_raw_fd(), pointer.as_ptr().cast(), self.0.len()) })
    }

    /// Writes all of these bytes to `file` at `offset`; one `pwrite(2)` for each MiB unless the host stops short.
    #[inline]
    pub fn write_all_at(&self, file: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
        let pointer = self.0.ptr_guard();
        repeat(self.0.len(), |done, piece| {
            let position = (offset + done as u64) as libc::off_t;
            // SAFETY: as in `write_to`; `done + piece` is at most the slice's length.
            count(unsafe { libc::pwrite(file.as_raw_fd(), pointer.as_ptr().add(done).cast(), piece, position) })
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
        count(unsafe { libc::read(fd.as_raw_fd(), pointer.as_ptr().cast(), self.0.len()) })
    }

    /// Fills all of these bytes from `file` at `offset`; one `pread(2)` for each MiB unless the host stops short.
    #[inline]
    pub fn read_exact_at(&self, file: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
        let pointer = self.0.ptr_guard_mut();
        repeat(self.0.len(), |done, piece| {
            let position = (offset + done as u64) as libc::off_t;
            // SAFETY: as in `read_from`; `done + piece` is at most the slice's length.
            count(unsafe { libc::pread(file.as_raw_fd(), pointer.as_ptr().add(done).cast(), piece, position) })
        })
    }
}
