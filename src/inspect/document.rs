//! The report as JSON. Its format is a contract: see `docs/inspect.schema.json`. Raise [`FORMAT`]
//! with every change other than an additional member.

use guest_abi::manifest::VERSION;
use guest_abi::note::Abi;

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
        let machine = self.machine.map(|machine| machine.to_string());
        let manifest = self.manifest.as_ref();
        let segments = self.segments.iter().map(segment_value);
        let document = Value::Object(vec![
            ("format", FORMAT.into()),
            ("file", self.file.to_string_lossy().into_owned().into()),
            ("refused", self.refusal.clone().into()),
            ("architecture", machine.into()),
            ("era", self.era.map(era_value).into()),
            ("abi", self.abi.map(abi_value).into()),
            ("bindings", self.bindings.clone().into()),
            ("manifest", manifest.map(manifest_value).into()),
            ("devices", manifest.map(devices_value).into()),
            ("entry", self.entry.into()),
            ("end", self.end.into()),
            ("segments", Value::List(segments.collect())),
            ("least_memory", self.least_memory.into()),
            ("engines", self.engines().into()),
            ("command_line", self.command_line().into()),
            ("further_options", self.further_options().into()),
        ]);
        format!("{document}\n")
    }
}

fn abi_value(abi: Abi) -> Value {
    Value::Object(vec![
        ("type", "solo5.abi".into()),
        ("target", target_name(abi.target).into()),
        ("version", u64::from(abi.version).into()),
    ])
}

fn era_value((era, recognition): (Era, Recognition)) -> Value {
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
    let devices = manifest.devices().iter().map(device);
    Value::Object(vec![
        ("type", "solo5.manifest".into()),
        ("version", u64::from(VERSION).into()),
        ("devices", Value::List(devices.collect())),
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
    Value::List(manifest.devices().iter().map(device).collect())
}

fn segment_value(segment: &Segment) -> Value {
    let [memory_size, file_size] =
        [&segment.memory, &segment.file].map(|range| range.end - range.start);
    Value::Object(vec![
        ("address", segment.memory.start.into()),
        ("memory_size", memory_size.into()),
        ("file_offset", segment.file.start.into()),
        ("file_size", file_size.into()),
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
