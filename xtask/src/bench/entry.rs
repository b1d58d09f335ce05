//! The time of a tender's first guest entry, measured by kernel tracepoints, which cost any tender
//! next to nothing; ptrace would stop it at every system call. The trace is a private instance, so
//! that no other trace is affected.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use crate::base::error::{Context, Result, fail};
use crate::build::packages;

/// Mount point of tracefs.
const TRACEFS: &str = "/sys/kernel/tracing";

/// The traced events: the first occurs at the end of a successful exec, the second right before the
/// guest runs. A KVM_RUN that returns immediately (`immediate_exit`) causes none.
const EVENTS: [&str; 2] = ["sched/sched_process_exec", "kvm/kvm_entry"];

/// A trace of this process's children. Drop ends it.
pub struct Trace {
    instance: PathBuf,
}

impl Trace {
    /// Begins a trace; the error names what the machine lacks.
    pub fn begin() -> Result<Self> {
        if !packages::is_root() {
            return fail("the kernel's trace is for root alone; run as root");
        }
        let instances = Path::new(TRACEFS).join("instances");
        if !instances.is_dir() {
            mount()?;
        }
        let instance = instances.join("tender-bench");
        // A killed run has left it.
        let _ = fs::remove_dir(&instance);
        fs::create_dir(&instance).context(format_args!("cannot make {}", instance.display()))?;
        let trace = Trace { instance };
        trace.set_up()?;
        Ok(trace)
    }

    fn set_up(&self) -> Result<()> {
        if let Some(event) = EVENTS
            .iter()
            .find(|event| !self.instance.join("events").join(event).is_dir())
        {
            return fail(format!(
                "the kernel has no tracepoint {}",
                event.replace('/', ":")
            ));
        }
        self.write("trace_clock", "mono")?;
        // The first entry counts, so events that do not fit into the buffer may be lost.
        self.write("options/overwrite", "0")?;
        self.write("buffer_size_kb", "64")?;
        self.write("options/event-fork", "1")?;
        self.write("set_event_pid", &std::process::id().to_string())?;
        EVENTS
            .iter()
            .try_for_each(|event| self.write(&format!("events/{event}/enable"), "1"))
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.instance.join(file);
        fs::write(&path, text).context(format_args!("cannot write '{text}' to {}", path.display()))
    }

    /// Runs `command` to its end; returns the time from its exec to the first entry of its guest,
    /// by the kernel's monotonic clock, in microseconds.
    pub fn exec_to_guest(&self, command: &mut Command) -> Result<Duration> {
        // Opening it for writing empties it.
        self.write("trace", "")?;
        let mut child: Child = command.spawn().context("cannot start the tender")?;
        let status = child.wait().context("cannot wait for the tender")?;
        if !status.success() {
            return fail(format!("the traced tender ended with {status}"));
        }
        let trace =
            fs::read_to_string(self.instance.join("trace")).context("cannot read the trace")?;
        between(&trace, child.id())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Ends the tracing with it. If it fails, the next `begin` tries again.
        let _ = fs::remove_dir(&self.instance);
    }
}

/// Mounts tracefs in a private mount namespace, which ends with this process.
fn mount() -> Result<()> {
    let (none, tracefs) = (c"none".as_ptr(), c"tracefs".as_ptr());
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the calls change nothing in our memory, and the strings end with a NUL.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(none, c"/".as_ptr(), none, private, std::ptr::null()) == 0
            && libc::mount(
                none,
                c"/sys/kernel/tracing".as_ptr(),
                tracefs,
                0,
                std::ptr::null(),
            ) == 0
    };
    if done {
        return Ok(());
    }
    Err(std::io::Error::last_os_error()).context(format_args!("cannot mount tracefs at {TRACEFS}"))
}

/// Returns the time from the exec of process `pid` to the first guest entry after it.
fn between(trace: &str, pid: u32) -> Result<Duration> {
    let mut exec = None;
    for line in trace.lines() {
        if let Some((head, event)) = line.split_once(": sched_process_exec: ") {
            if event.split(' ').any(|word| word == format!("pid={pid}")) {
                exec = Some(time(head)?);
            }
        } else if let (Some(exec), Some((head, _))) = (exec, line.split_once(": kvm_entry: ")) {
            return time(head)?
                .checked_sub(exec)
                .map_or_else(|| fail("the trace runs backwards"), Ok);
        }
    }
    match exec {
        Some(_) => fail("this KVM has no kvm:kvm_entry events, though a guest has run"),
        None => fail("the trace has no exec of the tender"),
    }
}

/// Parses the time at the end of a line's head: seconds and six digits after the point.
fn time(head: &str) -> Result<Duration> {
    let text = head.split_whitespace().next_back().unwrap_or("");
    let parsed = text
        .split_once('.')
        .filter(|(_, micros)| micros.len() == 6)
        .and_then(|(seconds, micros)| {
            Some(
                Duration::from_secs(seconds.parse().ok()?)
                    + Duration::from_micros(micros.parse().ok()?),
            )
        });
    parsed.map_or_else(
        || fail(format!("the trace has '{text}' where a time should be")),
        Ok,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
# tracer: nop
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
          tender-106     [000] d....     0.990000: kvm_entry: PC: 0x0000000000102904
          tender-107     [000] .....     1.740389: sched_process_exec: filename=/bin/tender pid=107 old_pid=107
 solo5-hvt: a b -109     [001] d....     2.009556: kvm_entry: vcpu 0, rip 0x100800
          tender-107     [000] d....     2.013412: kvm_entry: PC: 0x0000000000100800
";

    #[test]
    fn the_first_entry_after_the_exec_counts() {
        assert_eq!(between(TRACE, 107).unwrap(), Duration::from_micros(269_167));
    }

    #[test]
    fn a_missing_exec_or_entry_gives_no_time() {
        assert!(
            between(TRACE, 10)
                .unwrap_err()
                .to_string()
                .contains("no exec")
        );
        let before: Vec<&str> = TRACE.lines().take(4).collect();
        assert!(
            between(&before.join("\n"), 107)
                .unwrap_err()
                .to_string()
                .contains("kvm:kvm_entry")
        );
    }

    #[test]
    fn a_time_is_parsed_exactly_or_refused() {
        assert_eq!(
            time("x [000] d.... 12.000034").unwrap(),
            Duration::new(12, 34_000)
        );
        for bad in ["", "12", "12.5", "a.000001", "1.00000x"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
