//! Where a JSON line comes from: its members after the message. Everything is prepared before the
//! guest runs, as a signal handler, which must not use the heap, can log too.

use std::fmt::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::report::json::Escaped;

/// Longest name of a device, in bytes.
const DEVICE_MAX: usize = 67;

/// Upper bound of the end of a line without the run's name, in bytes.
const END_MAX: usize = 160;

/// The process ID. A confined process cannot ask for it.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// The run's name, escaped.
static NAME: OnceLock<String> = OnceLock::new();

/// What comes before the subject of a message, if anything: the unikernel's path, then a place in
/// the configuration file. Escaped.
static PREFIXES: OnceLock<Vec<String>> = OnceLock::new();

/// What messages about a device begin with, escaped, and its name.
static DEVICES: OnceLock<Vec<(String, String)>> = OnceLock::new();

/// Prepares the process ID.
pub(super) fn set_process() {
    PROCESS.store(std::process::id(), Ordering::Relaxed);
}

/// Sets the name of the run, the path of its unikernel and the places of its devices in a
/// configuration file. The first call counts.
pub fn name_run<'p>(
    name: &str,
    unikernel: &impl fmt::Display,
    places: impl Iterator<Item = &'p str>,
) {
    NAME.get_or_init(|| escaped(name));
    let places = places.map(escaped);
    PREFIXES.get_or_init(|| {
        std::iter::once(escaped(&unikernel.to_string()))
            .chain(places)
            .map(|prefix| prefix + ": ")
            .collect()
    });
}

/// Names the devices by what messages about them begin with. The first call counts.
pub(crate) fn name_devices<'d>(devices: impl Iterator<Item = (String, &'d str)>) {
    DEVICES.get_or_init(|| {
        devices
            .map(|(subject, name)| (escaped(&subject) + ": ", name.to_owned()))
            .collect()
    });
}

#[cold]
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    // Writing to a string cannot fail.
    let _ = Escaped(&mut escaped).write_str(text);
    escaped
}

/// Returns an upper bound of what [`write_end`] writes, in bytes.
pub(super) fn longest_end() -> usize {
    END_MAX + NAME.get().map_or(0, String::len)
}

/// Ends the message and the object.
pub(super) fn write_end(
    line: &mut impl Write,
    device: &Device,
    cause: Option<&str>,
) -> fmt::Result {
    line.write_char('"')?;
    if let Some(name) = NAME.get() {
        write!(line, r#", "name": "{name}""#)?;
    }
    write!(line, r#", "pid": {}"#, PROCESS.load(Ordering::Relaxed))?;
    if let Some(device) = device.name() {
        write!(line, r#", "device": "{device}""#)?;
    }
    if let Some(cause) = cause {
        write!(line, r#", "cause": "{cause}""#)?;
    }
    line.write_str("}\n")
}

/// A copy of a device's name; empty if a message is about none.
pub(super) struct Device {
    bytes: [u8; DEVICE_MAX],
    length: usize,
}

impl Device {
    /// Returns the device that an escaped message is about: its subject, or the name after
    /// `device`, at the beginning or after the unikernel. Before a run has its name, there is none:
    /// a message could begin with any path.
    pub(super) fn of(message: &str) -> Device {
        let Some(prefixes) = PREFIXES.get() else {
            return Device::find("", &[], &[]);
        };
        let devices = DEVICES.get().map_or(&[][..], Vec::as_slice);
        Device::find(message, prefixes, devices)
    }

    fn find(message: &str, prefixes: &[String], devices: &[(String, String)]) -> Device {
        let message = prefixes.iter().fold(message, |message, prefix| {
            message.strip_prefix(prefix.as_str()).unwrap_or(message)
        });
        let known = devices
            .iter()
            .find(|(subject, _)| message.starts_with(subject));
        let name = known.map(|(_, name)| name.as_str()).or_else(|| {
            let rest = message.strip_prefix("device '")?;
            rest.split_once("':").map(|(name, _)| name)
        });
        let name = name.filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let mut device = Device {
            bytes: [0; DEVICE_MAX],
            length: 0,
        };
        if let Some((name, place)) = name.and_then(|name| {
            let place = device.bytes.get_mut(..name.len())?;
            Some((name, place))
        }) {
            place.copy_from_slice(name.as_bytes());
            device.length = name.len();
        }
        device
    }

    fn name(&self) -> Option<&str> {
        let name = std::str::from_utf8(&self.bytes[..self.length]).ok();
        name.filter(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_about_its_subject() {
        let devices = [
            ("tap0: ", "lan"),
            ("tap0 (@3): ", "wan"),
            ("/a: b: ", "data"),
        ]
        .map(|(subject, name)| (subject.to_owned(), name.to_owned()));
        let prefixes = ["web.hvt: ", "x: device 'fake': .hvt: ", "a.toml:2:1: "].map(str::to_owned);
        let long = format!("device '{}': x", "a".repeat(68));
        for (message, device) in [
            ("tap0: cannot send: gone", Some("lan")),
            ("tap0 (@3): cannot send: gone", Some("wan")),
            ("/a: b: read error", Some("data")),
            ("/a: read error", None),
            ("tap01: x", None),
            ("device 'data': 1 MiB", Some("data")),
            (
                "web.hvt: device 'service': tap 'tap0' is in use",
                Some("service"),
            ),
            (
                "web.hvt: a.toml:2:1: device 'service': tap 'tap0' is in use",
                Some("service"),
            ),
            ("web.hvt: tap0: is down", Some("lan")),
            ("x: device 'fake': .hvt: cannot be opened: gone", None),
            ("x: device 'fake': .hvt: device 'b': x", Some("b")),
            ("y: device 'fake': x", None),
            ("device '\\\"': x", None),
            ("device 'a", None),
            ("", None),
            (&long, None),
            (&long.replacen('a', "", 1), Some(&"a".repeat(67))),
        ] {
            assert_eq!(
                Device::find(message, &prefixes, &devices).name(),
                device,
                "{message}"
            );
        }
    }
}
