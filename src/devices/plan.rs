//! Matches options with declared devices before anything on the host is touched, so that an error
//! changes nothing there. Pure.

use super::error::{Error, declared};
use super::probe;
use crate::config::{BlockOption, BlockSource, NetOption, NetSource};
use crate::guest::manifest::{Device, Kind, Manifest};

/// The declared devices, each with its source.
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
    /// The option that attaches it, with the device's name, without dashes: `--disk` has none.
    pub option: &'static str,
    pub name: String,
    pub source: BlockSource,
    pub sector_size: Option<u16>,
}

impl PlannedNet {
    /// Returns the device that `option` attaches, if it has a source.
    fn new(handle: usize, name: String, option: &NetOption) -> Option<PlannedNet> {
        Some(PlannedNet {
            handle,
            name,
            source: option.source.clone()?,
            mac: option.mac,
        })
    }
}

impl PlannedBlock {
    /// As [`PlannedNet::new`].
    fn new(handle: usize, name: String, option: &BlockOption) -> Option<PlannedBlock> {
        Some(PlannedBlock {
            handle,
            option: "block",
            name,
            source: option.source.clone()?,
            sector_size: option.sector_size,
        })
    }
}

impl Plan {
    /// Matches the options with the manifest. Every option must belong to a device, and every
    /// device must be attached exactly once.
    ///
    /// # Errors
    /// The first error of [`Plan::partial`].
    pub fn new(
        manifest: &Manifest,
        nets: &[NetOption],
        blocks: &[BlockOption],
    ) -> Result<Plan, Error> {
        let (plan, errors) = Plan::partial(manifest, nets, blocks);
        errors.into_iter().next().map_or(Ok(plan), Err)
    }

    /// Returns a plan of the valid devices, and all errors, where [`Plan::new`] returns only the
    /// first.
    pub fn partial(
        manifest: &Manifest,
        nets: &[NetOption],
        blocks: &[BlockOption],
    ) -> (Plan, Vec<Error>) {
        let devices = manifest.devices();
        let mut errors = Vec::new();
        let nets = nets
            .iter()
            .map(|net| (net.name.as_deref(), net.option, net.in_file.as_deref(), net));
        let nets = merge(devices, Kind::Net, nets, merge_net, &mut errors);
        let blocks = blocks.iter().map(|block| {
            let name = block.name.as_deref();
            (name, block.option, block.in_file.as_deref(), block)
        });
        let blocks = merge(devices, Kind::Block, blocks, merge_block, &mut errors);
        let mut plan = Plan::default();
        for device in devices {
            let Device { handle, name, kind } = device.clone();
            let planned = match kind {
                Kind::Net => option_of(&nets, handle)
                    .and_then(|option| PlannedNet::new(handle, name, option))
                    .map(|net| plan.nets.push(net)),
                Kind::Block => option_of(&blocks, handle)
                    .and_then(|option| PlannedBlock::new(handle, name, option))
                    .map(|block| plan.blocks.push(block)),
            };
            if planned.is_none() {
                errors.push(Error::NotAttached(device.clone()));
            }
        }
        plan.remove_shared(&mut errors);
        (plan, errors)
    }

    /// Returns a plan for the options alone, for when no manifest is available.
    pub fn of_options(nets: &[NetOption], blocks: &[BlockOption]) -> Plan {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let planned_net = |net: &NetOption| PlannedNet::new(0, name(&net.name), net);
        let planned_block = |block: &BlockOption| {
            let planned = PlannedBlock::new(0, name(&block.name), block)?;
            Some(PlannedBlock {
                option: block.option,
                ..planned
            })
        };
        Plan {
            nets: nets.iter().filter_map(planned_net).collect(),
            blocks: blocks.iter().filter_map(planned_block).collect(),
        }
    }

    /// Returns the block devices: names and sources.
    pub(crate) fn disks(&self) -> impl Iterator<Item = (&str, &BlockSource)> {
        self.blocks
            .iter()
            .map(|block| (block.name.as_str(), &block.source))
    }

    /// Returns the option that attaches a block device, for reports.
    pub(crate) fn disk_option(&self, index: usize) -> String {
        probe::option(self.blocks[index].option, &self.blocks[index].name)
    }

    /// Removes these block devices.
    pub(crate) fn without_disks(mut self, indices: &[usize]) -> Plan {
        let mut index = 0..;
        self.blocks
            .retain(|_| !index.next().is_some_and(|index| indices.contains(&index)));
        self
    }

    /// Removes devices that have the same tap or image under the same name. To find these, no
    /// access to the host is needed.
    fn remove_shared(&mut self, errors: &mut Vec<Error>) {
        let (nets, blocks) = (&mut self.nets, &mut self.blocks);
        remove_repeated(
            nets,
            |net| &net.source,
            |net| {
                let name = net.name.clone();
                errors.push(Error::Shared { name });
            },
        );
        remove_repeated(
            blocks,
            |block| &block.source,
            |block| {
                errors.push(Error::twice(&block.name, block.source.to_string()));
            },
        );
    }
}

/// Removes and reports devices with the same source as an earlier one.
fn remove_repeated<T, S: Clone + PartialEq>(
    devices: &mut Vec<T>,
    source: impl Fn(&T) -> &S,
    mut report: impl FnMut(&T),
) {
    let mut sources = Vec::new();
    devices.retain(|device| {
        let is_new = !sources.contains(source(device));
        if is_new {
            sources.push(source(device).clone());
        } else {
            report(device);
        }
        is_new
    });
}

fn option_of<T>(options: &[(usize, T)], handle: usize) -> Option<&T> {
    options
        .iter()
        .find(|(owner, _)| *owner == handle)
        .map(|(_, option)| option)
}

/// Finds the device of each option, and merges options for the same device: the short form without
/// a name and the long one may both occur.
fn merge<'o, T: Clone + 'o>(
    devices: &[Device],
    kind: Kind,
    given: impl Iterator<Item = (Option<&'o str>, &'static str, Option<&'o str>, &'o T)>,
    join: impl Fn(&mut T, &T) -> bool,
    errors: &mut Vec<Error>,
) -> Vec<(usize, T)> {
    let mut merged: Vec<(usize, T)> = Vec::new();
    for (name, option, in_file, value) in given {
        let device = match find(devices, kind, option, name) {
            Ok(device) => device,
            Err(error) => {
                errors.push(error.at(in_file));
                continue;
            }
        };
        match merged
            .iter_mut()
            .find(|(handle, _)| *handle == device.handle)
        {
            None => merged.push((device.handle, value.clone())),
            Some((_, known)) => {
                if !join(known, value) {
                    let name = device.name.clone();
                    errors.push(Error::Twice { kind, name }.at(in_file));
                }
            }
        }
    }
    merged
}

fn find<'d>(
    devices: &'d [Device],
    kind: Kind,
    option: &'static str,
    name: Option<&str>,
) -> Result<&'d Device, Error> {
    let mut of_kind = devices.iter().filter(|device| device.kind == kind);
    match name {
        Some(name) => of_kind
            .find(|device| device.name == name)
            .ok_or_else(|| Error::Unknown {
                kind,
                name: name.to_owned(),
                declared: declared(devices),
            }),
        None => match (of_kind.next(), of_kind.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(Error::NoneOfKind {
                option,
                kind,
                declared: declared(devices),
            }),
            _ => Err(Error::Ambiguous {
                option,
                declared: declared(devices),
            }),
        },
    }
}

/// Fills `target` if unset; returns false on a conflict between two options of equal priority.
/// Fallbacks are merged last.
fn fill<T: Clone>(target: &mut Option<T>, value: &Option<T>, is_fallback: bool) -> bool {
    match (&target, value) {
        (Some(_), Some(_)) => is_fallback,
        (None, Some(value)) => {
            *target = Some(value.clone());
            true
        }
        (_, None) => true,
    }
}

// The patterns name every field, so the compiler reports one that is not merged.

fn merge_net(target: &mut NetOption, value: &NetOption) -> bool {
    let NetOption {
        name: _,
        option: _,
        source,
        mac,
        in_file,
    } = value;
    let is_fallback = in_file.is_some() && target.in_file.is_none();
    fill(&mut target.source, source, is_fallback) && fill(&mut target.mac, mac, is_fallback)
}

fn merge_block(target: &mut BlockOption, value: &BlockOption) -> bool {
    let BlockOption {
        name: _,
        option: _,
        source,
        sector_size,
        in_file,
    } = value;
    let is_fallback = in_file.is_some() && target.in_file.is_none();
    fill(&mut target.source, source, is_fallback)
        && fill(&mut target.sector_size, sector_size, is_fallback)
}
