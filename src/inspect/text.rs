//! The report as text: the properties, in lines of at most 80 columns, and the command to run.

use std::fmt::Write;

use super::document::permissions;
use super::{Recognition, Report};
use crate::arch::{Architecture, Native};
use crate::guest::era::Era;
use crate::guest::image::{Evidence, target_name};
use crate::guest::manifest::Device;
use crate::report::text::is_unsafe;

impl Report {
    /// Formats the report; empty if nothing is known of the file.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (label, value) in self.facts() {
            // Writing to a string cannot fail; neither can it below.
            let _ = writeln!(text, "{label:<14}{value}");
        }
        text.push_str(&self.devices());
        text.push_str(&self.segments());
        text.push_str(&self.command());
        text
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let Some(machine) = self.machine else {
            return Vec::new();
        };
        let foreign = if machine == Native::MACHINE {
            String::new()
        } else {
            format!(" (this host: {})", Native::MACHINE)
        };
        let interface = match (self.era, self.abi) {
            (Some((era, recognition)), _) => Some(format!("{era}, {}", known_by(recognition))),
            (None, Some(abi)) => {
                let target = target_name(abi.target);
                Some(format!("{target}, ABI version {}", abi.version))
            }
            (None, None) => None,
        };
        let address = |address: u64| format!("{address:#x}");
        let least_memory = |least| format!("at least {} MiB", least >> 20);
        let bindings = self.bindings.as_ref();
        let engines = Some(self.engines().join(", ")).filter(|engines| !engines.is_empty());
        let facts = [
            ("architecture", Some(format!("{machine}{foreign}"))),
            ("interface", interface),
            (
                "bindings",
                bindings.map(|version| format!("Solo5 {version}")),
            ),
            ("entry", self.entry.map(address)),
            ("end", self.end.map(address)),
            ("memory", self.least_memory.map(least_memory)),
            ("engines", engines),
        ];
        let known = |(label, value): (_, Option<String>)| Some((label, value?));
        facts.into_iter().filter_map(known).collect()
    }

    fn devices(&self) -> String {
        let devices = match (&self.manifest, self.era) {
            (Some(manifest), _) if manifest.devices().is_empty() => {
                return "\ndevices       none\n".to_owned();
            }
            (Some(manifest), _) => manifest.devices(),
            (None, Some((Era::Legacy, _))) => {
                return "\ndevices       not declared (too old for a manifest); at most one network interface and one disk\n"
                    .to_owned();
            }
            (None, _) => return String::new(),
        };
        let mut text = "\ndevices\n".to_owned();
        let width = devices
            .iter()
            .map(|device| device.name.chars().count())
            .max()
            .unwrap_or_default();
        for Device { handle, kind, name } in devices {
            let padding = width - name.chars().count();
            let _ = writeln!(text, "  {handle:>2}  {name}{:padding$}  {kind}", "");
        }
        text
    }

    fn segments(&self) -> String {
        if self.segments.is_empty() {
            return String::new();
        }
        let mut text = format!(
            "\nsegments\n  {:<18} {:>10} {:>10}  access\n",
            "address", "in memory", "in file"
        );
        for segment in &self.segments {
            let place = format!("{:#010x}", segment.memory.start);
            let [memory, file] =
                [&segment.memory, &segment.file].map(|range| range.end - range.start);
            let _ = writeln!(
                text,
                "  {place:<18} {memory:>10} {file:>10}  {}",
                permissions(segment.access)
            );
        }
        text
    }

    fn command(&self) -> String {
        let Some(args) = self.command_line() else {
            return String::new();
        };
        let args: Vec<String> = args.iter().map(|argument| quoted(argument)).collect();
        let mut text = format!("\nrun it with\n  {}\n", args.join(" "));
        let further = self.further_options();
        if !further.is_empty() {
            let _ = writeln!(
                text,
                "and, before the --, any of these that it needs\n  {}",
                further.join(" ")
            );
        }
        text
    }
}

fn known_by(recognition: Recognition) -> &'static str {
    match recognition {
        Recognition::Note => "from its ABI note",
        Recognition::Evidence(Evidence::Strings) => "recognised by its strings",
        Recognition::Evidence(Evidence::Code) => "recognised by its code",
    }
}

/// Quotes an argument for a shell.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    if argument.chars().any(is_unsafe) {
        // Plain quotes cannot escape these characters, which must not reach a terminal.
        let mut text = "$'".to_owned();
        for c in argument.chars() {
            match c {
                '\'' | '\\' => text.extend(['\\', c]),
                c if is_unsafe(c) => {
                    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                        let _ = write!(text, "\\{byte:03o}");
                    }
                }
                c => text.push(c),
            }
        }
        return text + "'";
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}
