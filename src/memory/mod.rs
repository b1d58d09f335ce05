//! Guest memory: one region of host memory that is the guest's RAM from guest-physical address 0
//! up.
//!
//! The guest controls all of it and may change it at any time. So this module returns no Rust
//! reference into it: values are copied out once ([`GuestMemory::read`]), and the kernel moves bulk
//! data between guest memory and a file descriptor ([`GuestBytes`], [`GuestBuffer`]). The tender
//! does not write bytes for the guest that the guest itself may not write: its text, its page
//! tables, the boot pages.

#![expect(unsafe_code, reason = "advice, locks and mappings of guest memory")]

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{Ordering, compiler_fence};

use vm_memory::{MmapRegion, VolatileMemory, VolatileSlice};
use zerocopy::{FromBytes, Immutable, IntoBytes};

mod error;
mod transfer;

use crate::config::HugePages;
pub use error::{Error, RangeError};
use error::{limit_below, limits};
pub use transfer::{GuestBuffer, GuestBytes};
pub use vm_memory::GuestAddress;

#[cfg(test)]
mod tests;

/// Page size in the guest's page tables, independent of the host's page size.
pub const PAGE_SIZE: u64 = 4096;

/// Huge page size of hosts with 4 KiB pages, and block size in the guest's page tables.
const HUGE_PAGE_SIZE: u64 = 2 << 20;

/// Largest guest without huge pages by default (docs/decisions/12-huge-pages.md).
const SMALL: u64 = 64 << 20;

/// The guest's access to a range of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Not mapped.
    None,
    /// Read only.
    Read,
    /// Read and write, never execute.
    ReadWrite,
    /// Read and execute, never write.
    ReadExecute,
    /// Read, write and execute. Only for images of the era that had it.
    All,
}

impl Access {
    /// Returns whether the guest may write.
    pub fn is_writable(self) -> bool {
        matches!(self, Access::ReadWrite | Access::All)
    }

    /// Returns whether the guest may execute.
    pub fn is_executable(self) -> bool {
        matches!(self, Access::ReadExecute | Access::All)
    }
}

/// A range of guest memory with its access. Both ends are multiples of [`PAGE_SIZE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Guest-physical addresses.
    pub range: Range<u64>,
    /// The guest's access.
    pub access: Access,
}

/// Returns the host's page size.
pub(crate) fn host_page_size() -> usize {
    // SAFETY: the call takes a number.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(PAGE_SIZE as usize)
}

/// The guest's RAM.
#[derive(Debug)]
pub struct GuestMemory {
    /// Host mapping: alignment padding, then the guest's RAM.
    region: MmapRegion,
    /// Offset of the guest's RAM in `region`.
    start: usize,
    /// Bytes of RAM.
    size: u64,
    /// Whether a child shares it.
    is_shared: bool,
    /// The guest's access to each page, in ascending order.
    mappings: Vec<Mapping>,
    /// Ranges that the guest may not write, sorted and merged: a single one in ordinary images.
    read_only: Vec<Range<u64>>,
    /// End of the last of those ranges: everything above is writable, and nearly all accesses are
    /// there.
    writable_from: u64,
}

impl GuestMemory {
    /// Reserves `size` bytes, all zero, all writable. The host allocates a page when it is first
    /// touched.
    ///
    /// Guest-physical and host addresses have the same alignment, so that huge pages of both
    /// coincide.
    pub fn new(size: u64) -> Result<GuestMemory, Error> {
        GuestMemory::of(size, libc::MAP_PRIVATE)
    }

    /// As [`GuestMemory::new`], for a guest that is a process: a child of this one shares it.
    pub fn shared(size: u64) -> Result<GuestMemory, Error> {
        GuestMemory::of(size, libc::MAP_SHARED)
    }

    fn of(size: u64, sharing: libc::c_int) -> Result<GuestMemory, Error> {
        let reserve_error = |source| Error::Reserve {
            size,
            source,
            limit: limit_below(size),
        };
        let length = usize::try_from(size)
            .ok()
            .and_then(|size| size.checked_add(HUGE_PAGE_SIZE as usize));
        let length =
            length.ok_or_else(|| reserve_error(io::Error::from_raw_os_error(libc::ENOMEM)))?;
        let region = MmapRegion::build(
            None,
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            sharing | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        )
        .map_err(|error| match error {
            vm_memory::mmap::MmapRegionError::Mmap(source) => reserve_error(source),
            other => reserve_error(io::Error::other(other)),
        })?;
        let start = region.as_ptr().align_offset(HUGE_PAGE_SIZE as usize);
        let memory = GuestMemory {
            region,
            start,
            size,
            is_shared: sharing == libc::MAP_SHARED,
            mappings: Vec::new(),
            read_only: Vec::new(),
            writable_from: 0,
        };
        // Keep guest memory out of a core file of the tender; `--dumpcore` reads the memory itself.
        memory.advise(0..size, libc::MADV_DONTDUMP);
        Ok(memory)
    }

    /// Chooses where the host may use huge pages, for an image that ends at `image_end`. Call it
    /// before the memory is loaded or locked, because both allocate pages. Kernels without huge pages
    /// reject the advice, which is harmless.
    ///
    /// The host zeroes a huge page whole, even if the guest touches a few bytes of it. That is the
    /// rule for image and stack: of the 2 MiB at the top a unikernel uses a few KiB.
    pub fn huge_pages(&self, choice: HugePages, image_end: u64) {
        // A process moves its memory, which must be a single mapping.
        if self.is_shared && choice == HugePages::Auto {
            return;
        }
        match choice {
            HugePages::On => self.advise(0..self.size, libc::MADV_HUGEPAGE),
            HugePages::Auto if self.size > SMALL => {
                let heap = image_end.min(self.size).next_multiple_of(HUGE_PAGE_SIZE);
                let stack = self.size.saturating_sub(HUGE_PAGE_SIZE);
                self.advise(0..heap.min(self.size), libc::MADV_NOHUGEPAGE);
                self.advise(stack..self.size, libc::MADV_NOHUGEPAGE);
            }
            HugePages::Auto | HugePages::Off => self.advise(0..self.size, libc::MADV_NOHUGEPAGE),
        }
    }

    fn advise(&self, range: Range<u64>, advice: libc::c_int) {
        if cfg!(miri) {
            // Miri does not support madvise.
            return;
        }
        let start = self.start + range.start as usize;
        let length = (range.end - range.start) as usize;
        let address = self.region.as_ptr().wrapping_add(start);
        // SAFETY: the range is inside our mapping, and the advice changes no data.
        unsafe { libc::madvise(address.cast(), length, advice) };
    }

    /// Allocates all of the memory and locks it in RAM. A guest's first access to a page is then as
    /// fast as later ones, and a host without enough memory fails at the start.
    ///
    /// # Errors
    /// [`Error::Lock`], with a hint.
    pub fn lock(&self) -> Result<(), Error> {
        let memory = self.region.as_ptr().wrapping_add(self.start).cast();
        // SAFETY: the range is our mapping, and locking changes no data.
        let locked = unsafe { rustix::mm::mlock(memory, self.size as usize) };
        locked.map_err(|source| {
            let [.., limit] = limits();
            let hint = if limit < self.size {
                "raise it (LimitMEMLOCK= of a unit, ulimit -l) or omit --lock-memory"
            } else {
                "free memory or lower --mem"
            };
            Error::Lock {
                size: self.size,
                source: source.into(),
                limit,
                hint,
            }
        })
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the host address of the guest's RAM, for KVM to map.
    pub fn host_address(&self) -> u64 {
        self.region.as_ptr() as u64 + self.start as u64
    }

    /// Makes `write` and `buffer` reject ranges that `mappings` makes read-only for the guest. They
    /// are in ascending order.
    pub fn protect(&mut self, mappings: Vec<Mapping>) {
        self.mappings = mappings;
        self.read_only.clear();
        for mapping in self
            .mappings
            .iter()
            .filter(|mapping| !mapping.access.is_writable())
        {
            match self.read_only.last_mut() {
                Some(last) if last.end == mapping.range.start => last.end = mapping.range.end,
                _ => self.read_only.push(mapping.range.clone()),
            }
        }
        self.writable_from = self.read_only.last().map_or(0, |last| last.end);
    }

    /// Returns the guest's access to its memory, in ascending order.
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// Returns whether the guest may execute what is at `address`.
    pub fn is_executable(&self, address: u64) -> bool {
        let mut mappings = self.mappings.iter();
        mappings.any(|mapping| mapping.access.is_executable() && mapping.range.contains(&address))
    }

    #[inline(always)]
    fn check_writable(&self, addr: u64, len: u64) -> Result<(), RangeError> {
        if addr >= self.writable_from {
            return Ok(());
        }
        // The range is inside memory.
        let end = addr + len;
        let mut read_only = self.read_only.iter();
        if read_only.any(|range| addr.max(range.start) < end.min(range.end)) {
            return Err(RangeError::ReadOnly { addr, len });
        }
        Ok(())
    }

    /// Returns a range that is inside memory.
    #[inline(always)]
    fn slice(&self, addr: u64, len: u64) -> Result<VolatileSlice<'_>, RangeError> {
        let outside = RangeError::OutOfRange {
            addr,
            len,
            size: self.size,
        };
        if addr.checked_add(len).is_none_or(|end| end > self.size) {
            return Err(outside);
        }
        // At most `size`, which is part of the mapping.
        self.region
            .get_slice(self.start + addr as usize, len as usize)
            .map_err(|_| outside)
    }

    /// Returns the `len` bytes at `addr`, for concurrent use by guest and host.
    pub(crate) fn volatile(
        &self,
        addr: GuestAddress,
        len: u64,
    ) -> Result<VolatileSlice<'_>, RangeError> {
        self.slice(addr.0, len)
    }

    /// Returns the `len` bytes at `addr`, for the host to read. The range may end exactly at the
    /// end of memory.
    #[inline(always)]
    pub fn bytes(&self, addr: GuestAddress, len: u64) -> Result<GuestBytes<'_>, RangeError> {
        Ok(GuestBytes(self.slice(addr.0, len)?))
    }

    /// Returns the `len` bytes at `addr`, for the host to write; the guest must be allowed to write
    /// all of them.
    #[inline(always)]
    pub fn buffer(&self, addr: GuestAddress, len: u64) -> Result<GuestBuffer<'_>, RangeError> {
        let slice = self.slice(addr.0, len)?;
        self.check_writable(addr.0, len)?;
        Ok(GuestBuffer(slice))
    }

    /// Copies a value out of guest memory, reading each byte once.
    #[inline(always)]
    pub fn read<T: FromBytes + IntoBytes>(&self, addr: GuestAddress) -> Result<T, RangeError> {
        let source = self.slice(addr.0, size_of::<T>() as u64)?;
        let mut value = T::new_zeroed();
        // Integers are copied by volatile accesses, and cheaper than bytes, whose copy is a call.
        if let Ok(integers) = <[u64]>::mut_from_bytes(value.as_mut_bytes()) {
            source.copy_to(integers);
        } else if let Ok(integers) = <[u32]>::mut_from_bytes(value.as_mut_bytes()) {
            source.copy_to(integers);
        } else {
            source.copy_to(value.as_mut_bytes());
            // Prevents the compiler from reading guest memory again instead of the copy.
            compiler_fence(Ordering::SeqCst);
        }
        Ok(value)
    }

    /// Copies a value into memory that the guest may write.
    #[inline(always)]
    pub fn write<T: IntoBytes + Immutable>(
        &self,
        addr: GuestAddress,
        value: T,
    ) -> Result<(), RangeError> {
        let target = self.buffer(addr, size_of::<T>() as u64)?.0;
        let bytes = value.as_bytes();
        if let Ok(integers) = <[u64]>::ref_from_bytes(bytes) {
            target.copy_from(integers);
        } else if let Ok(integers) = <[u32]>::ref_from_bytes(bytes) {
            target.copy_from(integers);
        } else {
            target.copy_from(bytes);
        }
        Ok(())
    }

    /// Copies the tender's data (tables, boot info) anywhere into guest memory. For set-up only.
    pub fn place(&self, addr: GuestAddress, data: &[u8]) -> Result<(), RangeError> {
        self.slice(addr.0, data.len() as u64)?.copy_from(data);
        Ok(())
    }

    /// Maps the whole host pages of the `len` bytes at `addr` from `file` at `offset`, privately and
    /// ignoring the guest's access. For set-up only.
    ///
    /// Returns the addresses that are mapped: an empty range at `addr` if there is no whole page, or
    /// if pages of the file and of memory do not coincide.
    pub(crate) fn map(
        &self,
        addr: u64,
        len: u64,
        file: BorrowedFd<'_>,
        offset: u64,
    ) -> Result<io::Result<Range<u64>>, RangeError> {
        self.slice(addr, len)?;
        let page = host_page_size() as u64;
        let (start, end) = (addr.next_multiple_of(page), (addr + len) / page * page);
        if start >= end || addr % page != offset % page {
            return Ok(Ok(addr..addr));
        }
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
        );
        let at = (self.host_address() + start) as *mut libc::c_void;
        // SAFETY: the pages are inside our mapping, into which no reference points.
        let mapped = unsafe {
            libc::mmap(
                at,
                (end - start) as usize,
                protection,
                flags,
                file.as_raw_fd(),
                (offset + (start - addr)) as libc::off_t,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Ok(Err(io::Error::last_os_error()));
        }
        self.advise(start..end, libc::MADV_DONTDUMP);
        Ok(Ok(start..end))
    }

    /// Fills `len` bytes at `addr` from `file` at `offset`, ignoring the guest's access. For set-up
    /// only.
    pub fn load(
        &self,
        addr: GuestAddress,
        len: u64,
        file: BorrowedFd<'_>,
        offset: u64,
    ) -> Result<io::Result<()>, RangeError> {
        Ok(GuestBuffer(self.slice(addr.0, len)?).read_exact_at(file, offset))
    }
}
