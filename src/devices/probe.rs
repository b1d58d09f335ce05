//! Checks each device of a plan separately, for `--check`: queries interfaces without attaching
//! them, opens and locks images as for a run, and restores their locks afterwards.

use super::error::{Error, with_cause};
use super::plan::{Plan, PlannedBlock, PlannedNet};
use crate::block::{Disk, SharedLock};
use crate::config::NetSource;
use crate::guest::era::Rules;
use crate::host::files::Files;
use crate::net::{self, MacAddress, NicProbe};

/// Result of checking one device.
#[derive(Debug)]
pub struct Probe {
    /// The option that attaches it, without dashes and value: `net:NAME`.
    pub option: String,
    /// Its source and a possible problem, or the error that prevents attaching it.
    pub found: Result<(String, Option<String>), String>,
}

impl Plan {
    /// Checks every device.
    pub fn probe(self, files: &mut Files, rules: &Rules) -> Vec<Probe> {
        // Taken before any image is locked, and dropped after the files that are opened here.
        let _shared: Vec<SharedLock> = self
            .blocks
            .iter()
            .filter_map(|block| SharedLock::new(&block.source))
            .collect();
        let (mut prospects, mut disks) = (Vec::new(), Vec::new());
        let nets = self.nets.into_iter().map(|net| {
            let found = probe_net(&net, &mut prospects).map_err(|error| without_name(&error));
            Probe {
                option: option("net", &net.name),
                found,
            }
        });
        let blocks = self.blocks.into_iter().map(|block| {
            let found =
                probe_block(&block, files, rules, &mut disks).map_err(|error| without_name(&error));
            Probe {
                option: option(block.option, &block.name),
                found: found.map(|found| (found, None)),
            }
        });
        nets.chain(blocks).collect()
    }
}

pub(super) fn option(option: &str, name: &str) -> String {
    if name.is_empty() {
        option.to_owned()
    } else {
        format!("{option}:{name}")
    }
}

/// Formats an error without the device's name, which the report prints itself.
pub(crate) fn without_name(error: &Error) -> String {
    match error {
        Error::Net { error, .. } => with_cause(error),
        Error::Block { error, .. } => with_cause(error),
        other => other.to_string(),
    }
}

fn probe_net(
    planned: &PlannedNet,
    prospects: &mut Vec<NicProbe>,
) -> Result<(String, Option<String>), Error> {
    let prospect = NicProbe::new(&planned.source).map_err(|error| Error::Net {
        name: planned.name.clone(),
        error,
    })?;
    if prospects.iter().any(|other| other.shares_with(&prospect)) {
        let name = planned.name.clone();
        return Err(match &planned.source {
            NetSource::Interface(given) => Error::Net {
                name,
                error: net::Error::GivenTwice {
                    name: given.clone(),
                },
            },
            NetSource::Fd(_) => Error::Shared { name },
        });
    }
    let mac = planned
        .mac
        .map_or("a random MAC address".to_owned(), |mac| {
            MacAddress(mac).to_string()
        });
    let found = format!(
        "{}, {mac}, MTU {}",
        prospect.interface_name(),
        prospect.mtu()
    );
    let doubt = prospect.doubt().map(str::to_owned);
    prospects.push(prospect);
    Ok((found, doubt))
}

fn probe_block(
    block: &PlannedBlock,
    files: &mut Files,
    rules: &Rules,
    disks: &mut Vec<Disk>,
) -> Result<String, Error> {
    let disk = Disk::attach(&block.source, files, block.sector_size, rules.disk_tail).map_err(
        |error| Error::Block {
            name: block.name.clone(),
            error,
        },
    )?;
    let found = format!(
        "{}, {} bytes in sectors of {}",
        disk.path().display(),
        disk.capacity(),
        disk.sector_size()
    );
    disks.push(disk);
    Ok(found)
}
