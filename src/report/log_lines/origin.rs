//! Where a JSON line comes from, and what it is about: its members after the message. Everything is
//! prepared before the guest runs, as a signal handler, which must not use the heap, can log too.

use std::fmt::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::report::json::Escaped;

/// Longest name of a device that is written, in bytes.
const DEVICE_MAX: usize = 67;

/// Upper bound of the end of a line without the run's name, in bytes.
const END_MAX: usize = 160;

/// The process ID. A confined process cannot ask for it.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// The run's name, escaped.
static NAME: OnceLock<String> = OnceLock::new();

/// What a message is about, for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject<'s> {
    /// The guest's name of a device. Only letters and digits are written.
    pub device: Option<&'s str>,
    /// The cause, in one word of the tender.
    pub cause: Option<&'s str>,
}

/// Prepares the process ID.
pub(super) fn set_process() {
    PROCESS.store(std::process::id(), Ordering::Relaxed);
}

/// Sets the name of the run. The first call counts.
pub fn name_run(name: &str) {
    NAME.get_or_init(|| {
        let mut escaped = String::new();
        // Writing to a string cannot fail.
        let _ = Escaped(&mut escaped).write_str(name);
        escaped
    });
}

/// Returns an upper bound of what [`write_end`] writes, in bytes.
pub(super) fn longest_end() -> usize {
    END_MAX + NAME.get().map_or(0, String::len)
}

/// Ends the message and the object.
pub(super) fn write_end(line: &mut impl Write, subject: Subject<'_>) -> fmt::Result {
    line.write_char('"')?;
    if let Some(name) = NAME.get() {
        write!(line, r#", "name": "{name}""#)?;
    }
    write!(line, r#", "pid": {}"#, PROCESS.load(Ordering::Relaxed))?;
    if let Some(device) = subject.device.filter(|name| is_plain(name)) {
        write!(line, r#", "device": "{device}""#)?;
    }
    if let Some(cause) = subject.cause {
        write!(line, r#", "cause": "{cause}""#)?;
    }
    line.write_str("}\n")
}

/// Returns whether a name has letters and digits only, and has room. A unikernel's file can have any
/// name.
fn is_plain(name: &str) -> bool {
    (1..=DEVICE_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_of_devices_are_written() {
        let end = |device| {
            let mut line = String::new();
            let subject = Subject {
                device: Some(device),
                cause: None,
            };
            write_end(&mut line, subject).unwrap();
            line
        };
        let longest = "a".repeat(DEVICE_MAX);
        for name in ["data", "0", &longest] {
            assert!(
                end(name).ends_with(&format!(r#", "device": "{name}"}}{}"#, '\n')),
                "{name}"
            );
        }
        for name in ["", "a\"b", "a b", "\\", "ü", &format!("{longest}a")] {
            assert!(!end(name).contains("device"), "{name}");
        }
    }
}
