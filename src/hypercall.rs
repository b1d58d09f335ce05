//! Hypercalls between the wire and the devices: an era, a number and the address of an argument structure become
//! one [`Hypercall`]; the answer goes back into that structure. Sections 4 and 8 of `docs/hvt-abi.md`.
//!
//! The structure is copied out of guest memory once and used from the copy. Of the guest's copy only the OUT fields
//! are written, never more.

use std::mem::offset_of;

use guest_abi::hypercall::{self as abi, COOKIE_SIZE, Status, number};

use crate::image::Era;
use crate::memory::{self, GuestAddress, GuestMemory};

/// What a guest asks for. Addresses and lengths are as the guest gave them: the device that uses them checks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hypercall {
    /// The wall clock.
    Walltime,
    /// Bytes for the console.
    Puts(Buffer),
    /// Sleep until a frame arrives or the time, in nanoseconds, is over.
    Poll {
        /// 0 is no sleep at all.
        timeout: u64,
    },
    /// Bytes for a disk.
    BlockWrite(BlockRequest),
    /// Bytes from a disk.
    BlockRead(BlockRequest),
    /// A frame for the network.
    NetWrite(NetRequest),
    /// A frame from the network.
    NetRead(NetRequest),
    /// The end.
    Halt {
        /// As the guest gave it; its low 8 bits are the exit status.
        status: u32,
    },
}

/// A range of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// First address.
    pub addr: GuestAddress,
    /// Bytes.
    pub len: u64,
}

/// Arguments of a block hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    /// Which device.
    pub handle: u64,
    /// Where on it, in bytes.
    pub offset: u64,
    /// What to move.
    pub buffer: Buffer,
}

/// Arguments of a network hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetRequest {
    /// Which device.
    pub handle: u64,
    /// The frame, or the room for it.
    pub buffer: Buffer,
}

/// The answer to a hypercall that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To WALLTIME: nanoseconds since 1970.
    Walltime(u64),
    /// To POLL: the devices with a frame waiting, one bit a handle.
    Ready(u64),
    /// To BLOCK_WRITE and BLOCK_READ.
    Block(Status),
    /// To NET_WRITE, and to a NET_READ without a frame.
    Net(Status),
    /// To NET_READ: a frame of so many bytes.
    Frame(u64),
}

/// A hypercall that cannot be decoded.
#[derive(Debug)]
pub enum Error {
    /// No such number in this era.
    Number(u32),
    /// The argument structure, or what it points to, is not all in memory.
    Memory(memory::Error),
}

impl From<memory::Error> for Error {
    fn from(error: memory::Error) -> Error {
        Error::Memory(error)
    }
}

/// Name of a hypercall number, for reports.
pub fn name(_era: Era, number: u32) -> &'static str {
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

impl Hypercall {
    /// Decodes hypercall `number` whose argument structure lies at `argument`.
    #[inline]
    pub fn decode(era: Era, number: u32, memory: &GuestMemory, argument: GuestAddress) -> Result<Hypercall, Error> {
        match era {
            Era::Abi2 => decode_abi2(number, memory, argument),
        }
    }
}

#[inline]
fn decode_abi2(number: u32, memory: &GuestMemory, argument: GuestAddress) -> Result<Hypercall, Error> {
    Ok(match number {
        // All OUT: there is nothing to read, and the reply finds out whether the structure is in memory.
        number::WALLTIME => Hypercall::Walltime,
        number::PUTS => {
            let abi::Puts { data, len } = memory.read(argument)?;
            Hypercall::Puts(Buffer { addr: GuestAddress(data), len })
        }
        number::POLL => {
            let poll: abi::Poll = memory.read(argument)?;
            Hypercall::Poll { timeout: poll.timeout_nsecs }
        }
        number::BLOCK_WRITE => Hypercall::BlockWrite(block_request(memory, argument)?),
        number::BLOCK_READ => Hypercall::BlockRead(block_request(memory, argument)?),
        number::NET_WRITE => Hypercall::NetWrite(net_request(memory, argument)?),
        number::NET_READ => Hypercall::NetRead(net_request(memory, argument)?),
        number::HALT => {
            let halt: abi::Halt = memory.read(argument)?;
            if halt.cookie != 0 {
                memory.bytes(GuestAddress(halt.cookie), COOKIE_SIZE)?;
            }
            Hypercall::Halt { status: halt.exit_status }
        }
        unknown => return Err(Error::Number(unknown)),
    })
}

#[inline]
fn block_request(memory: &GuestMemory, argument: GuestAddress) -> Result<BlockRequest, Error> {
    let block: abi::Block = memory.read(argument)?;
    let buffer = Buffer { addr: GuestAddress(block.data), len: block.len };
    Ok(BlockRequest { handle: block.handle, offset: block.offset, buffer })
}

#[inline]
fn net_request(memory: &GuestMemory, argument: GuestAddress) -> Result<NetRequest, Error> {
    let net: abi::Net = memory.read(argument)?;
    Ok(NetRequest { handle: net.handle, buffer: Buffer { addr: GuestAddress(net.data), len: net.len } })
}

impl Reply {
    /// Writes the answer into the OUT fields of the structure at `argument`, and nothing else.
    #[inline]
    pub fn write(self, era: Era, memory: &GuestMemory, argument: GuestAddress) -> Result<(), memory::Error> {
        match era {
            Era::Abi2 => self.write_abi2(memory, argument),
        }
    }

    #[inline]
    fn write_abi2(self, memory: &GuestMemory, argument: GuestAddress) -> Result<(), memory::Error> {
        // The argument address is 32 bits wide, so adding an offset cannot overflow.
        let field = |offset: usize| GuestAddress(argument.0 + offset as u64);
        match self {
            Reply::Walltime(nsecs) => memory.write(field(offset_of!(abi::Walltime, nsecs)), nsecs),
            Reply::Ready(set) => {
                memory.write(field(offset_of!(abi::Poll, ready_set)), set)?;
                memory.write(field(offset_of!(abi::Poll, ret)), set.count_ones())
            }
            Reply::Block(status) => memory.write(field(offset_of!(abi::Block, ret)), status as u32),
            Reply::Net(status) => memory.write(field(offset_of!(abi::Net, ret)), status as u32),
            Reply::Frame(len) => {
                memory.write(field(offset_of!(abi::Net, len)), len)?;
                memory.write(field(offset_of!(abi::Net, ret)), Status::Ok as u32)
            }
        }
    }
}

#[cfg(test)]
mod tests;
