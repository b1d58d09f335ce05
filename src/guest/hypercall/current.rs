//! Hypercalls of ABI versions 1 and 2: devices have handles, disks count in bytes.

use std::mem::offset_of;

use guest_abi::hypercall::{self as abi, COOKIE_SIZE, Status, number};

use super::{BlockRequest, Buffer, Error, Hypercall, Interface, NetRequest, Reply, field};
use crate::guest::manifest::Kind;
use crate::memory::{self, GuestAddress, GuestMemory};

/// The interface of Solo5 0.6 and later.
#[derive(Debug)]
pub enum Current {}

impl Interface for Current {
    const LAST: u32 = number::HALT;

    fn name(number: u32) -> &'static str {
        match number {
            number::WALLTIME => "WALLTIME",
            number::PUTS => "PUTS",
            number::POLL => "POLL",
            number::BLOCK_WRITE => "BLOCK_WRITE",
            number::BLOCK_READ => "BLOCK_READ",
            number::NET_WRITE => "NET_WRITE",
            number::NET_READ => "NET_READ",
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
            // All fields are OUT: nothing to read; the reply checks whether the structure is in
            // memory.
            number::WALLTIME => Hypercall::Walltime,
            number::PUTS => puts(memory, argument)?,
            number::POLL => {
                let poll: abi::Poll = memory.read(argument)?;
                Hypercall::Poll {
                    timeout: poll.timeout_nsecs,
                }
            }
            number::BLOCK_WRITE => Hypercall::BlockWrite(block_request(memory, argument)?),
            number::BLOCK_READ => Hypercall::BlockRead(block_request(memory, argument)?),
            number::NET_WRITE => Hypercall::NetWrite(net_request(memory, argument)?),
            number::NET_READ => Hypercall::NetRead(net_request(memory, argument)?),
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
        match reply {
            Reply::Walltime(nsecs) => {
                memory.write(field(argument, offset_of!(abi::Walltime, nsecs)), nsecs)
            }
            Reply::Ready(set) => {
                memory.write(field(argument, offset_of!(abi::Poll, ready_set)), set)?;
                memory.write(
                    field(argument, offset_of!(abi::Poll, ret)),
                    set.count_ones(),
                )
            }
            Reply::Block(status) => {
                memory.write(field(argument, offset_of!(abi::Block, ret)), status as u32)
            }
            Reply::Net(status) => {
                memory.write(field(argument, offset_of!(abi::Net, ret)), status as u32)
            }
            Reply::Frame(len) => {
                memory.write(field(argument, offset_of!(abi::Net, len)), len)?;
                memory.write(
                    field(argument, offset_of!(abi::Net, ret)),
                    Status::Ok as u32,
                )
            }
            // Replies to hypercalls that this era does not have.
            Reply::BlockInfo { .. } | Reply::NetInfo { .. } => Ok(()),
        }
    }

    fn no_device(kind: Kind) -> Option<Reply> {
        Some(match kind {
            Kind::Block => Reply::Block(Status::Invalid),
            Kind::Net => Reply::Net(Status::Invalid),
        })
    }
}

/// Decodes PUTS, which is the same in every era.
#[inline]
pub(super) fn puts(memory: &GuestMemory, argument: GuestAddress) -> Result<Hypercall, Error> {
    let abi::Puts { data, len } = memory.read(argument)?;
    Ok(Hypercall::Puts(Buffer {
        addr: GuestAddress(data),
        len,
    }))
}

/// Decodes HALT, which is the same in every era. The cookie must be readable; its content is for a
/// core file.
pub(super) fn halt(memory: &GuestMemory, argument: GuestAddress) -> Result<Hypercall, Error> {
    let halt: abi::Halt = memory.read(argument)?;
    if halt.cookie != 0 {
        memory.bytes(GuestAddress(halt.cookie), COOKIE_SIZE)?;
    }
    Ok(Hypercall::Halt {
        status: halt.exit_status,
        cookie: GuestAddress(halt.cookie),
    })
}

#[inline]
fn block_request(memory: &GuestMemory, argument: GuestAddress) -> Result<BlockRequest, Error> {
    let block: abi::Block = memory.read(argument)?;
    let buffer = Buffer {
        addr: GuestAddress(block.data),
        len: block.len,
    };
    Ok(BlockRequest {
        handle: block.handle,
        offset: block.offset,
        buffer,
    })
}

#[inline]
fn net_request(memory: &GuestMemory, argument: GuestAddress) -> Result<NetRequest, Error> {
    let net: abi::Net = memory.read(argument)?;
    Ok(NetRequest {
        handle: net.handle,
        buffer: Buffer {
            addr: GuestAddress(net.data),
            len: net.len,
        },
    })
}
