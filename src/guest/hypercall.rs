//! Hypercalls between the wire and the devices: a number and the address of an argument structure become one
//! [`Hypercall`]; the answer goes back into that structure. Sections 4 and 8 of `docs/hvt-abi.md`.
//!
//! Eras differ in numbers and structures, so each has an [`Interface`] of its own. The run loop is compiled for each:
//! a hypercall never asks which era it is in.
//!
//! The structure is copied out of guest memory once and used from the copy. Of the guest's copy only the OUT fields
//! are written, never more.

mod current;
mod legacy;
#[cfg(test)]
mod tests;

use guest_abi::hypercall::Status;

use crate::guest::manifest::Kind;
use crate::memory::{self, GuestAddress, GuestMemory};

pub use current::Current;
pub use legacy::Legacy;

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
    /// What the disk is. Legacy only.
    BlockInfo,
    /// Bytes for a disk.
    BlockWrite(BlockRequest),
    /// Bytes from a disk.
    BlockRead(BlockRequest),
    /// The network interface's hardware address. Legacy only.
    NetInfo,
    /// A frame for the network.
    NetWrite(NetRequest),
    /// A frame from the network.
    NetRead(NetRequest),
    /// The end.
    Halt {
        /// As the guest gave it; its low 8 bits are the exit status.
        status: u32,
        /// 0, or where the guest describes the trap that it ends by: [`guest_abi::hypercall::COOKIE_SIZE`] bytes.
        cookie: GuestAddress,
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
    /// To BLKINFO: bytes on the disk.
    BlockInfo {
        /// Its size.
        capacity: u64,
    },
    /// To BLOCK_WRITE and BLOCK_READ.
    Block(Status),
    /// To NETINFO.
    NetInfo {
        /// Hardware address.
        mac: [u8; 6],
    },
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
    Memory(memory::RangeError),
}

impl From<memory::RangeError> for Error {
    fn from(error: memory::RangeError) -> Error {
        Error::Memory(error)
    }
}

/// The hypercalls of an era on the wire.
pub trait Interface {
    /// The largest hypercall number.
    const LAST: u32;

    /// Name of a hypercall number, for reports.
    fn name(number: u32) -> &'static str;

    /// Decodes hypercall `number` whose argument structure lies at `argument`.
    ///
    /// # Errors
    /// The number does not exist, or its structure is not in memory.
    fn decode(
        number: u32,
        memory: &GuestMemory,
        argument: GuestAddress,
    ) -> Result<Hypercall, Error>;

    /// Writes the answer into the OUT fields of the structure at `argument`, and nothing else.
    ///
    /// # Errors
    /// The guest may not write there itself.
    fn reply(
        reply: Reply,
        memory: &GuestMemory,
        argument: GuestAddress,
    ) -> Result<(), memory::RangeError>;

    /// The answer to a request for a device that is not there; none if no guest of this era survives that.
    fn no_device(kind: Kind) -> Option<Reply>;
}

/// The address of a field `offset` bytes into the structure at `argument`.
fn field(argument: GuestAddress, offset: usize) -> GuestAddress {
    // The argument's address is 32 bits wide, so this cannot overflow.
    GuestAddress(argument.0 + offset as u64)
}
