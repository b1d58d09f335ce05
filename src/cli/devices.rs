//! Options of devices, merged by device.

use super::error::Rule;
use super::options::OptionValue;
use super::value::{self, put};
use crate::config::{BlockOption, Config, NetOption};

/// `--net`: one interface serves one device.
pub(super) fn attach_net(config: &mut Config, given: &OptionValue) -> Result<(), Rule> {
    let source = value::net_source(given)?;
    let is_taken = |net: &NetOption| {
        net.in_file.is_some() == given.in_file.is_some()
            && net.name != given.device
            && net.source.as_ref() == Some(&source)
    };
    if config.nets.iter().any(is_taken) {
        return Err(Rule::SameTap(source));
    }
    put(&mut net(config, given).source, Ok(source))
}

/// `--block-sector-size`.
pub(super) fn set_sector_size(config: &mut Config, given: &OptionValue) -> Result<(), Rule> {
    let size = value::sector_size(given);
    put(&mut block(config, given).sector_size, size)
}

/// Returns the entry of the network device that `given` names; adds one if there is none.
pub(super) fn net<'c>(config: &'c mut Config, given: &OptionValue) -> &'c mut NetOption {
    let in_file = given.in_file.is_some();
    let is_it = |net: &NetOption| net.name == given.device && net.in_file.is_some() == in_file;
    find_or_add(&mut config.nets, is_it, || NetOption {
        name: given.device.clone(),
        option: given.name(),
        in_file: given.in_file.clone(),
        ..NetOption::default()
    })
}

/// Returns the entry of the block device that `given` names; adds one if there is none.
pub(super) fn block<'c>(config: &'c mut Config, given: &OptionValue) -> &'c mut BlockOption {
    let in_file = given.in_file.is_some();
    let is_it =
        |block: &BlockOption| block.name == given.device && block.in_file.is_some() == in_file;
    find_or_add(&mut config.blocks, is_it, || BlockOption {
        name: given.device.clone(),
        option: given.name(),
        in_file: given.in_file.clone(),
        ..BlockOption::default()
    })
}

fn find_or_add<T>(
    devices: &mut Vec<T>,
    is_it: impl Fn(&T) -> bool,
    new: impl FnOnce() -> T,
) -> &mut T {
    let index = devices.iter().position(is_it).unwrap_or_else(|| {
        devices.push(new());
        devices.len() - 1
    });
    &mut devices[index]
}
