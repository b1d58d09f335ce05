//! The devices that one unikernel's manifest declares, attached to the taps and images that the
//! command line names. The guest addresses each device by its handle, the index in the manifest.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use guest_abi::hypercall::Status;

use self::ring::Ring;
use crate::block::Disk;
use crate::guest::era::Rules;
use crate::guest::hypercall::{BlockRequest, NetRequest, Reply};
use crate::guest::manifest::{Kind, LEGACY_BLOCK, LEGACY_NET, Properties};
use crate::host::files::Files;
use crate::memory::{self, GuestMemory};
use crate::net::{MacAddress, Nic};
use crate::report::counters;
use crate::report::message::Message;

pub mod clock;
pub mod console;
mod error;
mod plan;
mod probe;
pub mod ring;
#[cfg(test)]
mod tests;
mod waits;

pub use error::Error;
pub use plan::Plan;
use plan::{PlannedBlock, PlannedNet};
pub use probe::Probe;
use waits::Waits;

/// What a handle refers to.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Empty,
    Net(Nic),
    Block(Disk),
}

/// Why a request cannot be performed.
#[derive(Debug)]
pub enum Fault {
    /// There is no such device.
    NoDevice(Kind),
    /// The guest named memory that does not exist, or that it may not write.
    Memory(memory::RangeError),
    /// Requests that the guest queued in the ring earlier are invalid.
    Ring(ring::Error),
    /// The host refuses to wait.
    Wait(io::Error),
}

impl From<ring::Error> for Fault {
    fn from(error: ring::Error) -> Fault {
        Fault::Ring(error)
    }
}

impl From<memory::RangeError> for Fault {
    fn from(error: memory::RangeError) -> Fault {
        Fault::Memory(error)
    }
}

/// All devices, by handle.
#[derive(Debug)]
pub struct Devices {
    /// Each with its name in the manifest, up to the largest handle in use. An array for all
    /// handles would take most of the stack that a start uses.
    slots: Vec<(String, Slot)>,
    /// Network devices that POLL waits for, by handle.
    waits: Waits,
    nets: usize,
}

impl Devices {
    /// Attaches everything in `plan`.
    // Inlined, its frame would stay on the stack while the guest runs.
    #[inline(never)]
    pub fn attach(plan: Plan, files: &mut Files, rules: &Rules) -> Result<Devices, Error> {
        let mut devices = Devices {
            slots: Vec::new(),
            waits: Waits::new().map_err(|error| Error::Wait { error })?,
            nets: 0,
        };
        for net in plan.nets {
            devices.attach_net(net)?;
        }
        for block in plan.blocks {
            devices.attach_block(block, files, rules)?;
        }
        Ok(devices)
    }

    fn attach_net(&mut self, net: PlannedNet) -> Result<(), Error> {
        let PlannedNet { handle, name, .. } = net;
        let mut nic = match Nic::attach(&net.source, net.mac) {
            Ok(nic) => nic,
            Err(error) => return Err(Error::Net { name, error }),
        };
        if self.nets().any(|(_, _, other)| other.shares_with(&nic)) {
            return Err(Error::Shared { name });
        }
        nic.set_device(&name);
        log::info!(
            device = name.as_str();
            "device '{name}': {}, {}, MTU {}",
            nic.interface_name(),
            MacAddress(nic.mac()),
            nic.mtu()
        );
        self.waits
            .add(handle, nic.as_fd())
            .map_err(|error| Error::Wait { error })?;
        self.nets += 1;
        self.insert(handle, name, Slot::Net(nic));
        Ok(())
    }

    fn attach_block(
        &mut self,
        block: PlannedBlock,
        files: &mut Files,
        rules: &Rules,
    ) -> Result<(), Error> {
        let PlannedBlock { handle, name, .. } = block;
        match Disk::attach(&block.source, files, block.sector_size, rules.disk_tail) {
            Ok(mut disk) => {
                disk.set_device(&name);
                log::info!(device = name.as_str(); "device '{name}': {disk}");
                self.insert(handle, name, Slot::Block(disk));
                Ok(())
            }
            Err(error) => Err(Error::Block { name, error }),
        }
    }

    fn insert(&mut self, handle: usize, name: String, slot: Slot) {
        if self.slots.len() <= handle {
            self.slots.resize_with(handle + 1, Default::default);
        }
        self.slots[handle] = (name, slot);
    }

    /// Returns the properties of each device, by handle.
    pub fn properties(&self) -> impl Iterator<Item = (usize, Properties)> {
        self.named().filter_map(|(handle, _, slot)| {
            let properties = match slot {
                Slot::Empty => return None,
                Slot::Net(nic) => Properties::net(nic.mac(), nic.mtu()),
                Slot::Block(disk) => Properties::block(disk.capacity(), disk.sector_size()),
            };
            Some((handle, properties))
        })
    }

    /// Describes the host side of the device with this handle, for messages.
    pub fn on_host(&self, handle: usize) -> Option<String> {
        match &self.slots.get(handle)?.1 {
            Slot::Empty => None,
            Slot::Net(nic) => Some(nic.interface_name().to_owned()),
            Slot::Block(disk) => Some(disk.path().display().to_string()),
        }
    }

    /// Returns whether there is a network interface.
    pub fn has_nets(&self) -> bool {
        self.nets > 0
    }

    /// Returns the descriptors that POLL waits on: a set, and a timer if needed.
    pub fn waits(&self) -> (RawFd, Option<RawFd>) {
        self.waits.descriptors()
    }

    /// Returns the descriptors of the network interfaces, and those of the disks.
    pub fn descriptors(&self) -> (Vec<RawFd>, Vec<RawFd>) {
        let nets = self.nets().map(|(_, _, nic)| nic.as_fd().as_raw_fd());
        let disks = self.disks().map(|(_, disk)| disk.as_fd().as_raw_fd());
        (nets.collect(), disks.collect())
    }

    /// Returns the network interfaces, each with its handle and its name in the manifest.
    pub fn nets(&self) -> impl Iterator<Item = (usize, &str, &Nic)> {
        self.named().filter_map(|(handle, name, slot)| match slot {
            Slot::Net(nic) => Some((handle, name, nic)),
            _ => None,
        })
    }

    /// Returns the disks, each with its name in the manifest.
    pub fn disks(&self) -> impl Iterator<Item = (&str, &Disk)> {
        self.named().filter_map(|(_, name, slot)| match slot {
            Slot::Block(disk) => Some((name, disk)),
            _ => None,
        })
    }

    fn named(&self) -> impl Iterator<Item = (usize, &str, &Slot)> {
        let slots = self.slots.iter().enumerate();
        slots.map(|(handle, (name, slot))| (handle, name.as_str(), slot))
    }

    /// Duplicates the network interfaces, each with its handle, for another thread.
    ///
    /// # Errors
    /// The host has no descriptors left.
    pub fn try_clone_nets(&self) -> io::Result<Vec<(usize, Nic)>> {
        self.nets()
            .map(|(handle, _, nic)| nic.try_clone().map(|nic| (handle, nic)))
            .collect()
    }

    fn slot(&mut self, handle: u64) -> Option<&mut Slot> {
        let (_, slot) = self.slots.get_mut(usize::try_from(handle).ok()?)?;
        Some(slot)
    }

    fn net(&mut self, handle: u64) -> Result<&mut Nic, Fault> {
        match self.slot(handle) {
            Some(Slot::Net(nic)) => Ok(nic),
            _ => Err(Fault::NoDevice(Kind::Net)),
        }
    }

    fn block(&mut self, handle: u64) -> Result<&mut Disk, Fault> {
        match self.slot(handle) {
            Some(Slot::Block(disk)) => Ok(disk),
            _ => Err(Fault::NoDevice(Kind::Block)),
        }
    }

    /// NET_WRITE.
    #[inline]
    pub fn net_write(&mut self, memory: &GuestMemory, request: NetRequest) -> Result<Reply, Fault> {
        let NetRequest { handle, buffer } = request;
        let status = self.net(handle)?.write(memory, buffer.addr, buffer.len)?;
        Ok(Reply::Net(status))
    }

    /// NET_READ.
    #[inline]
    pub fn net_read(&mut self, memory: &GuestMemory, request: NetRequest) -> Result<Reply, Fault> {
        let NetRequest { handle, buffer } = request;
        Ok(
            match self.net(handle)?.read(memory, buffer.addr, buffer.len)? {
                (Status::Ok, len) => Reply::Frame(len),
                (status, _) => Reply::Net(status),
            },
        )
    }

    /// NETINFO, for the one interface of a guest without manifest.
    pub fn net_info(&mut self) -> Result<Reply, Fault> {
        Ok(Reply::NetInfo {
            mac: self.net(LEGACY_NET as u64)?.mac(),
        })
    }

    /// BLOCK_WRITE.
    #[inline]
    pub fn block_write(
        &mut self,
        memory: &GuestMemory,
        request: BlockRequest,
    ) -> Result<Reply, Fault> {
        let BlockRequest { offset, buffer, .. } = request;
        let disk = self.block(request.handle)?;
        let status = disk.write(memory, offset, buffer.addr, buffer.len)?;
        Ok(Reply::Block(status))
    }

    /// BLOCK_READ.
    #[inline]
    pub fn block_read(
        &mut self,
        memory: &GuestMemory,
        request: BlockRequest,
    ) -> Result<Reply, Fault> {
        let BlockRequest { offset, buffer, .. } = request;
        let disk = self.block(request.handle)?;
        let status = disk.read(memory, offset, buffer.addr, buffer.len)?;
        Ok(Reply::Block(status))
    }

    /// BLKINFO, for the one disk of a guest without manifest.
    pub fn block_info(&mut self) -> Result<Reply, Fault> {
        Ok(Reply::BlockInfo {
            capacity: self.block(LEGACY_BLOCK as u64)?.capacity(),
        })
    }

    /// POLL: sleeps until a frame waits on some network device, `timeout` nanoseconds have passed,
    /// or the run is to end. Makes one system call, and none if there is nothing to wait for.
    /// Returns a bit for each handle with a frame.
    ///
    /// An error or an end of file counts as a frame: the next read finds whether the interface is
    /// gone permanently. POLL reports a lost interface once more, and then stops waiting for it.
    ///
    /// # Errors
    /// [`Fault::Wait`].
    #[inline(always)]
    pub fn poll(&mut self, timeout: u64) -> Result<u64, Fault> {
        if timeout == 0 && self.nets == 0 {
            return Ok(0);
        }
        let found = self.waits.wait(timeout).map_err(Fault::Wait)?;
        let mut ready = 0;
        for handle in self.waits.ready(found) {
            ready |= 1 << handle;
            match self.slots.get(handle) {
                Some((_, Slot::Net(nic))) if nic.is_gone() => self.waits.forget(nic.as_fd()),
                _ => {}
            }
        }
        Ok(ready)
    }

    /// Ends the run cleanly: syncs the disks, and logs the traffic of each device, including its
    /// duplicate in `ring`.
    pub fn finish(&mut self, ring: Option<&Ring>) {
        for (handle, (device, slot)) in self.slots.iter().enumerate() {
            match slot {
                Slot::Net(nic) => {
                    let duplicate = ring.and_then(|ring| ring.nic(handle));
                    let stats = nic.stats() + duplicate.map(Nic::stats).unwrap_or_default();
                    let faults = stats.faults().sum() + stats.receive_errors;
                    counters::log_totals(device, nic.interface_name(), stats, faults);
                }
                Slot::Block(disk) => {
                    if let Err(error) = disk.sync() {
                        log::warn!(device = device.as_str(); "{}", Message::of(&error));
                    }
                    let stats = disk.stats();
                    counters::log_totals(
                        device,
                        disk.path().display(),
                        stats,
                        stats.faults().sum(),
                    );
                }
                Slot::Empty => {}
            }
        }
    }
}
