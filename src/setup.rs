//! From a [`Config`] to a guest that is ready to run. The one place where order matters: what can be checked without
//! touching the host comes first, KVM next, the host's devices after it, and the guest's memory last.

use std::ffi::OsStr;
use std::fs::{File, FileType};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use guest_abi::boot::{BOOT_INFO_ADDRESS, BootInfo, CMDLINE_SIZE, IMAGE_BASE};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VmFd};
use zerocopy::IntoBytes;

use crate::arch::{self, Vcpu};
use crate::cli::{Config, Memory};
use crate::console::Console;
use crate::devices::{Devices, Plan};
use crate::error::Error;
use crate::exit::Machine;
use crate::image::{self, Image, Segment};
use crate::memory::{Access, GuestAddress, GuestMemory, Mapping};

/// Makes everything that one run needs.
pub fn setup(config: &Config) -> Result<Machine, Error> {
    let file = open(&config.unikernel)?;
    let mut image = Image::parse(&file)?;
    check_machine(&image)?;
    let size = memory_size(config.memory, &image)?;
    let cmdline = cmdline(&config.arguments)?;
    let plan = Plan::new(&image.manifest, &config.nets, &config.blocks)?;

    // What may be missing on this host comes before what the host notices: a tap that is attached goes up and down.
    let kvm = open_kvm()?;
    let vm = arch::create_vm(&kvm)?;
    let mut memory = GuestMemory::new(size)?;
    let mut vcpu = Vcpu::new(&kvm, &vm)?;
    let frequency = vcpu.counter_frequency()?;
    let devices = Devices::attach(plan, &mut image.manifest)?;

    log::info!("{} MiB of memory, image up to {:#x}, counter of {frequency} Hz", size >> 20, image.end());
    let mappings = mappings(&image, size);
    load(&memory, &file, &image.segments)?;
    arch::build_tables(&memory, &mappings)?;
    let info = BootInfo { mem_size: size, kernel_end: image.end(), cpu_cycle_freq: frequency, ..Default::default() };
    place_boot_info(&memory, info, &image.manifest.to_bytes(), &cmdline)?;
    memory.protect(&mappings);

    map_memory(&vm, &memory)?;
    vcpu.boot(&arch::Boot { entry: image.entry, stack_top: size, boot_info: BOOT_INFO_ADDRESS })?;
    let poll_limit = arch::poll_limit(frequency);
    Ok(Machine { era: image.era, vcpu, memory, devices, console: Console::stdout(), poll_limit, _vm: vm })
}

fn open(path: &Path) -> Result<File, Error> {
    let unreadable = |source| Error::Open { source };
    check_kind(std::fs::metadata(path).map_err(unreadable)?.file_type())?;
    // Should it have become a pipe meanwhile, to open it must not wait for a writer.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
    check_kind(file.metadata().map_err(unreadable)?.file_type())?;
    Ok(file)
}

fn check_kind(kind: FileType) -> Result<(), Error> {
    Err(Error::NotAFile(match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "directory",
        kind if kind.is_fifo() => "pipe",
        kind if kind.is_socket() => "socket",
        _ => "device",
    }))
}

fn check_machine(image: &Image) -> Result<(), Error> {
    if image.machine == arch::MACHINE {
        return Ok(());
    }
    Err(Error::Machine { image: image.machine, host: arch::MACHINE })
}

fn memory_size(memory: Memory, image: &Image) -> Result<u64, Error> {
    if memory.given != memory.asked {
        log::warn!("guest memory is {} MiB: --mem is rounded down to a multiple of 2 MiB", memory.given >> 20);
    }
    let needed = image.least_memory();
    if memory.given < needed {
        return Err(Error::TooLittleMemory { given: memory.given >> 20, needed: needed >> 20 });
    }
    Ok(memory.given)
}

/// The guest's words, joined by single spaces and ended by a NUL.
fn cmdline(arguments: &[impl AsRef<OsStr>]) -> Result<Vec<u8>, Error> {
    let words: Vec<&[u8]> = arguments.iter().map(|word| word.as_ref().as_bytes()).collect();
    let mut cmdline = words.join(&b' ');
    cmdline.push(0);
    if cmdline.len() > CMDLINE_SIZE {
        return Err(Error::CommandLine { size: cmdline.len() - 1, most: CMDLINE_SIZE - 1 });
    }
    Ok(cmdline)
}

fn open_kvm() -> Result<Kvm, Error> {
    let kvm = Kvm::new().map_err(|source| Error::no_kvm(source.errno()))?;
    match kvm.get_api_version() {
        12 => Ok(kvm),
        version => Err(Error::KvmVersion(version)),
    }
}

/// What the guest may do with each page of its memory. Sections A3 and B3.
fn mappings(image: &Image, size: u64) -> Vec<Mapping> {
    let mut mappings = vec![
        Mapping { range: 0..BOOT_INFO_ADDRESS, access: Access::None },
        Mapping { range: BOOT_INFO_ADDRESS..IMAGE_BASE, access: Access::Read },
    ];
    mappings.extend(image.mappings(size));
    mappings
}

/// Brings the segments into memory. What the file does not fill is zero, as guest memory is fresh.
fn load(memory: &GuestMemory, file: &File, segments: &[Segment]) -> Result<(), Error> {
    for segment in segments.iter().filter(|segment| !segment.file.is_empty()) {
        let length = segment.file.end - segment.file.start;
        memory
            .load(GuestAddress(segment.memory.start), length, file.as_fd(), segment.file.start)?
            .map_err(image::Error::Io)?;
    }
    Ok(())
}

/// Boot info, manifest and command line, one after the other. Section 5.
fn place_boot_info(memory: &GuestMemory, info: BootInfo, manifest: &[u8], cmdline: &[u8]) -> Result<(), Error> {
    let mft = BOOT_INFO_ADDRESS + size_of::<BootInfo>() as u64;
    let cmdline_address = mft + manifest.len() as u64;
    let info = BootInfo { mft, cmdline: cmdline_address, ..info };
    memory.place(GuestAddress(BOOT_INFO_ADDRESS), info.as_bytes())?;
    memory.place(GuestAddress(mft), manifest)?;
    memory.place(GuestAddress(cmdline_address), cmdline)?;
    Ok(())
}

fn map_memory(vm: &VmFd, memory: &GuestMemory) -> Result<(), Error> {
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: memory.size(),
        userspace_addr: memory.host_address(),
    };
    // SAFETY: the region is a live private mapping of exactly this size, no Rust reference points into it, and the
    // machine drops its VM together with its memory.
    unsafe { vm.set_user_memory_region(region) }.map_err(arch::Error::kvm("map the guest's memory"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn the_command_line_is_joined_by_spaces() {
        assert_eq!(cmdline(&["--ipv4=10.0.0.2/24", "a b", ""]).unwrap(), b"--ipv4=10.0.0.2/24 a b \0");
        assert_eq!(cmdline(&[] as &[OsString]).unwrap(), b"\0");
    }

    #[test]
    fn the_command_line_has_8191_bytes_at_most() {
        assert_eq!(cmdline(&["x".repeat(8191)]).unwrap().len(), 8192);
        assert!(matches!(cmdline(&["x".repeat(8192)]), Err(Error::CommandLine { size: 8192, most: 8191 })));
    }

    #[test]
    fn boot_info_manifest_and_command_line_follow_each_other() {
        let memory = GuestMemory::new(0x20_0000).unwrap();
        place_boot_info(&memory, BootInfo { mem_size: 7, ..Default::default() }, &[1, 2, 3], b"hi\0").unwrap();
        let info: BootInfo = memory.read(GuestAddress(0x10000)).unwrap();
        assert_eq!((info.mem_size, info.mft, info.cmdline, info.net_ring), (7, 0x10038, 0x1003b, 0));
        assert_eq!(memory.read::<[u8; 6]>(GuestAddress(info.mft)).unwrap(), *b"\x01\x02\x03hi\0");
    }
}
