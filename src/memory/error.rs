//! Errors of guest memory, and the limits that cause them.

use std::fs;
use std::io;

use crate::report::counters::Count;

/// Why guest memory could not be reserved or locked.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("cannot reserve {} MiB of guest memory: {source}", size >> 20)]
    #[diagnostic(help("lower --mem or raise the limit ({limit})"))]
    Reserve {
        size: u64,
        source: io::Error,
        limit: &'static str,
    },
    #[error("cannot lock {size} bytes of guest memory: {source}")]
    #[diagnostic(help("RLIMIT_MEMLOCK is {limit} bytes: {hint}"))]
    Lock {
        size: u64,
        source: io::Error,
        limit: u64,
        hint: &'static str,
    },
}

/// Why a range of guest memory is invalid for an access. Results of all hypercalls contain this
/// type, so it holds plain numbers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum RangeError {
    #[error("{} at {addr:#x} must be within the {size:#x} bytes of guest memory", Count(*len, "byte"))]
    OutOfRange { addr: u64, len: u64, size: u64 },
    #[error("{} at {addr:#x} must be memory that the guest may write", Count(*len, "byte"))]
    ReadOnly { addr: u64, len: u64 },
}

/// Returns the name of the limit that prevents this process from reserving `size` more bytes.
pub(super) fn limit_below(size: u64) -> &'static str {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let used = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim()
            .strip_suffix(" kB")?
            .parse::<u64>()
            .ok()?
            .checked_mul(1024)
    };
    let is_over = |limit: u64, name| limit < size.saturating_add(used(name).unwrap_or(0));
    let [address_space, data, _] = limits();
    let strict = || {
        fs::read_to_string("/proc/sys/vm/overcommit_memory")
            .is_ok_and(|mode| mode.trim_end() == "2")
    };
    match is_over(address_space, "VmSize:") {
        false if is_over(data, "VmData:") => "ulimit -d",
        false if strict() => "vm.overcommit_memory of the host",
        _ => "ulimit -v",
    }
}

/// Returns limits of this process in bytes: of address space, of private writable memory, and of
/// locked memory.
pub(super) fn limits() -> [u64; 3] {
    [libc::RLIMIT_AS, libc::RLIMIT_DATA, libc::RLIMIT_MEMLOCK].map(|resource| {
        // An inherited filter may reject the call, which rustix does not expect.
        let mut limit = libc::rlimit {
            rlim_cur: libc::RLIM_INFINITY,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: the kernel writes this one structure.
        unsafe { libc::getrlimit(resource, &raw mut limit) };
        limit.rlim_cur
    })
}
