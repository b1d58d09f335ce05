//! The manifest: the devices that a unikernel declares. Pure: takes the bytes of the MFT1 note,
//! returns names and types and, once each device is attached, the bytes for the guest. Sections 6.4
//! and 7 of `docs/hvt-abi.md`.

use guest_abi::manifest::{
    BLOCK_BASIC, BlockProperties, Entry, Header, MAX_ENTRIES, NAME_SIZE, NET_BASIC, NetProperties,
    RESERVED_FIRST, VERSION,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::report::counters::Count;

#[cfg(test)]
pub(crate) mod tests;

/// Rule of the manifest that a file violates.
#[derive(Debug, PartialEq, Eq, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("the manifest has {}", Count(*size as u64, "byte"))]
    #[diagnostic(help("its header alone needs 8"))]
    Short { size: usize },
    #[error("the manifest has version {0}")]
    #[diagnostic(help("only version 1 exists"))]
    Version(u32),
    #[error("the manifest declares {0} entries")]
    #[diagnostic(help("1 to 64 are allowed"))]
    Count(u32),
    #[error("the manifest has {size} bytes")]
    #[diagnostic(help("with its number of entries, {entries}, it needs exactly {needed}"))]
    Size {
        size: usize,
        entries: u32,
        needed: usize,
    },
    #[error("manifest entry 0 must be the reserved one: type 0x40000000 and no name")]
    First,
    #[error("the name of manifest entry {0} does not end within its 68 bytes")]
    Name(usize),
    #[error("manifest entry {0} is marked as attached, which only a tender may do")]
    Attached(usize),
    #[error("manifest entry {index} ('{name}') has unknown device type {kind}")]
    #[diagnostic(help("known are 1 (block) and 2 (network)"))]
    Kind {
        index: usize,
        name: String,
        kind: u32,
    },
    #[error("the manifest declares two {kind} devices named '{name}'")]
    Duplicate { kind: Kind, name: String },
}

/// Type of a declared device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// BLOCK_BASIC: a disk.
    Block,
    /// NET_BASIC: a network interface.
    Net,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Block => "BLOCK_BASIC",
            Kind::Net => "NET_BASIC",
        })
    }
}

/// A device that the unikernel declares and needs to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Index in the manifest, by which the guest addresses the device. 1 to 63.
    pub handle: usize,
    /// What it is.
    pub kind: Kind,
    /// Its name, unique within its kind.
    pub name: String,
}

impl Device {
    /// Returns the option that attaches it, with a placeholder for the source. Omits a name that no
    /// option can contain.
    pub fn option(&self) -> String {
        let (option, value) = match self.kind {
            Kind::Net => ("net", "IFACE"),
            Kind::Block => ("block", "PATH"),
        };
        if is_valid_name(&self.name) {
            format!("--{option}:{}={value}", self.name)
        } else {
            format!("--{option}={value}")
        }
    }
}

/// Returns whether an option can contain this name: the rule of Solo5's own tools.
pub fn is_valid_name(name: &str) -> bool {
    (1..NAME_SIZE).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Properties of an attached device, as the guest reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties([u8; size_of::<NetProperties>()]);

impl Properties {
    /// Returns those of a block device: its capacity and its sector size in bytes.
    pub fn block(capacity: u64, block_size: u16) -> Properties {
        Properties(zerocopy::transmute!(BlockProperties {
            capacity,
            block_size,
            ..Default::default()
        }))
    }

    /// Returns those of a network device: its hardware address, and the largest payload of a frame
    /// in bytes.
    pub fn net(mac: [u8; 6], mtu: u16) -> Properties {
        Properties(zerocopy::transmute!(NetProperties {
            mac,
            mtu,
            ..Default::default()
        }))
    }
}

/// Handle that the tender assigns to the network interface of a guest without manifest.
pub const LEGACY_NET: usize = 1;

/// Handle that the tender assigns to the disk of a guest without manifest.
pub const LEGACY_BLOCK: usize = 2;

/// A checked manifest.
#[derive(Clone, Debug)]
pub struct Manifest {
    entries: Vec<Entry>,
    devices: Vec<Device>,
}

impl Manifest {
    /// Checks and parses the content of an MFT1 note.
    pub fn parse(content: &[u8]) -> Result<Manifest, Error> {
        let (header, rest) = Header::read_from_prefix(content).map_err(|_| Error::Short {
            size: content.len(),
        })?;
        if header.version != VERSION {
            return Err(Error::Version(header.version));
        }
        if header.entries == 0 || header.entries as usize > MAX_ENTRIES {
            return Err(Error::Count(header.entries));
        }
        let needed = header.entries as usize * size_of::<Entry>();
        if rest.len() != needed {
            return Err(Error::Size {
                size: content.len(),
                entries: header.entries,
                needed: needed + size_of::<Header>(),
            });
        }
        let entries: Vec<Entry> = rest
            .chunks_exact(size_of::<Entry>())
            .flat_map(Entry::read_from_bytes)
            .collect();
        Manifest::check(entries)
    }

    fn check(mut entries: Vec<Entry>) -> Result<Manifest, Error> {
        if entries[0].kind != RESERVED_FIRST || entries[0].name[0] != 0 {
            return Err(Error::First);
        }
        let mut devices: Vec<Device> = Vec::with_capacity(entries.len());
        for (handle, entry) in entries.iter().enumerate() {
            let Some(device) = declared(handle, entry)? else {
                continue;
            };
            if devices
                .iter()
                .any(|other| other.kind == device.kind && other.name == device.name)
            {
                return Err(Error::Duplicate {
                    kind: device.kind,
                    name: device.name,
                });
            }
            devices.push(device);
        }
        for entry in &mut entries {
            // The tender's fields: zero for the guest, regardless of the file.
            (entry.host, entry.pad) = Default::default();
        }
        Ok(Manifest { entries, devices })
    }

    /// Returns a manifest for a guest that cannot declare its devices: one device of each kind that
    /// the operator attaches. The names are for messages only: no option can contain them.
    pub fn unnamed(net: bool, block: bool) -> Manifest {
        let net = net.then(|| Device {
            handle: LEGACY_NET,
            kind: Kind::Net,
            name: "unnamed net".to_owned(),
        });
        let block = block.then(|| Device {
            handle: LEGACY_BLOCK,
            kind: Kind::Block,
            name: "unnamed disk".to_owned(),
        });
        let entries = vec![
            Entry::reserved(),
            Entry::declare("", NET_BASIC),
            Entry::declare("", BLOCK_BASIC),
        ];
        Manifest {
            entries,
            devices: net.into_iter().chain(block).collect(),
        }
    }

    /// Returns the declared devices in the order of their handles.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Returns the manifest for the guest, with the properties of the `attached` devices by handle.
    /// It contains no host data.
    pub fn to_bytes(&self, attached: impl IntoIterator<Item = (usize, Properties)>) -> Vec<u8> {
        let mut entries = self.entries.clone();
        for (handle, Properties(properties)) in attached {
            entries[handle].properties = properties;
            entries[handle].attached = 1;
        }
        let header = Header {
            version: VERSION,
            entries: entries.len() as u32,
        };
        [header.as_bytes(), entries.as_bytes()].concat()
    }
}

/// Checks one entry; `None` if it is no device.
fn declared(index: usize, entry: &Entry) -> Result<Option<Device>, Error> {
    let end = entry
        .name
        .iter()
        .position(|&byte| byte == 0)
        .ok_or(Error::Name(index))?;
    if entry.name[entry.name.len() - 1] != 0 {
        return Err(Error::Name(index));
    }
    if entry.attached != 0 {
        return Err(Error::Attached(index));
    }
    // Escaped, because it goes into messages: a file must not control the operator's terminal.
    let name = String::from_utf8_lossy(&entry.name[..end])
        .escape_debug()
        .to_string();
    let kind = match entry.kind {
        RESERVED_FIRST.. => return Ok(None),
        BLOCK_BASIC => Kind::Block,
        NET_BASIC => Kind::Net,
        kind => return Err(Error::Kind { index, name, kind }),
    };
    Ok(Some(Device {
        handle: index,
        kind,
        name,
    }))
}
