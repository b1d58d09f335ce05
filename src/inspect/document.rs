//! The report as JSON. Its format is a contract: see `docs/inspect.schema.json`. Raise [`FORMAT`]
//! with every change other than an additional member.

use guest_abi::manifest::VERSION;

use super::{Recognition, Report};
use crate::guest::era::Era;
use crate::guest::image::{Evidence, Segment, target_name};
use crate::guest::manifest::{Device, Manifest};
use crate::memory::Access;
use crate::report::json::Value;

/// Version of the format.
const FORMAT: u64 = 1;

impl Report {
    /// Formats the report as one JSON object, with a newline at its end.
    pub fn to_json(&self) -> String {
        let document = Value::Object(vec![
            ("format", FORMAT.into()),
            ("file", self.file.to_string_lossy().into_owned().into()),
            ("refused", self.refusal.clone().into()),
            (
                "architecture",
                self.machine.map(|machine| machine.to_string()).into(),
            ),
            (
                "era",
                self.era
                    .map(|(era, recognition)| era_value(era, recognition))
                    .into(),
            ),
            ("abi", self.abi_value()),
            ("bindings", self.bindings.clone().into()),
            (
                "manifest",
                self.manifest.as_ref().map(manifest_value).into(),
            ),
            ("devices", self.manifest.as_ref().map(devices_value).into()),
            ("entry", self.entry.into()),
            ("end", self.end.into()),
            (
                "segments",
                self.segments
                    .iter()
                    .map(segment_value)
                    .collect::<Vec<_>>()
                    .into(),
            ),
            ("least_memory", self.least_memory.into()),
            ("command_line", self.command_line().into()),
            ("further_options", self.further_options().into()),
        ]);
        format!("{document}\n")
    }

    fn abi_value(&self) -> Value {
        let Some(abi) = self.abi else {
            return Value::Null;
        };
        Value::Object(vec![
            ("type", "solo5.abi".into()),
            ("target", target_name(abi.target).into()),
            ("version", u64::from(abi.version).into()),
        ])
    }
}

fn era_value(era: Era, recognition: Recognition) -> Value {
    let by = match recognition {
        Recognition::Note => "note",
        Recognition::Evidence(Evidence::Strings) => "words",
        Recognition::Evidence(Evidence::Code) => "code",
    };
    Value::Object(vec![
        ("name", era.name().into()),
        ("releases", era.releases().into()),
        ("recognised_by", by.into()),
    ])
}

fn manifest_value(manifest: &Manifest) -> Value {
    let device = |device: &Device| {
        Value::Object(vec![
            ("name", device.name.as_str().into()),
            ("type", device.kind.to_string().into()),
        ])
    };
    Value::Object(vec![
        ("type", "solo5.manifest".into()),
        ("version", u64::from(VERSION).into()),
        (
            "devices",
            manifest
                .devices()
                .iter()
                .map(device)
                .collect::<Vec<_>>()
                .into(),
        ),
    ])
}

fn devices_value(manifest: &Manifest) -> Value {
    let device = |device: &Device| {
        Value::Object(vec![
            ("handle", (device.handle as u64).into()),
            ("name", device.name.as_str().into()),
            ("type", device.kind.to_string().into()),
            ("option", device.option().into()),
        ])
    };
    manifest
        .devices()
        .iter()
        .map(device)
        .collect::<Vec<_>>()
        .into()
}

fn segment_value(segment: &Segment) -> Value {
    Value::Object(vec![
        ("address", segment.memory.start.into()),
        (
            "memory_size",
            (segment.memory.end - segment.memory.start).into(),
        ),
        ("file_offset", segment.file.start.into()),
        ("file_size", (segment.file.end - segment.file.start).into()),
        ("permissions", permissions(segment.access).into()),
    ])
}

/// Formats permissions like `ls` and /proc/PID/maps.
pub(super) fn permissions(access: Access) -> &'static str {
    match access {
        Access::None => "---",
        Access::Read => "r--",
        Access::ReadWrite => "rw-",
        Access::ReadExecute => "r-x",
        Access::All => "rwx",
    }
}
