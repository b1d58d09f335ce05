//! Resource use of the process: CPU time, and memory in RAM, with the guest's memory separately.

#![expect(unsafe_code, reason = "mincore of guest memory")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::host::signal::{self, uninterrupted};
use crate::memory::{self, GuestMemory};
use crate::report::clock;
use crate::sandbox::rules::MINCORE_PIECE;

/// Pages of a piece on hosts with the smallest pages.
const PAGES: usize = MINCORE_PIECE / 4096;

/// Source of the memory use of this process.
#[derive(Debug)]
pub(crate) struct Process {
    /// `/proc/self/statm`, which cannot be opened from within the sandbox.
    statm: File,
    page_size: usize,
    /// Address and size of guest memory.
    guest: (usize, usize),
}

impl Process {
    /// Opens the source for this process. `memory` must exist as long as the result is used;
    /// afterwards the guest's part is zero.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub(crate) fn open(memory: &GuestMemory) -> io::Result<Process> {
        let page_size = memory::host_page_size();
        let guest = (memory.host_address() as usize, memory.size() as usize);
        Ok(Process {
            statm: File::open("/proc/self/statm")?,
            page_size,
            guest,
        })
    }

    /// Returns its descriptor.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.statm.as_raw_fd()
    }

    /// Returns the bytes of the process in RAM; with KVM, guest memory included. Makes one system
    /// call and does not allocate.
    pub(crate) fn resident(&self) -> Option<u64> {
        let mut text = [0; 128];
        let length = uninterrupted(|| self.statm.read_at(&mut text, 0)).ok()?;
        let text = std::str::from_utf8(text.get(..length)?).ok()?;
        let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
        Some(pages * self.page_size as u64)
    }

    /// Returns the bytes of guest memory in RAM. Makes a system call for each `MINCORE_PIECE` and
    /// does not allocate.
    pub(crate) fn guest_resident(&self) -> Option<u64> {
        let (start, size) = self.guest;
        let mut pages = 0;
        for offset in (0..size).step_by(MINCORE_PIECE) {
            let mut present = [0_u8; PAGES];
            // SAFETY: the kernel writes a byte for each page, of which there are no more than
            // PAGES.
            let result = unsafe {
                libc::mincore(
                    (start + offset) as *mut _,
                    MINCORE_PIECE,
                    present.as_mut_ptr().cast(),
                )
            };
            if result != 0 {
                return None;
            }
            pages += present.iter().filter(|page| **page & 1 == 1).count();
        }
        Some((pages * self.page_size) as u64)
    }
}

/// Returns the CPU time of this process, and of the guest's if there is one; zero if a seccomp
/// filter around it rejects the call.
pub(super) fn processor_time() -> Duration {
    // The kernel's `CPUCLOCK_SCHED` of another process.
    let of_guest = signal::guests_process().map(|guest| clock::since_zero(!guest << 3 | 2));
    clock::since_zero(libc::CLOCK_PROCESS_CPUTIME_ID) + of_guest.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestAddress;

    use super::*;
    use crate::config::HugePages;

    #[test]
    fn touched_memory_is_resident() {
        let memory = GuestMemory::new(4 * MINCORE_PIECE as u64).unwrap();
        memory.huge_pages(HugePages::Off, 0);
        let process = Process::open(&memory).unwrap();
        assert_eq!(process.guest_resident(), Some(0));
        let before = process.resident().unwrap();
        memory.place(GuestAddress(0x5000), &[1]).unwrap();
        memory
            .place(GuestAddress(4 * MINCORE_PIECE as u64 - 1), &[1])
            .unwrap();
        assert_eq!(process.guest_resident(), Some(2 * process.page_size as u64));
        memory
            .place(GuestAddress(0), &vec![1; MINCORE_PIECE])
            .unwrap();
        assert_eq!(
            process.guest_resident(),
            Some((MINCORE_PIECE + process.page_size) as u64)
        );
        assert!(process.resident().unwrap() > 0 && before > 0);
    }

    #[test]
    fn processor_time_passes() {
        let before = processor_time();
        while processor_time() == before {}
        assert!(processor_time() > before);
    }
}
