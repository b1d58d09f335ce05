//! Checks each device of a plan separately, for `--check`: queries interfaces without attaching
//! them, and opens and locks images as for a run.

use super::error::Error;
use super::plan::{Plan, PlannedBlock, PlannedNet};
use crate::block::Disk;
use crate::config::{BlockSource, NetSource};
use crate::guest::era::Rules;
use crate::host::files::Files;
use crate::net::{self, MacAddress, NicProbe};
use crate::report::message::Message;

/// Note about a passed disk.
const LOCK_UNTRIED: &str =
    "whether it is in use is not checked: a lock would stay with the passed descriptor";

/// The source of a device, and a possible problem.
type Found = (String, Option<String>);

/// Result of checking one device.
#[derive(Debug)]
pub struct Probe {
    /// The option that attaches it, without dashes and value: `net:NAME`.
    pub option: String,
    /// Its source and a possible problem, or the error that prevents attaching it.
    pub found: Result<Found, Message>,
}

impl Plan {
    /// Checks every device.
    pub fn probe(self, files: &mut Files, rules: &Rules) -> Vec<Probe> {
        let (mut probes, mut disks) = (Vec::new(), Vec::new());
        let nets = self.nets.into_iter().map(|net| {
            let option = option("net", &net.name);
            (option, probe_net(&net, &mut probes))
        });
        let blocks = self.blocks.into_iter().map(|block| {
            let option = option(block.option, &block.name);
            (option, probe_block(&block, files, rules, &mut disks))
        });
        let found = nets.chain(blocks).map(|(option, found)| Probe {
            option,
            found: found.map_err(without_name),
        });
        found.collect()
    }
}

pub(super) fn option(option: &str, name: &str) -> String {
    if name.is_empty() {
        option.to_owned()
    } else {
        format!("{option}:{name}")
    }
}

/// Returns the message without the device's name, which the report prints itself.
fn without_name(error: Error) -> Message {
    match error {
        Error::Net { error, .. } => error.into(),
        Error::Block { error, .. } => error.into(),
        other => other.into(),
    }
}

fn probe_net(planned: &PlannedNet, probes: &mut Vec<NicProbe>) -> Result<Found, Error> {
    let name = planned.name.clone();
    let probe = match NicProbe::new(&planned.source) {
        Ok(probe) => probe,
        Err(error) => return Err(Error::Net { name, error }),
    };
    if probes.iter().any(|other| other.shares_with(&probe)) {
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
    let mac = planned.mac.map(|mac| MacAddress(mac).to_string());
    let found = format!(
        "{}, {}, MTU {}",
        probe.interface_name(),
        mac.as_deref().unwrap_or("a random MAC address"),
        probe.mtu()
    );
    let doubt = probe.doubt().map(str::to_owned);
    probes.push(probe);
    Ok((found, doubt))
}

fn probe_block(
    block: &PlannedBlock,
    files: &mut Files,
    rules: &Rules,
    disks: &mut Vec<Disk>,
) -> Result<Found, Error> {
    let PlannedBlock { source, name, .. } = block;
    let disk = Disk::inspect(source, files, block.sector_size, rules.disk_tail);
    let disk = disk.map_err(|error| Error::Block {
        name: name.clone(),
        error,
    })?;
    let found = disk.to_string();
    disks.push(disk);
    let is_passed = matches!(source, BlockSource::Fd(_));
    Ok((found, is_passed.then(|| LOCK_UNTRIED.to_owned())))
}
