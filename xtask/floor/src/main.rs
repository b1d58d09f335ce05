//! The floor: the least tender that runs a current unikernel. It shows what KVM and Linux cost, so that other tenders
//! can be compared with the limit. It is for benchmarks only: it trusts the image and the guest, and confines nothing.
//!
//! * It has no C library and no sandbox, and closes nothing at the end.
//! * It maps whole pages of the image, copy-on-write, takes no huge pages, and lets the guest write and execute all
//!   memory.
//! * It serves every hypercall of ABI 2, on at most one network interface and one disk, and offers no ring.
//! * It needs a host with pages of 4 KiB.
//!
//! The command line is that of `tender`: `--mem=MIB`, `--net:NAME=TAP`, `--block:NAME=FILE`, `--`, the unikernel and
//! its arguments. If a system call of the start fails, the exit status is its error number. Sections in comments are
//! those of `docs/hvt-abi.md`.
#![no_std]
#![no_main]
#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "every function trusts its arguments: checks would be part of the measurement"
)]

#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
mod arch;
mod calls;
mod image;
mod sys;
mod vdso;

use calls::{Devices, NONE};
use image::Image;
use sys::{call, must};

/// Section 5; the manifest and the command line follow the block.
const BOOT_INFO: usize = 0x10000;
const MANIFEST: usize = BOOT_INFO + 56;
const ENTRY: usize = 104;

/// Types in a manifest. Section 7.
const BLOCK_BASIC: u32 = 1;
const NET_BASIC: u32 = 2;

/// An exit of KVM that is no hypercall ends the run with this status.
const NO_HYPERCALL: usize = 124;

/// The arguments of the process, as the kernel passes them.
struct Arguments {
    memory: usize,
    tap: *const u8,
    disk: *const u8,
    /// The unikernel's file, then its arguments, then null.
    unikernel: *const *const u8,
}

/// The first function: `stack` holds the number of arguments, the arguments, and the environment.
#[unsafe(no_mangle)]
unsafe extern "C" fn floor(stack: *const usize) -> ! {
    let arguments = Arguments::parse(stack.add(1).cast());
    let memory = sys::reserve(arguments.memory);
    let image = Image::map(*arguments.unikernel, memory);
    let mut devices = Devices {
        memory,
        tap: NONE,
        tap_handle: 0,
        disk: NONE,
        time: None,
        stack,
    };
    let command_line = attach(&arguments, &image, &mut devices);
    join(arguments.unikernel.add(1), memory.add(command_line));
    let vcpu = arch::Vcpu::create(memory, arguments.memory, image.entry);
    let info: *mut usize = memory.add(BOOT_INFO).cast();
    let values = [
        arguments.memory,
        image.end,
        vcpu.counter_frequency(),
        command_line,
        MANIFEST,
        0,
        0,
    ];
    info.cast::<[usize; 7]>().write(values);
    loop {
        match vcpu.run() {
            Some((number, argument)) => devices.serve(number, argument),
            None => sys::exit(NO_HYPERCALL),
        }
    }
}

impl Arguments {
    unsafe fn parse(mut next: *const *const u8) -> Arguments {
        let (mut memory, mut tap, mut disk) = (512, core::ptr::null(), core::ptr::null());
        loop {
            next = next.add(1);
            let argument = *next;
            // By the letter after the dashes: --mem, --net, --block, or the dashes alone.
            match [*argument, *argument.add(2)] {
                [b'-', b'm'] => memory = number(value(argument)),
                [b'-', b'n'] => tap = value(argument),
                [b'-', b'b'] => disk = value(argument),
                [b'-', _] => {}
                _ => break,
            }
        }
        Arguments {
            memory: memory << 20,
            tap,
            disk,
            unikernel: next,
        }
    }
}

/// Returns the text after the equals sign.
unsafe fn value(mut text: *const u8) -> *const u8 {
    while *text != b'=' {
        text = text.add(1);
    }
    text.add(1)
}

unsafe fn number(mut text: *const u8) -> usize {
    let mut number = 0;
    while (*text).is_ascii_digit() {
        number = number * 10 + usize::from(*text - b'0');
        text = text.add(1);
    }
    number
}

/// Copies the manifest to the guest and attaches its devices; returns the address after it. Section 7.
unsafe fn attach(arguments: &Arguments, image: &Image, devices: &mut Devices) -> usize {
    let manifest = devices.memory.add(MANIFEST);
    let entries = image.manifest.add(4).cast::<u32>().read() as usize;
    let size = 8 + entries * ENTRY;
    core::ptr::copy_nonoverlapping(image.manifest, manifest, size);
    for handle in 1..entries {
        let entry = manifest.add(8 + handle * ENTRY);
        match entry.add(68).cast::<u32>().read() {
            NET_BASIC => {
                devices.tap = sys::open_tap(arguments.tap);
                devices.tap_handle = handle;
                // A MAC address that is not a group's, and the MTU of Ethernet.
                entry.add(72).cast::<[u8; 6]>().write([2, 0, 0, 0, 0, 2]);
                entry.add(78).cast::<u16>().write_unaligned(1500);
            }
            BLOCK_BASIC => {
                devices.disk = must(sys::open(arguments.disk, sys::O_RDWR));
                let capacity = must(call(sys::LSEEK, [devices.disk, 0, 2, 0, 0, 0]));
                entry.add(72).cast::<usize>().write_unaligned(capacity);
                entry.add(80).cast::<u16>().write_unaligned(512);
            }
            _ => {}
        }
        *entry.add(96) = 1;
    }
    MANIFEST + size
}

/// Joins arguments by spaces; a NUL ends them. Section 5.
unsafe fn join(mut arguments: *const *const u8, mut to: *mut u8) {
    let mut separator = false;
    while !(*arguments).is_null() {
        if separator {
            *to = b' ';
            to = to.add(1);
        }
        separator = true;
        let mut from = *arguments;
        while *from != 0 {
            *to = *from;
            (from, to) = (from.add(1), to.add(1));
        }
        arguments = arguments.add(1);
    }
    *to = 0;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    sys::exit(101)
}
