//! The devices of one unikernel: those its manifest declares, attached to what the command line names. The guest
//! knows each by its handle, its index in the manifest.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::ptr;
use std::time::Duration;

use guest_abi::hypercall::Status;
use guest_abi::manifest::MAX_ENTRIES;

use crate::block::Disk;
use crate::counts;
use crate::era::Rules;
use crate::hypercall::{BlockRequest, NetRequest, Reply};
use crate::manifest::{Kind, LEGACY_BLOCK, LEGACY_NET, Manifest};
use crate::memory::{self, GuestMemory};
use crate::net::{MacAddress, Nic};
use crate::ring::{self, Ring};
use crate::signal;

mod error;
mod plan;
mod probe;
#[cfg(test)]
mod tests;
mod timed;

pub use error::Error;
pub use plan::Plan;
pub use probe::Probe;
use timed::Timed;

/// A short sleep, for want of a better one.
const NAP: Duration = Duration::from_millis(1);

/// What a handle stands for.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Empty,
    Net(Nic),
    Block(Disk),
}

/// Why a request could not even be tried.
#[derive(Debug)]
pub enum Fault {
    /// There is no such device.
    NoDevice(Kind),
    /// The guest named memory that it does not have, or may not write.
    Memory(memory::RangeError),
    /// What the guest put into the ring before breaks its rules.
    Ring(ring::Error),
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
    /// As many as the largest handle asks for: room for all would be most of a start's stack.
    slots: Vec<Slot>,
    /// The name of each, in the manifest.
    names: Vec<String>,
    /// The network devices as POLL waits for them; `handles` has the handle of each. One more device than can be
    /// declared never happens, so the arrays are never outgrown.
    waits: [libc::pollfd; MAX_ENTRIES],
    handles: [u8; MAX_ENTRIES],
    nets: usize,
    /// How POLL waits where `ppoll` is refused.
    timed: Option<Timed>,
}

impl Devices {
    /// Attaches everything that `plan` says, and fills in the manifest with what the guest may know.
    pub fn attach(plan: Plan, manifest: &mut Manifest, rules: &Rules) -> Result<Devices, Error> {
        let handles = plan.nets.iter().map(|net| net.handle).chain(plan.blocks.iter().map(|block| block.handle));
        let mut devices = Devices {
            slots: (0..handles.max().map_or(0, |most| most + 1)).map(|_| Slot::Empty).collect(),
            names: Vec::new(),
            waits: [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; MAX_ENTRIES],
            handles: [0; MAX_ENTRIES],
            nets: 0,
            timed: None,
        };
        devices.names.resize(devices.slots.len(), String::new());
        for net in plan.nets {
            let nic =
                Nic::attach(&net.source, net.mac).map_err(|error| Error::Net { name: net.name.clone(), error })?;
            if devices.any(|slot| matches!(slot, Slot::Net(other) if other.shares_with(&nic))) {
                return Err(Error::Shared { name: net.name });
            }
            log::info!("device '{}': {}, {}, MTU {}", net.name, nic.interface_name(), MacAddress(nic.mac()), nic.mtu());
            manifest.attach_net(net.handle, nic.mac(), nic.mtu());
            devices.waits[devices.nets].fd = nic.poll_fd();
            devices.handles[devices.nets] = net.handle as u8;
            devices.nets += 1;
            devices.slots[net.handle] = Slot::Net(nic);
            devices.names[net.handle] = net.name;
        }
        for block in plan.blocks {
            let disk = Disk::attach(&block.source, block.sector_size, rules.disk_tail);
            let disk = disk.map_err(|error| Error::Block { name: block.name.clone(), error })?;
            // As a rule the lock has told; there are file systems without locks.
            if devices.any(|slot| matches!(slot, Slot::Block(other) if other.identity() == disk.identity())) {
                return Err(Error::twice(&block.name, disk.path()));
            }
            let (capacity, sector_size) = (disk.capacity(), disk.sector_size());
            let path = disk.path().display();
            log::info!("device '{}': {path}, {capacity} bytes in sectors of {sector_size}", block.name);
            manifest.attach_block(block.handle, capacity, sector_size);
            devices.slots[block.handle] = Slot::Block(disk);
            devices.names[block.handle] = block.name;
        }
        Ok(devices)
    }

    fn any(&self, is: impl Fn(&Slot) -> bool) -> bool {
        self.slots.iter().any(is)
    }

    /// What the device with this handle is on the host, for messages.
    pub fn on_host(&self, handle: usize) -> Option<String> {
        match self.slots.get(handle)? {
            Slot::Empty => None,
            Slot::Net(nic) => Some(nic.interface_name().to_owned()),
            Slot::Block(disk) => Some(disk.path().display().to_string()),
        }
    }

    /// Whether there is a network interface.
    pub fn has_nets(&self) -> bool {
        self.nets > 0
    }

    /// The descriptors of the network interfaces, and those of the disks.
    pub fn descriptors(&self) -> (Vec<RawFd>, Vec<RawFd>) {
        let (mut nets, mut disks) = (Vec::new(), Vec::new());
        for slot in &self.slots {
            match slot {
                Slot::Empty => {}
                Slot::Net(nic) => nets.push(nic.as_fd().as_raw_fd()),
                Slot::Block(disk) => disks.push(disk.as_fd().as_raw_fd()),
            }
        }
        (nets, disks)
    }

    /// The network interfaces, each with its handle and its name in the manifest.
    pub fn nets(&self) -> impl Iterator<Item = (usize, &str, &Nic)> {
        self.named().filter_map(|(handle, name, slot)| match slot {
            Slot::Net(nic) => Some((handle, name, nic)),
            _ => None,
        })
    }

    /// The disks, each with its name in the manifest.
    pub fn disks(&self) -> impl Iterator<Item = (&str, &Disk)> {
        self.named().filter_map(|(_, name, slot)| match slot {
            Slot::Block(disk) => Some((name, disk)),
            _ => None,
        })
    }

    fn named(&self) -> impl Iterator<Item = (usize, &str, &Slot)> {
        let named = self.names.iter().zip(&self.slots).enumerate();
        named.map(|(handle, (name, slot))| (handle, name.as_str(), slot))
    }

    /// The network interfaces once more, each with its handle, for another thread.
    ///
    /// # Errors
    /// The host has no descriptors to give.
    pub fn twin_nets(&self) -> io::Result<Vec<(usize, Nic)>> {
        self.nets().map(|(handle, _, nic)| nic.twin().map(|twin| (handle, twin))).collect()
    }

    fn net(&mut self, handle: u64) -> Result<&mut Nic, Fault> {
        match usize::try_from(handle).ok().and_then(|handle| self.slots.get_mut(handle)) {
            Some(Slot::Net(nic)) => Ok(nic),
            _ => Err(Fault::NoDevice(Kind::Net)),
        }
    }

    fn block(&mut self, handle: u64) -> Result<&mut Disk, Fault> {
        match usize::try_from(handle).ok().and_then(|handle| self.slots.get_mut(handle)) {
            Some(Slot::Block(disk)) => Ok(disk),
            _ => Err(Fault::NoDevice(Kind::Block)),
        }
    }

    /// NET_WRITE.
    #[inline]
    pub fn net_write(&mut self, memory: &GuestMemory, request: NetRequest) -> Result<Reply, Fault> {
        let nic = self.net(request.handle)?;
        Ok(Reply::Net(nic.write(memory, request.buffer.addr, request.buffer.len)?))
    }

    /// NET_READ.
    #[inline]
    pub fn net_read(&mut self, memory: &GuestMemory, request: NetRequest) -> Result<Reply, Fault> {
        let nic = self.net(request.handle)?;
        Ok(match nic.read(memory, request.buffer.addr, request.buffer.len)? {
            (Status::Ok, len) => Reply::Frame(len),
            (status, _) => Reply::Net(status),
        })
    }

    /// NETINFO, of the one interface of a guest without manifest.
    pub fn net_info(&mut self) -> Result<Reply, Fault> {
        Ok(Reply::NetInfo { mac: self.net(LEGACY_NET as u64)?.mac() })
    }

    /// BLOCK_WRITE.
    #[inline]
    pub fn block_write(&mut self, memory: &GuestMemory, request: BlockRequest) -> Result<Reply, Fault> {
        let disk = self.block(request.handle)?;
        Ok(Reply::Block(disk.write(memory, request.offset, request.buffer.addr, request.buffer.len)?))
    }

    /// BLOCK_READ.
    #[inline]
    pub fn block_read(&mut self, memory: &GuestMemory, request: BlockRequest) -> Result<Reply, Fault> {
        let disk = self.block(request.handle)?;
        Ok(Reply::Block(disk.read(memory, request.offset, request.buffer.addr, request.buffer.len)?))
    }

    /// BLKINFO, of the one disk of a guest without manifest.
    pub fn block_info(&mut self) -> Result<Reply, Fault> {
        Ok(Reply::BlockInfo { capacity: self.block(LEGACY_BLOCK as u64)?.capacity() })
    }

    /// POLL: sleeps until a frame waits on some network device, `timeout` nanoseconds are over, or the run is to end.
    /// One system call, and none when there is nothing to wait for. Returns a bit for each handle with a frame.
    #[inline]
    pub fn poll(&mut self, timeout: u64) -> u64 {
        if timeout == 0 && self.nets == 0 {
            return 0;
        }
        let mut sleep = libc::timespec {
            tv_sec: (timeout / 1_000_000_000) as libc::time_t,
            tv_nsec: (timeout % 1_000_000_000) as libc::c_long,
        };
        match self.wait(&mut sleep) {
            0 => 0,
            1.. => self.collect(),
            _ if io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) => self.poll_timed(timeout),
            _ => self.wait_on(sleep),
        }
    }

    /// Not by the C library's wrapper, which is a point of cancellation (see `memory::transfer`), and would keep for itself
    /// what the kernel leaves in `sleep`: what is left of it.
    #[inline]
    fn wait(&mut self, sleep: &mut libc::timespec) -> libc::c_long {
        let (waits, no_mask) = (self.waits.as_mut_ptr(), ptr::null::<libc::sigset_t>());
        // SAFETY: `waits` has at least `nets` elements; the kernel writes their `revents` and `sleep`, and no mask is given.
        unsafe { libc::syscall(libc::SYS_ppoll, waits, self.nets, &raw mut *sleep, no_mask, 0_usize) }
    }

    /// After a signal, the only thing that can go wrong with these arguments where there is this call: sleeps on, unless
    /// the run is to end.
    #[cold]
    fn wait_on(&mut self, mut sleep: libc::timespec) -> u64 {
        while signal::received().is_none() {
            match self.wait(&mut sleep) {
                0 => return 0,
                1.. => return self.collect(),
                _ => {}
            }
        }
        0
    }

    /// As [`Devices::poll`], behind a filter that does not know `ppoll`.
    #[cold]
    fn poll_timed(&mut self, timeout: u64) -> u64 {
        let waits = &mut self.waits[..self.nets];
        let timed = match &mut self.timed {
            Some(timed) => timed,
            none => match Timed::new(waits.iter().map(|wait| wait.fd)) {
                Ok(timed) => none.insert(timed),
                Err(error) => {
                    log::warn!("POLL: no way to wait for {timeout} ns: {error}; the guest looks for itself, often");
                    std::thread::sleep(NAP.min(Duration::from_nanos(timeout)));
                    return 0;
                }
            },
        };
        waits.iter_mut().for_each(|wait| wait.revents = 0);
        timed.wait(timeout, |index| waits[index].revents = libc::POLLIN);
        let ready = self.collect();
        self.forget_the_lost();
        ready
    }

    /// Takes interfaces that are gone for good out of the sleeps to come.
    fn forget_the_lost(&mut self) {
        let Some(timed) = &mut self.timed else { return };
        for (index, _) in self.waits[..self.nets].iter().enumerate().filter(|(_, wait)| wait.fd < 0) {
            timed.forget(index);
        }
    }

    /// The handles whose devices have a frame, after a `ppoll`. An error or an end counts as one: the read that
    /// follows finds out whether the interface is gone for good, and then the device takes itself out of the next
    /// sleep but one.
    fn collect(&mut self) -> u64 {
        let mut ready = 0;
        for (wait, handle) in self.waits[..self.nets].iter_mut().zip(self.handles) {
            if wait.revents == 0 {
                continue;
            }
            ready |= 1 << handle;
            if let Slot::Net(nic) = &self.slots[usize::from(handle)] {
                wait.fd = nic.poll_fd();
            }
        }
        ready
    }

    /// Ends the run in order: what the disks were given is on their media afterwards, and what went through each
    /// device, and through its twin in `ring`, is told.
    pub fn finish(&mut self, ring: Option<&Ring>) {
        let ring = ring.map(Ring::consumer);
        for (handle, slot) in self.slots.iter().enumerate() {
            match slot {
                Slot::Empty => {}
                Slot::Net(nic) => {
                    let twin = ring.as_ref().and_then(|ring| ring.nic(handle)).map(Nic::stats);
                    let stats = nic.stats() + twin.unwrap_or_default();
                    counts::sum_up(nic.interface_name(), stats, stats.faults());
                }
                Slot::Block(disk) => {
                    if let Err(error) = disk.sync() {
                        log::warn!("{}", error::with_cause(&error));
                    }
                    let stats = disk.stats();
                    counts::sum_up(disk.path().display(), stats, stats.failed().sum());
                }
            }
        }
    }
}
