//! Block devices: image files and block devices of the host, one unikernel each.
//!
//! An image is locked while it is attached: two writers would ruin any file system on it. A fault
//! of the host's disk is reported to the guest and the operator; it does not end the run.

mod adopt;
mod lock;
mod open;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use guest_abi::hypercall::Status;

pub(crate) use self::open::Error;
use crate::config::BlockSource;
use crate::guest::era::DiskTail;
use crate::host::files::Files;
use crate::memory::{self, GuestAddress, GuestMemory};
use crate::report::counters::{Count, Counter, stats};

/// Default sector size in bytes. Section 8.
pub(crate) const DEFAULT_SECTOR_SIZE: u16 = 512;

stats! {
    /// Statistics of a block device: a snapshot, or live counters.
    counters {
        /// Successful reads.
        reads,
        /// Bytes read.
        read_bytes,
        /// Successful writes.
        writes,
        /// Bytes written.
        written_bytes,
        /// Requests refused because they are outside of the device.
        invalid,
    }
    causes {
        /// Reads past the end of an image that was truncated during the run.
        truncated: "truncated", "image made shorter",
        /// Reads that failed for another reason.
        read_errors: "read_error", "read errors",
        /// Writes that failed for lack of space.
        full: "full", "disk full",
        /// Writes that failed for another reason.
        write_errors: "write_error", "write errors",
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}), {} ({}), refused {}, failed {}",
            Count(self.reads, "read"),
            Count(self.read_bytes, "byte"),
            Count(self.writes, "write"),
            Count(self.written_bytes, "byte"),
            self.invalid,
            self.faults()
        )
    }
}

/// One block device.
#[derive(Debug)]
pub struct Disk {
    file: File,
    path: PathBuf,
    /// The guest's name for it, for JSON log lines.
    device: String,
    capacity: u64,
    sector_size: u16,
    stats: Arc<Stats<Counter>>,
}

/// Displayed with its path, capacity and sector size.
impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let (capacity, sector_size) = (self.capacity, self.sector_size);
        write!(f, "{path}, {capacity} bytes in sectors of {sector_size}")
    }
}

impl AsFd for Disk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Disk {
    /// Opens and locks the operator's source. The guest sees sectors of `sector_size` bytes, by
    /// default [`DEFAULT_SECTOR_SIZE`]. `tail` is the era's rule for a last part that is not a
    /// whole sector. The process that opened and passed a disk must check with `O_EXCL` that the
    /// host does not use it. Section 8.
    ///
    /// # Errors
    /// The source cannot be used; nothing has changed then.
    pub fn attach(
        source: &BlockSource,
        files: &mut Files,
        sector_size: Option<u16>,
        tail: DiskTail,
    ) -> Result<Disk, Error> {
        let (file, path) = open::open(source, files)?;
        lock::lock(&file, &path)?;
        Disk::new(file, path, sector_size, tail)
    }

    /// As [`Disk::attach`], but does not lock a passed descriptor. Its lock belongs to the open
    /// file, which other processes share: a check would change it.
    ///
    /// # Errors
    /// Those of [`Disk::attach`].
    pub fn inspect(
        source: &BlockSource,
        files: &mut Files,
        sector_size: Option<u16>,
        tail: DiskTail,
    ) -> Result<Disk, Error> {
        let (file, path) = open::open(source, files)?;
        if let BlockSource::Path(_) = source {
            lock::lock(&file, &path)?;
        }
        Disk::new(file, path, sector_size, tail)
    }

    fn new(
        file: File,
        path: PathBuf,
        sector_size: Option<u16>,
        tail: DiskTail,
    ) -> Result<Disk, Error> {
        let sector_size = sector_size.unwrap_or(DEFAULT_SECTOR_SIZE);
        lock::check_loop_device(&file, &path)?;
        let capacity = open::capacity(&file, &path, sector_size, tail)?;
        open::warn_of_format(&file, &path);
        Ok(Disk {
            file,
            path,
            device: String::new(),
            capacity,
            sector_size,
            stats: Arc::default(),
        })
    }

    /// Returns the size in bytes: at least one sector, and a multiple of it unless the era keeps
    /// the tail.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Returns the sector size in bytes.
    pub fn sector_size(&self) -> u16 {
        self.sector_size
    }

    /// Returns its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the guest's name for the device, which JSON log lines contain.
    pub fn set_device(&mut self, name: &str) {
        name.clone_into(&mut self.device);
    }

    /// Returns the statistics so far.
    pub fn stats(&self) -> Stats {
        self.stats.read()
    }

    /// Returns the live counters, for another thread.
    pub fn counters(&self) -> Arc<Stats<Counter>> {
        Arc::clone(&self.stats)
    }

    /// BLOCK_READ: fills the `len` bytes at `addr` from byte `offset` of the disk. Returns
    /// [`Status::Invalid`] if that is outside of the disk, [`Status::Unspecified`] if the host
    /// fails. Section 8.
    ///
    /// # Errors
    /// The buffer is not inside memory that the guest may write.
    pub fn read(
        &mut self,
        memory: &GuestMemory,
        offset: u64,
        addr: GuestAddress,
        len: u64,
    ) -> Result<Status, memory::RangeError> {
        if !self.holds(offset, len) {
            self.stats.invalid.add(1);
            return Ok(Status::Invalid);
        }
        match memory
            .buffer(addr, len)?
            .read_exact_at(self.file.as_fd(), offset)
        {
            Ok(()) => {
                self.stats.reads.add(1);
                self.stats.read_bytes.add(len);
                Ok(Status::Ok)
            }
            Err(error) => Ok(self.read_failed(&error)),
        }
    }

    /// BLOCK_WRITE: writes the `len` bytes at `addr` to the disk from its byte `offset` on. Results
    /// as for [`Disk::read`]. Section 8.
    ///
    /// # Errors
    /// The bytes are not inside guest memory.
    pub fn write(
        &mut self,
        memory: &GuestMemory,
        offset: u64,
        addr: GuestAddress,
        len: u64,
    ) -> Result<Status, memory::RangeError> {
        if !self.holds(offset, len) {
            self.stats.invalid.add(1);
            return Ok(Status::Invalid);
        }
        match memory
            .bytes(addr, len)?
            .write_all_at(self.file.as_fd(), offset)
        {
            Ok(()) => {
                self.stats.writes.add(1);
                self.stats.written_bytes.add(len);
                Ok(Status::Ok)
            }
            Err(error) => Ok(self.write_failed(&error)),
        }
    }

    /// Waits until everything written is on the host's disk; for the end of a run.
    ///
    /// # Errors
    /// [`Error::Sync`]: recent writes may be lost.
    pub fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(|error| Error::Sync {
            path: self.path.clone(),
            error,
        })
    }

    /// Returns whether a request is inside the disk. Alignment is not required: guests align
    /// requests themselves.
    fn holds(&self, offset: u64, len: u64) -> bool {
        offset < self.capacity && len <= self.capacity - offset
    }

    #[cold]
    fn read_failed(&mut self, error: &io::Error) -> Status {
        let (path, device) = (self.path.display(), self.device.as_str());
        match error.kind() {
            // The run ends; the guest does not see the result.
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::UnexpectedEof => {
                if self.stats.truncated.add_first() {
                    log::warn!(
                        device = device, cause = "truncated";
                        "{path}: read error: the image was truncated during the run; reported to the guest"
                    );
                }
            }
            _ => {
                if self.stats.read_errors.add_first() {
                    log::warn!(
                        device = device, cause = "read_error";
                        "{path}: read error: {error}; reported to the guest"
                    );
                }
            }
        }
        Status::Unspecified
    }

    #[cold]
    fn write_failed(&mut self, error: &io::Error) -> Status {
        let path = self.path.display();
        let (counter, cause) = match error.kind() {
            // As above.
            io::ErrorKind::Interrupted => return Status::Unspecified,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (&self.stats.full, "full"),
            _ => (&self.stats.write_errors, "write_error"),
        };
        if counter.add_first() {
            log::warn!(
                device = self.device.as_str(), cause = cause;
                "{path}: write error: {error}; reported to the guest"
            );
        }
        Status::Unspecified
    }
}
