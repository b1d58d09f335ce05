//! What the child does before it is the guest: system calls, as data, which a few instructions in a
//! page of their own make one after the other. They remove the tender's
//! memory, files and settings from the child.

#![expect(
    unsafe_code,
    reason = "code that outlives all other memory of the child"
)]

use std::io;
use std::ptr::{self, NonNull};

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, c_int, c_long, c_void, sock_filter,
};

use super::{Cpu, native, pages};
use crate::memory::{self, GuestMemory};

/// Address of the stub: its code, then its data. It is above all guest memory and hypercalls, and
/// below the addresses that Linux chooses.
const PLACE: u64 = 0x20_0000_0000;

/// Bytes for the data, and where in them the steps are. An ELF file has at most 65535 segments, with
/// gaps between them: the steps take less than 10 MB, of which only those that exist are allocated.
const DATA: u64 = 0x100_0000;
const STEPS: u64 = 0x100;

/// Where in the data zeroes are, and the filter's description and instructions.
const ZEROES: u64 = 0;
const FILTER: u64 = 0x40;
const INSTRUCTIONS: u64 = 0x50;

/// Lowest guest-physical address of the child's memory: Linux maps nothing below by default
/// (vm.mmap_min_addr), and a guest needs nothing there.
const LOWEST: u64 = guest_abi::boot::BOOT_INFO_ADDRESS;

/// The step that gives the guest's memory its permissions.
pub(super) const PROTECT: &str = "make memory executable";

/// A system call of the child.
#[derive(Clone, Copy, Debug)]
pub(in crate::arch) struct Step {
    /// What it does, after "cannot".
    name: &'static str,
    call: c_long,
    arguments: [u64; 6],
    /// Whether the guest may run if it fails: older or smaller kernels lack it.
    may_fail: bool,
}

/// Returns a call that must succeed.
pub(in crate::arch) fn must(name: &'static str, call: c_long, arguments: &[u64]) -> Step {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    Step {
        name,
        call,
        arguments: all,
        may_fail: false,
    }
}

/// Returns a call that may fail.
pub(in crate::arch) fn may(name: &'static str, call: c_long, arguments: &[u64]) -> Step {
    Step {
        may_fail: true,
        ..must(name, call, arguments)
    }
}

/// Returns what the child does, in this order.
pub(super) fn list(memory: &GuestMemory, cpu: &Cpu) -> Vec<Step> {
    const PR_SET_SPECULATION_CTRL: u64 = 53;
    const PR_SPEC_STORE_BYPASS: u64 = 0;
    const PR_SPEC_INDIRECT_BRANCH: u64 = 1;
    const PR_SPEC_FORCE_DISABLE: u64 = 1 << 3;
    let page = memory::host_page_size() as u64;
    let zeroes = data(page) + ZEROES;
    let (prctl, set_mask) = (libc::SYS_prctl, libc::SIG_SETMASK as u64);
    let disable = |what| [PR_SET_SPECULATION_CTRL, what, PR_SPEC_FORCE_DISABLE];
    let mut steps = vec![
        may("make a session", libc::SYS_setsid, &[]),
        may(
            "unblock signals",
            libc::SYS_rt_sigprocmask,
            &[set_mask, zeroes, 0, 8],
        ),
        must(
            "give up privileges",
            prctl,
            &[libc::PR_SET_NO_NEW_PRIVS as u64, 1],
        ),
        may(
            "forbid core files",
            libc::SYS_prlimit64,
            &[0, libc::RLIMIT_CORE.into(), zeroes],
        ),
        may(
            "hide from other processes",
            prctl,
            &[libc::PR_SET_DUMPABLE as u64, 0],
        ),
        may("reset the personality", libc::SYS_personality, &[0]),
        may("forbid speculation", prctl, &disable(PR_SPEC_STORE_BYPASS)),
        may(
            "forbid speculation",
            prctl,
            &disable(PR_SPEC_INDIRECT_BRANCH),
        ),
    ];
    steps.extend(usual_scheduling(zeroes));
    steps.extend(restartable_sequences());
    steps.extend(cpu.steps(PLACE + page + DATA));
    steps.push(must(
        "be traced",
        libc::SYS_ptrace,
        &[libc::PTRACE_TRACEME as u64],
    ));
    steps.extend(memory_steps(memory, page));
    let (mode, description) = (libc::SECCOMP_SET_MODE_FILTER.into(), data(page) + FILTER);
    steps.push(must(
        "forbid system calls",
        libc::SYS_seccomp,
        &[mode, 0, description],
    ));
    steps.push(must(
        "end its start",
        libc::SYS_munmap,
        &[PLACE, page + DATA],
    ));
    steps
}

/// Returns the steps that unmap everything except guest memory.
fn memory_steps(memory: &GuestMemory, page: u64) -> Vec<Step> {
    let (size, start) = (memory.size() - LOWEST, memory.host_address() + LOWEST);
    let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
    let end = memory.size();
    let mut steps = vec![
        must(
            "place the guest's memory",
            libc::SYS_mremap,
            &[start, size, size, flags, LOWEST],
        ),
        must("remove other memory", libc::SYS_munmap, &[end, PLACE - end]),
    ];
    for piece in pages::pages(memory.mappings(), page) {
        let (start, end) = (piece.range.start.max(LOWEST), piece.range.end);
        if start < end {
            let arguments = [start, end - start, piece.protection as u64];
            steps.push(must(PROTECT, libc::SYS_mprotect, &arguments));
        }
    }
    let above = PLACE + page + DATA;
    steps.push(must(
        "remove other memory",
        libc::SYS_munmap,
        &[above, native::top() - above],
    ));
    steps
}

/// Returns the step that ends real-time scheduling, if the tender has it: a guest that never stops
/// would keep the tender, on the same processor, from ending it.
fn usual_scheduling(zeroes: u64) -> Option<Step> {
    // SAFETY: the call takes a number; this is about the calling thread.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) } as c_int;
    let is_real_time = [libc::SCHED_FIFO, libc::SCHED_RR].contains(&policy);
    let arguments = [0, libc::SCHED_OTHER as u64, zeroes];
    let name = "end real-time scheduling";
    is_real_time.then(|| must(name, libc::SYS_sched_setscheduler, &arguments))
}

/// Returns the step that ends the C library's use of restartable sequences: the kernel would write
/// to their place in memory, which the child loses.
fn restartable_sequences() -> Option<Step> {
    /// Size of the area that C libraries register.
    const SIZE: u64 = 32;
    const UNREGISTER: u64 = 1;
    let (area, signature) = native::restartable_sequences()?;
    let arguments = [area, SIZE, UNREGISTER, signature];
    Some(may("end restartable sequences", libc::SYS_rseq, &arguments))
}

fn data(page: u64) -> u64 {
    PLACE + page
}

/// A step as the code reads it, with its result.
#[repr(C)]
struct Record {
    call: u64,
    arguments: [u64; 6],
    result: i64,
    may_fail: u64,
}

unsafe extern "C" {
    static tender_stub: u8;
    static tender_stub_after_call: u8;
    static tender_stub_end: u8;
}

/// Returns the code that makes the calls of [`Record`]s, and the offset in it of the instruction
/// after a call. Each architecture has it.
fn stub() -> (&'static [u8], usize) {
    let (start, after_call, end) = (
        &raw const tender_stub,
        &raw const tender_stub_after_call,
        &raw const tender_stub_end,
    );
    // SAFETY: the symbols are in this order in one section, whose bytes never change.
    let code = unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) };
    (code, after_call as usize - start as usize)
}

/// Code and data of the start of a child, at [`PLACE`] in this process and in the child.
pub(super) struct Stub {
    start: NonNull<c_void>,
    length: usize,
    page: u64,
    names: Vec<&'static str>,
}

impl Stub {
    /// Places code and data for these steps.
    pub(super) fn new(steps: &[Step]) -> io::Result<Stub> {
        let page = memory::host_page_size() as u64;
        let length = (page + DATA) as usize;
        let place = PLACE as *mut c_void;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED
            | libc::MAP_ANONYMOUS
            | libc::MAP_NORESERVE
            | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: the mapping is new, as it replaces none.
        let mapped = unsafe { libc::mmap(place, length, protection, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(mapped).filter(|start| start.as_ptr() == place);
        let stub = Stub {
            start: start.ok_or(io::ErrorKind::AddrInUse)?,
            length,
            page,
            names: steps.iter().map(|step| step.name).collect(),
        };
        stub.write(steps);
        Ok(stub)
    }

    /// Makes the code executable, and no longer writable.
    pub(super) fn make_executable(&self) -> io::Result<()> {
        let (code, executable) = (self.start.as_ptr(), libc::PROT_READ | libc::PROT_EXEC);
        // SAFETY: the page is ours, and nothing writes to it any more.
        match unsafe { libc::mprotect(code, self.page as usize, executable) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn write(&self, steps: &[Step]) {
        assert!(STEPS + (steps.len() * size_of::<Record>()) as u64 <= DATA);
        let (code, after_call) = stub();
        let filter = filter(PLACE + after_call as u64);
        let description = libc::sock_fprog {
            len: filter.len() as u16,
            filter: (data(self.page) + INSTRUCTIONS) as *mut sock_filter,
        };
        let at = |offset| self.at(self.page + offset);
        // SAFETY: code and data fit into the mapping, which is ours and aligned to pages.
        unsafe {
            ptr::copy_nonoverlapping(code.as_ptr(), self.start.as_ptr().cast(), code.len());
            at(FILTER).cast::<libc::sock_fprog>().write(description);
            ptr::copy_nonoverlapping(filter.as_ptr(), at(INSTRUCTIONS).cast(), filter.len());
            for (number, step) in steps.iter().enumerate() {
                self.record(number).write(Record {
                    call: step.call as u64,
                    arguments: step.arguments,
                    result: 0,
                    may_fail: step.may_fail.into(),
                });
            }
        }
        native::synchronize(self.start.as_ptr() as u64, code.len() as u64);
    }

    fn at(&self, offset: u64) -> *mut c_void {
        self.start.as_ptr().wrapping_byte_add(offset as usize)
    }

    fn record(&self, number: usize) -> *mut Record {
        let steps = self.at(self.page + STEPS).cast::<Record>();
        steps.wrapping_add(number)
    }

    /// In the child: closes its files and makes the calls, after which it has no code of the tender.
    pub(super) fn run(&self, parent: i32) -> ! {
        close_files();
        // SAFETY: these calls take plain numbers. The child ends if its parent is gone already, as
        // the kernel then sends no signal. The code is complete.
        unsafe {
            libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::syscall(libc::SYS_getppid) as i32 == parent {
                native::jump(self.start.as_ptr() as u64, self.record(0) as u64);
            }
            libc::syscall(libc::SYS_exit_group, 1);
        }
        unreachable!("exit_group does not return")
    }

    /// Returns the step that failed, and why.
    pub(super) fn failure(&self) -> (&'static str, io::Error) {
        let failed = self.names.iter().enumerate().find_map(|(number, name)| {
            // SAFETY: the record is in the mapping, and the child has ended.
            let record = unsafe { self.record(number).read_volatile() };
            let errno = i32::try_from(record.result.checked_neg()?).ok()?;
            (errno > 0 && record.may_fail == 0).then_some((*name, errno))
        });
        let (step, errno) = failed.unwrap_or(("start the guest's process", libc::ECHILD));
        (step, io::Error::from_raw_os_error(errno))
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference points into it.
        unsafe { libc::munmap(self.start.as_ptr(), self.length) };
    }
}

/// Closes all files of the child.
fn close_files() {
    const CLOSE_RANGE: c_long = 436;
    let (first, last): (c_long, c_long) = (0, u32::MAX.into());
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the calls take plain numbers, but for the limit, which the kernel writes. The child
    // uses no file.
    unsafe {
        if libc::syscall(CLOSE_RANGE, first, last, first) != 0 {
            // Before Linux 5.9: all up to the limit, and more, as it may have been lowered.
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            for file in 0..limit.rlim_cur.clamp(1 << 16, 1 << 20) {
                libc::close(file as c_int);
            }
        }
    }
}

/// Returns a filter that allows only the last step, which the instruction before `after_call`
/// makes. All other calls get SIGSYS.
fn filter(after_call: u64) -> Vec<sock_filter> {
    const NUMBER: u32 = 0;
    const ADDRESS: u32 = 8;
    let load = |offset| step(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0);
    // To the answer that is the last instruction.
    let unless = |value, distance| step(BPF_JMP | BPF_JEQ | BPF_K, value, 0, distance);
    vec![
        load(ADDRESS + 4),
        unless((after_call >> 32) as u32, 5),
        load(ADDRESS),
        unless(after_call as u32, 3),
        load(NUMBER),
        unless(libc::SYS_munmap as u32, 1),
        step(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(BPF_RET | BPF_K, libc::SECCOMP_RET_TRAP, 0, 0),
    ]
}

fn step(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Access, Mapping, PAGE_SIZE};

    /// As many pieces of memory as an ELF file can have: each segment has other rights than its
    /// neighbours and the gaps between them.
    #[test]
    fn the_steps_of_any_file_fit() {
        const PIECES: u64 = 2 * u16::MAX as u64 + 2;
        let mut memory = GuestMemory::shared(LOWEST + PIECES * PAGE_SIZE).unwrap();
        let piece = |number| Mapping {
            range: LOWEST + number * PAGE_SIZE..LOWEST + (number + 1) * PAGE_SIZE,
            access: [Access::Read, Access::ReadWrite][number as usize % 2],
        };
        memory.protect((0..PIECES).map(piece).collect());
        let steps = list(&memory, &Cpu::new());
        // Larger pages of a host have the rights of all their pieces.
        assert!(steps.len() as u64 > PIECES || memory::host_page_size() as u64 > PAGE_SIZE);
        let stub = Stub::new(&steps).unwrap();
        // SAFETY: the record is in the mapping.
        let last = unsafe { stub.record(steps.len() - 1).read() };
        assert_eq!(last.call, libc::SYS_munmap as u64);
    }
}
