//! Hypercalls between guest memory and the devices: a number and the address of an argument
//! structure are decoded into a [`Hypercall`]; the reply is written back into that structure.
//! Sections 4 and 8 of `docs/hvt-abi.md`.
//!
//! Eras differ in numbers and structures, so each has a separate [`Interface`]. The run loop is
//! compiled for each, so a hypercall never tests the era.
//!
//! The structure is copied out of guest memory once and used from the copy. Only the OUT fields of
//! the guest's structure are written.

mod current;
mod legacy;
#[cfg(test)]
mod tests;

use guest_abi::hypercall::Status;

use crate::guest::manifest::Kind;
use crate::memory::{self, GuestAddress, GuestMemory};

pub use current::Current;
pub use legacy::Legacy;

/// A request of the guest. Addresses and lengths are unchecked; the device that uses them checks
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hypercall {
    /// Read the wall clock.
    Walltime,
    /// Write bytes to the console.
    Puts(Buffer),
    /// Sleep until a frame arrives or the timeout, in nanoseconds, expires.
    Poll {
        /// 0 returns immediately.
        timeout: u64,
    },
    /// Query the disk. Legacy only.
    BlockInfo,
    /// Write to a disk.
    BlockWrite(BlockRequest),
    /// Read from a disk.
    BlockRead(BlockRequest),
    /// Query the network interface's hardware address. Legacy only.
    NetInfo,
    /// Send a frame.
    NetWrite(NetRequest),
    /// Receive a frame.
    NetRead(NetRequest),
    /// End the run.
    Halt {
        /// As the guest passed it; its low 8 bits are the exit status.
        status: u32,
        /// 0, or the address of [`guest_abi::hypercall::COOKIE_SIZE`] bytes that describe the trap.
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
    /// Handle of the device.
    pub handle: u64,
    /// Offset on the device in bytes.
    pub offset: u64,
    /// Memory to read into or write from.
    pub buffer: Buffer,
}

/// Arguments of a network hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetRequest {
    /// Handle of the device.
    pub handle: u64,
    /// The frame, or the buffer for it.
    pub buffer: Buffer,
}

/// Reply to a hypercall that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To WALLTIME: nanoseconds since 1970.
    Walltime(u64),
    /// To POLL: the devices with a frame waiting, one bit per handle.
    Ready(u64),
    /// To BLKINFO: the size of the disk.
    BlockInfo {
        /// Bytes on the disk.
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
    /// To NET_READ: a frame of this many bytes.
    Frame(u64),
}

/// Why a hypercall cannot be decoded.
#[derive(Debug)]
pub enum Error {
    /// No such number in this era.
    Number(u32),
    /// The argument structure, or memory that it points to, is not entirely in guest memory.
    Memory(memory::RangeError),
}

impl From<memory::RangeError> for Error {
    fn from(error: memory::RangeError) -> Error {
        Error::Memory(error)
    }
}

/// Decoder and encoder of one era's hypercalls.
pub trait Interface {
    /// The largest hypercall number.
    const LAST: u32;

    /// Returns the name of a hypercall number, for reports.
    fn name(number: u32) -> &'static str;

    /// Decodes hypercall `number` whose argument structure is at `argument`.
    ///
    /// # Errors
    /// The number does not exist, or its structure is not in memory.
    fn decode(
        number: u32,
        memory: &GuestMemory,
        argument: GuestAddress,
    ) -> Result<Hypercall, Error>;

    /// Writes the reply into the OUT fields of the structure at `argument`, and nothing else.
    ///
    /// # Errors
    /// The guest may not write there.
    fn reply(
        reply: Reply,
        memory: &GuestMemory,
        argument: GuestAddress,
    ) -> Result<(), memory::RangeError>;

    /// Returns the reply to a request for an unknown device; `None` if that ends the run in this
    /// era.
    fn no_device(kind: Kind) -> Option<Reply>;
}

/// Returns the address of the field at `offset` in the structure at `argument`.
fn field(argument: GuestAddress, offset: usize) -> GuestAddress {
    // The argument's address is 32 bits wide, so this cannot overflow.
    GuestAddress(argument.0 + offset as u64)
}
