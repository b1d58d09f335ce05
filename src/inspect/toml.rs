//! A configuration file for a unikernel, for `tender --config`. It is complete except for the taps,
//! images and guest arguments, which only the operator knows.

use std::fmt::Write;

use super::{FormError, Report, suggested_memory};
use crate::guest::manifest::{Device, Kind, is_valid_name};
use crate::report::json::Value;

impl Report {
    /// Formats the configuration file, with IFACE and PATH as placeholders; empty if the file is
    /// rejected.
    ///
    /// # Errors
    /// The path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, FormError> {
        let (None, Some(least_memory), Some((era, _))) =
            (&self.refusal, self.least_memory, self.era)
        else {
            return Ok(String::new());
        };
        let machine = self.machine.map(|machine| format!("{machine}, "));
        let path = std::path::absolute(&self.file).unwrap_or_else(|_| self.file.clone());
        let path = path.to_str().ok_or(FormError::Path("TOML"))?.to_owned();
        let (memory, least) = (suggested_memory(least_memory) >> 20, least_memory >> 20);
        let mut text = format!(
            "\
# Configuration of a unikernel, written by 'tender inspect --toml': {}{era}.
# Replace IFACE and PATH, then check and run it with this file:
#   tender --check --config FILE.toml
#   tender --config FILE.toml
# Every option of 'tender --help' can be a key; see tender.toml(5).

unikernel = {}
args = []  # for the guest, such as [\"--ipv4=10.100.0.2/24\"]
mem = \"{memory}M\"  # at least {least}M
",
            machine.unwrap_or_default(),
            quoted(path),
        );
        match &self.manifest {
            Some(manifest) => add_devices(&mut text, manifest.devices()),
            None => text.push_str(
                "\n# Too old to declare its devices; remove the '#' from those that it needs.\n\
                 # net = \"IFACE\"\n# block = \"PATH\"\n",
            ),
        }
        Ok(text)
    }
}

/// Adds the devices. One whose name no option can contain can only be attached as the only one of
/// its kind, by a key outside all tables; such keys come first.
fn add_devices(text: &mut String, devices: &[Device]) {
    // Writing to a string cannot fail.
    for kind in [Kind::Net, Kind::Block] {
        let mut same = devices.iter().filter(|device| device.kind == kind);
        let Some(odd) = same.clone().find(|device| !is_valid_name(&device.name)) else {
            continue;
        };
        let _ = if same.nth(1).is_none() {
            let (key, _, _) = keys(kind);
            writeln!(text, "{key} = \"{}\"", placeholder(devices, odd))
        } else {
            writeln!(
                text,
                "# {kind}: a device has a name that no option can contain, so these cannot be attached"
            )
        };
    }
    for device in devices.iter().filter(|device| is_valid_name(&device.name)) {
        let ((table, key, rest), name) = (keys(device.kind), &device.name);
        let value = placeholder(devices, device);
        let _ = write!(text, "\n[{table}.{name}]\n{key} = \"{value}\"  {rest}");
    }
}

/// Returns the table of a kind, the key for the source, and what follows its value.
fn keys(kind: Kind) -> (&'static str, &'static str, &'static str) {
    match kind {
        Kind::Net => (
            "net",
            "tap",
            "# a tap that is up and belongs to the user of tender\n# mac = \"02:00:00:00:00:01\"  # default: random\n",
        ),
        Kind::Block => (
            "block",
            "path",
            "# an image or a disk; a relative path starts at this file\n# sector-size = 512\n",
        ),
    }
}

/// Returns IFACE or PATH, with a number if there are several: no two devices may share a source.
fn placeholder(devices: &[Device], device: &Device) -> String {
    let name = match device.kind {
        Kind::Net => "IFACE",
        Kind::Block => "PATH",
    };
    let same = || devices.iter().filter(|other| other.kind == device.kind);
    match same().position(|other| other.handle == device.handle) {
        Some(index) if same().count() > 1 => format!("{name}{}", index + 1),
        _ => name.to_owned(),
    }
}

/// Quotes a string. JSON's escapes are also TOML's.
fn quoted(text: String) -> String {
    Value::Text(text).one_line().to_string()
}
