//! The annotations by which container runtimes recognise and start a unikernel, as one JSON object:
//! those of urunc (`com.urunc.unikernel.*`) and of aussi (`solo5.*`). Each ignores the other's.
//!
//! The keys are those of urunc's `docs/package/index.md` and of aussi's `lib/solo5.ml`.

use super::{FormError, Report, suggested_memory};
use crate::guest::manifest::{Device, Kind, Manifest, is_valid_name};
use crate::report::json::Value;

/// The interface that Docker and Podman give a container.
const INTERFACE: &str = "eth0";

impl Report {
    /// Formats the annotations, for an image with the unikernel and its disks in its root
    /// directory; empty if the file is rejected.
    ///
    /// # Errors
    /// The name of the file is not UTF-8, or the name of a device is not one that an option can
    /// contain. As part of a path, that could lead out of the image.
    pub fn to_oci(&self) -> Result<String, FormError> {
        let (None, Some(least_memory)) = (&self.refusal, self.least_memory) else {
            return Ok(String::new());
        };
        let devices = self.manifest.iter().flat_map(Manifest::devices);
        if let Some(odd) = devices.clone().find(|device| !is_valid_name(&device.name)) {
            return Err(FormError::Name(odd.name.clone()));
        }
        let file = self.file.file_name().unwrap_or_default();
        let file = file.to_str().ok_or(FormError::Path("JSON"))?;
        let memory = suggested_memory(least_memory) >> 20;
        let mut annotations = vec![
            urunc("unikernelType", "mirage".to_owned()),
            urunc("hypervisor", "hvt".to_owned()),
            urunc("binary", format!("/{file}")),
            // The unikernel uses no file system of the image. Up to 2025, the second name.
            urunc("mountRootfs", "false".to_owned()),
            urunc("useDMBlock", "false".to_owned()),
        ];
        let disks = || devices.clone().filter(|device| device.kind == Kind::Block);
        // urunc attaches one disk.
        if let Some(disk) = disks().next() {
            annotations.push(urunc("block", image(disk)));
            annotations.push(urunc("blkMntPoint", format!("/{}", disk.name)));
        }
        annotations.push(("solo5.mem".to_owned(), memory.to_string()));
        annotations.extend(devices.clone().map(aussi));
        let lines = annotations.into_iter().map(|(key, value)| {
            let [key, value] = [key, value].map(|text| Value::Text(text).one_line().to_string());
            format!("  {key}: {value}")
        });
        Ok(format!(
            "{{\n{}\n}}\n",
            lines.collect::<Vec<_>>().join(",\n")
        ))
    }
}

fn urunc(key: &str, value: String) -> (String, String) {
    (format!("com.urunc.unikernel.{key}"), value)
}

fn aussi(device: &Device) -> (String, String) {
    let name = &device.name;
    match device.kind {
        Kind::Net => (format!("solo5.net.{name}.docker"), INTERFACE.to_owned()),
        Kind::Block => (format!("solo5.block.{name}"), image(device)),
    }
}

/// Returns the path of a disk in the image.
fn image(device: &Device) -> String {
    format!("/{}.img", device.name)
}
