//! The devices of one unikernel: those its manifest declares, attached to what the command line names. The guest
//! knows each by its handle, its index in the manifest.

use guest_abi::hypercall::Status;
use guest_abi::manifest::MAX_ENTRIES;

use crate::block::Disk;
use crate::hypercall::{BlockRequest, NetRequest, Reply};
use crate::manifest::Manifest;
use crate::memory::{self, GuestMemory};
use crate::net::{MacAddress, Nic};

mod error;
mod plan;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use plan::Plan;

/// What a handle stands for.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Empty,
    Net(Nic),
    Block(Disk),
}

/// All devices, by handle.
#[derive(Debug)]
pub struct Devices {
    slots: [Slot; MAX_ENTRIES],
    /// The network devices as POLL waits for them; `handles` has the handle of each. One more device than can be
    /// declared never happens, so the arrays are never outgrown.
    waits: [libc::pollfd; MAX_ENTRIES],
    handles: [u8; MAX_ENTRIES],
    nets: usize,
}

impl Devices {
    /// Attaches everything that `plan` says, and fills in the manifest with what the guest may know.
    pub fn attach(plan: Plan, manifest: &mut Manifest) -> Result<Devices, Error> {
        let mut devices = Devices {
            slots: std::array::from_fn(|_| Slot::Empty),
            waits: [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; MAX_ENTRIES],
            handles: [0; MAX_ENTRIES],
            nets: 0,
        };
        for net in plan.nets {
            let nic =
                Nic::attach(&net.source, net.mac).map_err(|error| Error::Net { name: net.name.clone(), error })?;
            if devices.any(|slot| matches!(slot, Slot::Net(other) if other.identity() == nic.identity())) {
                return Err(Error::Shared { name: net.name });
            }
            log::info!("device '{}': {}, {}, MTU {}", net.name, nic.interface_name(), MacAddress(nic.mac()), nic.mtu());
            manifest.attach_net(net.handle, nic.mac(), nic.mtu());
            devices.waits[devices.nets].fd = nic.poll_fd();
            devices.handles[devices.nets] = net.handle as u8;
            devices.nets += 1;
            devices.slots[net.handle] = Slot::Net(nic);
        }
        for block in plan.blocks {
            let disk = Disk::open(&block.path, block.sector_size)
                .map_err(|error| Error::Block { name: block.name.clone(), error })?;
            // As a rule the lock has told; there are file systems without locks.
            if devices.any(|slot| matches!(slot, Slot::Block(other) if other.identity() == disk.identity())) {
                return Err(Error::twice(&block.name, &block.path));
            }
            let (capacity, sector_size) = (disk.capacity(), disk.sector_size());
            let path = disk.path().display();
            log::info!("device '{}': {path}, {capacity} bytes in sectors of {sector_size}", block.name);
            manifest.attach_block(block.handle, capacity, sector_size);
            devices.slots[block.handle] = Slot::Block(disk);
        }
        Ok(devices)
    }

    fn any(&self, is: impl Fn(&Slot) -> bool) -> bool {
        self.slots.iter().any(is)
    }

    fn net(&mut self, handle: u64) -> Option<&mut Nic> {
        match self.slots.get_mut(usize::try_from(handle).ok()?) {
            Some(Slot::Net(nic)) => Some(nic),
            _ => None,
        }
    }

    fn block(&mut self, handle: u64) -> Option<&mut Disk> {
        match self.slots.get_mut(usize::try_from(handle).ok()?) {
            Some(Slot::Block(disk)) => Some(disk),
            _ => None,
        }
    }

    /// NET_WRITE.
    #[inline]
    pub fn net_write(&mut self, memory: &GuestMemory, request: NetRequest) -> Result<Reply, memory::Error> {
        let Some(nic) = self.net(request.handle) else { return Ok(Reply::Net(Status::Invalid)) };
        nic.write(memory, request.buffer.addr, request.buffer.len).map(Reply::Net)
    }

    /// NET_READ.
    #[inline]
    pub fn net_read(&mut self, memory: &GuestMemory, request: NetRequest) -> Result<Reply, memory::Error> {
        let Some(nic) = self.net(request.handle) else { return Ok(Reply::Net(Status::Invalid)) };
        match nic.read(memory, request.buffer.addr, request.buffer.len)? {
            (Status::Ok, len) => Ok(Reply::Frame(len)),
            (status, _) => Ok(Reply::Net(status)),
        }
    }

    /// BLOCK_WRITE.
    #[inline]
    pub fn block_write(&mut self, memory: &GuestMemory, request: BlockRequest) -> Result<Reply, memory::Error> {
        let Some(disk) = self.block(request.handle) else { return Ok(Reply::Block(Status::Invalid)) };
        disk.write(memory, request.offset, request.buffer.addr, request.buffer.len).map(Reply::Block)
    }

    /// BLOCK_READ.
    #[inline]
    pub fn block_read(&mut self, memory: &GuestMemory, request: BlockRequest) -> Result<Reply, memory::Error> {
        let Some(disk) = self.block(request.handle) else { return Ok(Reply::Block(Status::Invalid)) };
        disk.read(memory, request.offset, request.buffer.addr, request.buffer.len).map(Reply::Block)
    }

    /// POLL: sleeps until a frame waits on some network device, `timeout` nanoseconds are over, or a signal arrives.
    /// One system call, and none when there is nothing to wait for. Returns a bit for each handle with a frame.
    #[inline]
    pub fn poll(&mut self, timeout: u64) -> u64 {
        if timeout == 0 && self.nets == 0 {
            return 0;
        }
        let sleep = libc::timespec {
            tv_sec: (timeout / 1_000_000_000) as libc::time_t,
            tv_nsec: (timeout % 1_000_000_000) as libc::c_long,
        };
        // SAFETY: `waits` has at least `nets` elements; the kernel reads `sleep` and writes `revents` only.
        let ready =
            unsafe { libc::ppoll(self.waits.as_mut_ptr(), self.nets as libc::nfds_t, &sleep, std::ptr::null()) };
        // An interrupted sleep is a short one. Nothing else can go wrong with these arguments.
        if ready > 0 { self.collect() } else { 0 }
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
    /// device is told.
    pub fn finish(&mut self) {
        for slot in &mut self.slots {
            match slot {
                Slot::Empty => {}
                Slot::Net(nic) => log::info!("{}: {}", nic.interface_name(), nic.stats()),
                Slot::Block(disk) => {
                    if let Err(error) = disk.sync() {
                        log::warn!("{}", error::with_cause(&error));
                    }
                    log::info!("{}: {}", disk.path().display(), disk.stats());
                }
            }
        }
    }
}
