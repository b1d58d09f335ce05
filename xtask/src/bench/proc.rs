//! Numbers from /proc about one process or the machine.

use std::fs;

use crate::base::error::{Context, Result, fail};

/// Memory of a process, in KiB.
pub struct Memory {
    /// Pages of no other process.
    pub own: u64,
    /// The same, and its share of those of several (PSS).
    pub proportional: u64,
    /// All its pages in RAM (RSS).
    pub resident: u64,
}

impl Memory {
    pub fn of(pid: u32) -> Result<Memory> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).context(format_args!("cannot read {path}"))?;
        let memory = || {
            Some(Memory {
                own: field(&text, "Private_Clean:")? + field(&text, "Private_Dirty:")?,
                proportional: field(&text, "Pss:")?,
                resident: field(&text, "Rss:")?,
            })
        };
        memory().map_or_else(|| fail(format!("{path} has other names")), Ok)
    }
}

/// Returns the numbers of these names in /proc/meminfo, in KiB; 0 for those that this kernel lacks.
pub fn meminfo<const N: usize>(names: [&str; N]) -> Result<[u64; N]> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    Ok(names.map(|name| field(&text, &format!("{name}:")).unwrap_or(0)))
}

/// Returns nanoseconds of processor time of a process, of guest, kernel and tender together.
pub fn processor_time(pid: u32) -> Result<u64> {
    sum(pid, "schedstat", |text| {
        text.split_whitespace().next()?.parse().ok()
    })
}

/// Returns how often a process has gone to sleep, and so been woken.
pub fn sleeps(pid: u32) -> Result<u64> {
    sum(pid, "status", |text| {
        field(text, "voluntary_ctxt_switches:")
    })
}

/// Returns the sum, over the threads of a process, of `value` applied to their `file`.
fn sum(pid: u32, file: &str, value: impl Fn(&str) -> Option<u64>) -> Result<u64> {
    let tasks = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&tasks).context(format_args!("cannot read {tasks}"))?;
    tasks.flatten().try_fold(0, |sum, task| {
        let path = task.path().join(file);
        let text =
            fs::read_to_string(&path).context(format_args!("cannot read {}", path.display()))?;
        match value(&text) {
            Some(value) => Ok(sum + value),
            None => fail(format!("{} lacks the expected field", path.display())),
        }
    })
}

/// Returns the number that follows `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_proc() {
        let text = "Pss:                 123 kB\nPss_Dirty:            45 kB\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(field(text, "Pss:"), Some(123));
        assert_eq!(field(text, "voluntary_ctxt_switches:"), None);
    }

    #[test]
    fn this_process_has_memory_and_its_kernel_has_slabs() {
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.own > 0 && memory.own <= memory.proportional);
        assert!(memory.proportional <= memory.resident);
        let [slab, missing] = meminfo(["Slab", "Slabs"]).unwrap();
        assert!(slab > 0 && missing == 0);
    }
}
