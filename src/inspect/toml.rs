//! A configuration file for a unikernel, for `tender --config`. It is complete except for the taps,
//! images and guest arguments, which only the operator knows.

use std::fmt::Write;

use super::{Report, suggested_memory};
use crate::guest::manifest::{Device, Kind, is_valid_name};
use crate::report::json::Value;

impl Report {
    /// Formats the configuration file, with IFACE and PATH as placeholders; empty if the file is
    /// rejected.
    pub fn to_toml(&self) -> String {
        let (None, Some(least_memory), Some((era, _))) =
            (&self.refusal, self.least_memory, self.era)
        else {
            return String::new();
        };
        let machine = self.machine.map(|machine| format!("{machine}, "));
        let path = std::path::absolute(&self.file).unwrap_or_else(|_| self.file.clone());
        let path = path.to_string_lossy().into_owned();
        let (memory, least) = (suggested_memory(least_memory) >> 20, least_memory >> 20);
        let mut text = format!(
            "\
# Configuration of a unikernel, written by 'tender inspect --toml': {}{era}.
# Replace IFACE and PATH, then check and run it with this file:
#   tender --check --config FILE.toml
#   tender --config FILE.toml
# Every option of 'tender --help' can be a key; see tender.toml(5).

unikernel = {}
args = []  # for the guest, such as [\"--ipv4=10.0.0.2/24\"]
mem = \"{memory}M\"  # at least {least}M
",
            machine.unwrap_or_default(),
            quoted(path),
        );
        match &self.manifest {
            Some(manifest) => {
                let devices = manifest.devices().iter();
                let (named, unnamed): (Vec<_>, Vec<_>) =
                    devices.partition(|device| is_valid_name(&device.name));
                // Keys outside tables come before all tables.
                unnamed
                    .into_iter()
                    .for_each(|device| add_unnamed(&mut text, device));
                named
                    .into_iter()
                    .for_each(|device| add_table(&mut text, device));
            }
            None => text.push_str(
                "\n# Too old to declare its devices; remove the '#' from those that it needs.\n\
                 # net = \"IFACE\"\n# block = \"PATH\"\n",
            ),
        }
        text
    }
}

/// Adds a device whose name no option can contain; it can only be attached as the only one of its
/// kind.
fn add_unnamed(text: &mut String, device: &Device) {
    text.push_str(match device.kind {
        Kind::Net => "net = \"IFACE\"\n",
        Kind::Block => "block = \"PATH\"\n",
    });
}

/// Adds the table of a device.
fn add_table(text: &mut String, Device { kind, name, .. }: &Device) {
    let (table, keys) = match kind {
        Kind::Net => (
            "net",
            "\
tap = \"IFACE\"  # a tap that is up and belongs to the user of tender
# mac = \"02:00:00:00:00:01\"  # default: random
",
        ),
        Kind::Block => (
            "block",
            "\
path = \"PATH\"  # an image or a disk; a relative path starts at this file
# sector-size = 512
",
        ),
    };
    // Writing to a string cannot fail.
    let _ = write!(text, "\n[{table}.{name}]\n{keys}");
}

/// Quotes a string. JSON's escapes are also TOML's.
fn quoted(text: String) -> String {
    Value::Text(text).one_line().to_string()
}
