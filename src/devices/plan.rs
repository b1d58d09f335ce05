//! Which option attaches which declared device: decided before anything on the host is touched, so that a mistake
//! changes nothing there. Pure.

use super::error::{Declared, Error};
use crate::block::BlockSource;
use crate::cli::{BlockOption, NetOption};
use crate::manifest::{Device, Kind, Manifest};
use crate::net::NetSource;

/// Every declared device with what it is to be attached to.
#[derive(Debug, Default)]
pub struct Plan {
    pub(super) nets: Vec<PlannedNet>,
    pub(super) blocks: Vec<PlannedBlock>,
}

#[derive(Debug)]
pub(super) struct PlannedNet {
    pub handle: usize,
    pub name: String,
    pub source: NetSource,
    pub mac: Option<[u8; 6]>,
}

#[derive(Debug)]
pub(super) struct PlannedBlock {
    pub handle: usize,
    pub name: String,
    pub source: BlockSource,
    pub sector_size: Option<u16>,
}

impl Plan {
    /// Matches the options with the manifest. Every option must belong to a device, and every device must be
    /// attached, once.
    pub fn new(manifest: &Manifest, nets: &[NetOption], blocks: &[BlockOption]) -> Result<Plan, Error> {
        let devices = manifest.devices();
        let nets = merge(devices, Kind::Net, "net", nets.iter().map(|net| (net.name.as_deref(), net)), merge_net)?;
        let blocks = merge(
            devices,
            Kind::Block,
            "block",
            blocks.iter().map(|block| (block.name.as_deref(), block)),
            merge_block,
        )?;
        let mut plan = Plan::default();
        for device in devices {
            let Device { handle, name, .. } = device.clone();
            let missing = || Error::NotAttached(device.clone());
            match device.kind {
                Kind::Net => {
                    let option = nets.iter().find(|(owner, _)| *owner == handle).map(|(_, option)| option);
                    let source = option.and_then(|option| option.source.clone()).ok_or_else(missing)?;
                    let mac = option.and_then(|option| option.mac);
                    plan.nets.push(PlannedNet { handle, name, source, mac });
                }
                Kind::Block => {
                    let option = blocks.iter().find(|(owner, _)| *owner == handle).map(|(_, option)| option);
                    let source = option.and_then(|option| option.source.clone()).ok_or_else(missing)?;
                    let sector_size = option.and_then(|option| option.sector_size);
                    plan.blocks.push(PlannedBlock { handle, name, source, sector_size });
                }
            }
        }
        plan.check_unshared()?;
        Ok(plan)
    }

    /// The same tap or image under one name twice is a mistake that can be told without looking at the host.
    fn check_unshared(&self) -> Result<(), Error> {
        for (i, net) in self.nets.iter().enumerate() {
            if self.nets[..i].iter().any(|other| other.source == net.source) {
                return Err(Error::Shared { name: net.name.clone() });
            }
        }
        for (i, block) in self.blocks.iter().enumerate() {
            if self.blocks[..i].iter().any(|other| other.source == block.source) {
                return Err(Error::twice(&block.name, block.source.to_string()));
            }
        }
        Ok(())
    }
}

/// Finds the device of each option, and merges the options that mean the same device: the short form without a name
/// and the long one may both occur.
fn merge<'o, T: Clone + 'o>(
    devices: &[Device],
    kind: Kind,
    option: &'static str,
    given: impl Iterator<Item = (Option<&'o str>, &'o T)>,
    join: impl Fn(&mut T, &T) -> bool,
) -> Result<Vec<(usize, T)>, Error> {
    let mut merged: Vec<(usize, T)> = Vec::new();
    for (name, value) in given {
        let device = find(devices, kind, option, name)?;
        match merged.iter_mut().find(|(handle, _)| *handle == device.handle) {
            None => merged.push((device.handle, value.clone())),
            Some((_, known)) => {
                if !join(known, value) {
                    return Err(Error::Twice { kind, name: device.name.clone() });
                }
            }
        }
    }
    Ok(merged)
}

fn find<'d>(devices: &'d [Device], kind: Kind, option: &'static str, name: Option<&str>) -> Result<&'d Device, Error> {
    let mut of_kind = devices.iter().filter(|device| device.kind == kind);
    let declared = || Declared::new(devices);
    match name {
        Some(name) => of_kind.find(|device| device.name == name).ok_or_else(|| Error::Unknown {
            kind,
            name: name.to_owned(),
            declared: declared(),
        }),
        None => match (of_kind.next(), of_kind.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(Error::Ambiguous { option, declared: declared() }),
        },
    }
}

/// Takes over `value` where `target` has none; false if both have one.
fn fill<T: Clone>(target: &mut Option<T>, value: &Option<T>) -> bool {
    match (&target, value) {
        (Some(_), Some(_)) => false,
        (None, Some(value)) => {
            *target = Some(value.clone());
            true
        }
        (_, None) => true,
    }
}

fn merge_net(target: &mut NetOption, value: &NetOption) -> bool {
    fill(&mut target.source, &value.source) && fill(&mut target.mac, &value.mac)
}

fn merge_block(target: &mut BlockOption, value: &BlockOption) -> bool {
    fill(&mut target.source, &value.source) && fill(&mut target.sector_size, &value.sector_size)
}
