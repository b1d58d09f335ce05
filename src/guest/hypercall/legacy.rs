//! Hypercalls of Solo5 0.3 and 0.4: one network interface and one disk without handles, disks count
//! in sectors, and a result is 0 or -1.

use std::mem::offset_of;

use guest_abi::hypercall::{self as abi, Status};
use guest_abi::legacy::{self, FAILED, SECTOR_SIZE, number};

use super::current::{halt, puts};
use super::{BlockRequest, Buffer, Error, Hypercall, Interface, NetRequest, Reply, field};
use crate::guest::manifest::{Kind, LEGACY_BLOCK, LEGACY_NET};
use crate::memory::{self, GuestAddress, GuestMemory};

/// The interface of Solo5 0.3 and 0.4.
#[derive(Debug)]
pub enum Legacy {}

impl Interface for Legacy {
    const LAST: u32 = number::HALT;

    fn name(number: u32) -> &'static str {
        match number {
            number::WALLTIME => "WALLTIME",
            number::PUTS => "PUTS",
            number::POLL => "POLL",
            number::BLKINFO => "BLKINFO",
            number::BLKWRITE => "BLKWRITE",
            number::BLKREAD => "BLKREAD",
            number::NETINFO => "NETINFO",
            number::NETWRITE => "NETWRITE",
            number::NETREAD => "NETREAD",
            number::HALT => "HALT",
            _ => "unknown",
        }
    }

    #[inline(always)]
    fn decode(
        number: u32,
        memory: &GuestMemory,
        argument: GuestAddress,
    ) -> Result<Hypercall, Error> {
        Ok(match number {
            // All fields of these three are OUT: nothing to read.
            number::WALLTIME => Hypercall::Walltime,
            number::BLKINFO => Hypercall::BlockInfo,
            number::NETINFO => Hypercall::NetInfo,
            number::PUTS => puts(memory, argument)?,
            number::POLL => {
                let poll: legacy::Poll = memory.read(argument)?;
                Hypercall::Poll {
                    timeout: poll.timeout_nsecs,
                }
            }
            number::BLKWRITE => Hypercall::BlockWrite(block_request(memory, argument)?),
            number::BLKREAD => Hypercall::BlockRead(block_request(memory, argument)?),
            number::NETWRITE => Hypercall::NetWrite(net_request(memory, argument)?),
            number::NETREAD => Hypercall::NetRead(net_request(memory, argument)?),
            number::HALT => halt(memory, argument)?,
            unknown => return Err(Error::Number(unknown)),
        })
    }

    #[inline(always)]
    fn reply(
        reply: Reply,
        memory: &GuestMemory,
        argument: GuestAddress,
    ) -> Result<(), memory::RangeError> {
        let field = |offset| field(argument, offset);
        match reply {
            Reply::Walltime(nsecs) => memory.write(field(offset_of!(abi::Walltime, nsecs)), nsecs),
            Reply::Ready(set) => {
                memory.write(field(offset_of!(legacy::Poll, ret)), set.count_ones())
            }
            Reply::BlockInfo { capacity } => {
                memory.write(field(offset_of!(legacy::BlkInfo, sector_size)), SECTOR_SIZE)?;
                memory.write(
                    field(offset_of!(legacy::BlkInfo, num_sectors)),
                    capacity / SECTOR_SIZE,
                )?;
                memory.write(field(offset_of!(legacy::BlkInfo, rw)), 1_i32)
            }
            Reply::Block(status) => {
                memory.write(field(offset_of!(legacy::Blk, ret)), result(status))
            }
            Reply::NetInfo { mac } => memory.write(field(offset_of!(legacy::NetInfo, mac)), mac),
            Reply::Net(status) => memory.write(field(offset_of!(legacy::Net, ret)), result(status)),
            Reply::Frame(len) => {
                memory.write(field(offset_of!(legacy::Net, len)), len)?;
                memory.write(field(offset_of!(legacy::Net, ret)), result(Status::Ok))
            }
        }
    }

    /// A guest with a device module calls it without checking whether the device exists.
    fn no_device(_kind: Kind) -> Option<Reply> {
        None
    }
}

fn result(status: Status) -> i32 {
    if status == Status::Ok { 0 } else { FAILED }
}

#[inline]
fn block_request(memory: &GuestMemory, argument: GuestAddress) -> Result<BlockRequest, Error> {
    let blk: legacy::Blk = memory.read(argument)?;
    let buffer = Buffer {
        addr: GuestAddress(blk.data),
        len: blk.len,
    };
    // A sector whose byte offset overflows is past the end of every disk.
    Ok(BlockRequest {
        handle: LEGACY_BLOCK as u64,
        offset: blk.sector.saturating_mul(SECTOR_SIZE),
        buffer,
    })
}

#[inline]
fn net_request(memory: &GuestMemory, argument: GuestAddress) -> Result<NetRequest, Error> {
    let net: legacy::Net = memory.read(argument)?;
    Ok(NetRequest {
        handle: LEGACY_NET as u64,
        buffer: Buffer {
            addr: GuestAddress(net.data),
            len: net.len,
        },
    })
}
