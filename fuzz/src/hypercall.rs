//! Hypercalls of every era, with any number, structure and address, while the host side of the
//! devices fails in any way. After each one
//!
//! * guest memory is unchanged except for the OUT fields of that structure, and the buffer that the
//!   hypercall fills;
//! * memory that the guest may not write is unchanged;
//! * a disk has changed only where it was written, and has not grown;
//! * every byte for the console was written or counted as dropped.
//!
//! An input is an era, the devices, the access to each page, and then steps: see [`Guest::step`].

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;

use guest_abi::hypercall::number as new;
use guest_abi::legacy::number as old;
use guest_abi::manifest::{BLOCK_BASIC, Entry, Header, NET_BASIC, VERSION};
use tender::config::{BlockOption, NetOption};
use tender::devices::console::Console;
use tender::devices::{Devices, Fault, Plan};
use tender::guest::era::Era;
use tender::guest::hypercall::{Current, Error, Hypercall, Interface, Legacy, Reply};
use tender::guest::manifest::Manifest;
use tender::host::files::Files;
use tender::memory::{Access, GuestAddress, GuestMemory, Mapping, PAGE_SIZE};
use zerocopy::IntoBytes;

use super::devices;
use super::input::Input;
use super::memory::contents;

/// Pages of guest memory: enough for structures and buffers to overlap in every way, and fast to
/// compare.
const PAGES: u64 = 8;
const SIZE: u64 = PAGES * PAGE_SIZE;

/// Bytes of the largest structure.
const STRUCTURE: usize = 40;

/// Most steps of one run.
const STEPS: usize = 64;

/// Runs a guest whose actions are `bytes`.
pub fn check(bytes: &[u8]) {
    let before = devices::next_descriptor();
    let mut input = Input::new(bytes);
    let era = Era::ALL[usize::from(input.u8()) % Era::ALL.len()];
    let mut guest = Guest::new(era, &mut input);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        let goes_on = match era {
            Era::Legacy => guest.step::<Legacy>(&mut input),
            Era::Abi1 | Era::Abi2 => guest.step::<Current>(&mut input),
        };
        if !goes_on {
            break;
        }
    }
    guest.devices.finish(None);
    drop(guest);
    assert_eq!(
        devices::next_descriptor(),
        before,
        "a descriptor has leaked"
    );
}

/// A guest, and the peers of its devices.
struct Guest {
    era: Era,
    memory: GuestMemory,
    mappings: Vec<Mapping>,
    devices: Devices,
    console: Console,
    wires: Vec<Option<UnixDatagram>>,
    disks: Vec<File>,
    capacities: Vec<u64>,
}

impl Guest {
    fn new(era: Era, input: &mut Input) -> Guest {
        let most = if era == Era::Legacy { 1 } else { 3 };
        let choice = input.u8();
        let kinds = [libc::SOCK_DGRAM, libc::SOCK_SEQPACKET];
        let nets =
            (0..(choice & 3).min(most)).map(|_| devices::wire(kinds[usize::from(choice >> 4 & 1)]));
        let (net_options, wires): (Vec<_>, Vec<_>) = nets.unzip();
        let capacities: Vec<u64> = (0..(choice >> 2 & 3).min(most))
            .map(|_| 512 * (1 + u64::from(input.u8() & 15)))
            .collect();
        let (block_options, disks): (Vec<_>, Vec<_>) =
            capacities.iter().map(|&size| devices::disk(size)).unzip();
        let manifest = manifest(era, &net_options, &block_options);
        let named =
            |prefix: &str, index: usize| (era != Era::Legacy).then(|| format!("{prefix}{index}"));
        let nets: Vec<NetOption> = (net_options.into_iter().enumerate())
            .map(|(index, option)| NetOption {
                name: named("net", index),
                ..option
            })
            .collect();
        let blocks: Vec<BlockOption> = (block_options.into_iter().enumerate())
            .map(|(index, option)| BlockOption {
                name: named("disk", index),
                ..option
            })
            .collect();
        let plan = Plan::new(&manifest, &nets, &blocks).expect("one option for each device");
        let devices =
            Devices::attach(plan, &mut Files::default(), era.rules()).expect("sockets and files");
        let out = if choice & 0x80 == 0 {
            "/dev/null"
        } else {
            "/dev/full"
        };
        let console = Console::new(
            OpenOptions::new()
                .write(true)
                .open(out)
                .expect("there on every Linux"),
        );
        let mut memory = GuestMemory::new(SIZE).expect("32 KiB");
        let mappings = mappings(input.u16());
        memory.protect(mappings.to_vec());
        let wires = wires.into_iter().map(Some).collect();
        Guest {
            era,
            memory,
            mappings,
            devices,
            console,
            wires,
            disks,
            capacities,
        }
    }

    /// Performs one step, by its first byte: usually a hypercall, otherwise an event outside.
    /// Returns whether the guest continues.
    fn step<I: Interface>(&mut self, input: &mut Input) -> bool {
        let (kind, which) = (input.u8(), usize::from(input.u8()));
        match kind {
            0xff => {
                let frame = vec![kind; usize::from(input.u16()) & 0xfff];
                if let Some(Some(wire)) = self.wires.get(which) {
                    let _ = wire.send(&frame);
                }
            }
            0xfe => {
                if let Some(Some(wire)) = self.wires.get(which) {
                    let _ = wire.recv(&mut [0; 64]);
                }
            }
            0xfd => {
                if let Some(wire) = self.wires.get_mut(which) {
                    *wire = None;
                }
            }
            0xfc => {
                let size = u64::from(input.u16()) & 0x3fff;
                if let Some(disk) = self.disks.get(which) {
                    disk.set_len(size).expect("a file in memory");
                }
            }
            _ => return self.hypercall::<I>(u32::from(kind), input),
        }
        true
    }

    /// Performs one hypercall, as the run loop does, with a new structure or with the bytes that
    /// are there.
    fn hypercall<I: Interface>(&mut self, number: u32, input: &mut Input) -> bool {
        let number = match number {
            0xfb => input.u32(),
            number => number % (I::LAST + 2),
        };
        let argument = GuestAddress(u64::from(input.u32()));
        self.structure(argument, input);
        let before = Before::of(self);
        let decoded = I::decode(number, &self.memory, argument);
        let Ok(call) = decoded else {
            assert!(
                !matches!(decoded, Err(Error::Number(1..)) if number >= 1 && number <= I::LAST)
            );
            before.check(self, &[], None);
            return false;
        };
        let answered = match self.answer(call) {
            Ok(Some(reply)) => I::reply(reply, &self.memory, argument).is_ok(),
            Ok(None) => !matches!(call, Hypercall::Halt { .. }),
            Err(Fault::Memory(_)) => false,
            Err(Fault::Ring(error)) => panic!("there is no ring: {error}"),
            Err(Fault::Wait(error)) => panic!("this host cannot wait: {error}"),
            Err(Fault::NoDevice(kind)) => I::no_device(kind)
                .is_some_and(|reply| I::reply(reply, &self.memory, argument).is_ok()),
        };
        let out = out_fields(self.era, number)
            .map(|field| argument.0 + field.start..argument.0 + field.end);
        let filled = match call {
            Hypercall::BlockRead(request) => Some(request.buffer),
            Hypercall::NetRead(request) => Some(request.buffer),
            _ => None,
        };
        let filled = filled.map(|buffer| buffer.addr.0..buffer.addr.0.saturating_add(buffer.len));
        let allowed: Vec<Range<u64>> = out.into_iter().chain(filled).collect();
        before.check(self, &allowed, Some(call));
        answered
    }

    /// Puts a structure at `argument`, as a guest would: five 64-bit values, each small, near an
    /// end of memory, or arbitrary.
    fn structure(&self, argument: GuestAddress, input: &mut Input) {
        let form = input.u16();
        if form == u16::MAX {
            return;
        }
        let mut args = [0_u64; STRUCTURE / 8];
        for (index, word) in args.iter_mut().enumerate() {
            *word = match form >> (3 * index) & 7 {
                0 => u64::from(input.u8()),
                1 => u64::from(input.u8()) << 8,
                2 => u64::from(input.u16()),
                3 => SIZE - u64::from(input.u8()),
                4 => 0_u64.wrapping_sub(u64::from(input.u8())),
                5 => 512 * u64::from(input.u8()),
                6 => u64::from(input.u32()),
                _ => input.u64(),
            };
        }
        let room = SIZE.saturating_sub(argument.0).min(STRUCTURE as u64) as usize;
        if room > 0 {
            self.memory
                .place(argument, &args.as_bytes()[..room])
                .expect("it is within memory");
        }
    }

    /// Does what the run loop does for each hypercall, without sleeping. Written again, because the
    /// run loop (`exit.rs`) needs a vCPU: it also drains the ring, counts and reports.
    fn answer(&mut self, call: Hypercall) -> Result<Option<Reply>, Fault> {
        let Guest {
            memory,
            devices,
            console,
            ..
        } = self;
        Ok(Some(match call {
            Hypercall::Walltime => Reply::Walltime(tender::devices::clock::walltime()),
            Hypercall::Poll { timeout } => Reply::Ready(devices.poll(timeout.min(1))?),
            Hypercall::NetWrite(request) => devices.net_write(memory, request)?,
            Hypercall::NetRead(request) => {
                let reply = devices.net_read(memory, request)?;
                assert!(!matches!(reply, Reply::Frame(len) if len > request.buffer.len));
                reply
            }
            Hypercall::BlockWrite(request) => devices.block_write(memory, request)?,
            Hypercall::BlockRead(request) => devices.block_read(memory, request)?,
            Hypercall::NetInfo => devices.net_info()?,
            Hypercall::BlockInfo => devices.block_info()?,
            Hypercall::Puts(text) => {
                console.puts(memory, text.addr, text.len)?;
                return Ok(None);
            }
            Hypercall::Halt { .. } => return Ok(None),
        }))
    }
}

/// The bytes of its structure that a hypercall may change. Section 4 of `docs/hvt-abi.md`, written
/// again: the tender's own table is what is tested.
fn out_fields(era: Era, number: u32) -> Option<Range<u64>> {
    match (era, number) {
        (_, new::WALLTIME) => Some(0..8),
        (Era::Legacy, old::POLL) => Some(8..12),
        (Era::Legacy, old::BLKINFO) => Some(0..20),
        (Era::Legacy, old::BLKWRITE | old::BLKREAD) => Some(24..28),
        (Era::Legacy, old::NETINFO) => Some(0..6),
        (Era::Legacy, old::NETWRITE) => Some(16..20),
        (Era::Legacy, old::NETREAD) => Some(8..20),
        (Era::Legacy, _) => None,
        (_, new::POLL) => Some(8..20),
        (_, new::BLOCK_WRITE | new::BLOCK_READ) => Some(32..36),
        (_, new::NET_WRITE) => Some(24..28),
        (_, new::NET_READ) => Some(16..28),
        _ => None,
    }
}

/// A manifest for these devices.
fn manifest(era: Era, nets: &[NetOption], blocks: &[BlockOption]) -> Manifest {
    if era == Era::Legacy {
        return Manifest::unnamed(!nets.is_empty(), !blocks.is_empty());
    }
    let nets = (0..nets.len()).map(|index| Entry::declare(&format!("net{index}"), NET_BASIC));
    let blocks =
        (0..blocks.len()).map(|index| Entry::declare(&format!("disk{index}"), BLOCK_BASIC));
    let entries: Vec<Entry> = std::iter::once(Entry::reserved())
        .chain(nets)
        .chain(blocks)
        .collect();
    let header = Header {
        version: VERSION,
        entries: entries.len() as u32,
    };
    Manifest::parse(&[header.as_bytes(), entries.as_bytes()].concat()).expect("a good manifest")
}

/// Two bits per page: mostly writable.
fn mappings(bits: u16) -> Vec<Mapping> {
    let access = |page: u64| match bits >> (2 * page) & 3 {
        0 | 1 => Access::ReadWrite,
        2 => Access::ReadExecute,
        _ => Access::None,
    };
    let page = |page: u64| Mapping {
        range: page * PAGE_SIZE..(page + 1) * PAGE_SIZE,
        access: access(page),
    };
    (0..PAGES).map(page).collect()
}

/// Everything that a hypercall might change, before the call.
struct Before {
    memory: Vec<u8>,
    disks: Vec<Vec<u8>>,
    console: u64,
}

fn content(disk: &File) -> Vec<u8> {
    let mut bytes = vec![0; disk.metadata().expect("a file").len() as usize];
    disk.read_exact_at(&mut bytes, 0).expect("a file in memory");
    bytes
}

impl Before {
    fn of(guest: &Guest) -> Before {
        let stats = guest.console.stats();
        Before {
            memory: contents(&guest.memory),
            disks: guest.disks.iter().map(content).collect(),
            console: stats.written_bytes + stats.dropped_bytes,
        }
    }

    /// Compares with the current state.
    fn check(&self, guest: &Guest, allowed: &[Range<u64>], call: Option<Hypercall>) {
        let after = contents(&guest.memory);
        if after != self.memory {
            let changed = (0..SIZE).filter(|&at| after[at as usize] != self.memory[at as usize]);
            for at in changed {
                assert!(
                    allowed.iter().any(|range| range.contains(&at)),
                    "{at:#x} has changed: {call:x?} {allowed:x?}"
                );
                let page = &guest.mappings[(at / PAGE_SIZE) as usize];
                assert!(
                    page.access.is_writable(),
                    "{at:#x}, which the guest may not write, has changed: {call:x?}"
                );
            }
        }
        for (index, (disk, before)) in guest.disks.iter().zip(&self.disks).enumerate() {
            check_disk(&content(disk), before, guest.capacities[index], call);
        }
        let stats = guest.console.stats();
        let printed = match call {
            Some(Hypercall::Puts(text)) if guest.memory.bytes(text.addr, text.len).is_ok() => {
                text.len
            }
            _ => 0,
        };
        assert_eq!(
            stats.written_bytes + stats.dropped_bytes - self.console,
            printed
        );
    }
}

/// A changed disk was written, and only there.
fn check_disk(after: &[u8], before: &[u8], capacity: u64, call: Option<Hypercall>) {
    if after == before {
        return;
    }
    let Some(Hypercall::BlockWrite(request)) = call else {
        panic!("a disk has changed: {call:x?}")
    };
    assert!(
        after.len() as u64 <= capacity.max(before.len() as u64),
        "a disk has grown"
    );
    let written = request.offset..request.offset + request.buffer.len;
    assert!(written.end <= capacity);
    for (at, &byte) in after.iter().enumerate() {
        // Where the file had been truncated, the bytes between are zero.
        let was = before.get(at).copied().unwrap_or(0);
        assert!(
            byte == was || written.contains(&(at as u64)),
            "byte {at} of a disk has changed: {call:x?}"
        );
    }
}
