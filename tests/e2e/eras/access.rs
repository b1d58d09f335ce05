//! Memory permissions of the guest in each era: a unikernel is changed to begin with code that
//! tries an access.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{self, Guest, fixture, tender};
use crate::eras::{ABI1, ABI2, Era, LEGACY};

/// In the part of low memory that has neither page tables nor boot information.
const LOW: u32 = 0x3_0000;

/// In the text of every unikernel.
const TEXT: u32 = 0x10_0f00;

const HALT_LEGACY: u32 = guest_abi::legacy::number::HALT;
const HALT: u32 = guest_abi::hypercall::number::HALT;

/// Offset of a program header's permissions.
const FLAGS: usize = 4;

/// The unikernel `hello` of an era, changed to begin with `code`, in a segment with these
/// permissions, if given.
fn hello_beginning_with(era: Era, code: &[u8], flags: Option<u32>) -> (tempfile::TempDir, PathBuf) {
    let mut bytes = fs::read(fixture(&format!("hello{}", era.suffix))).unwrap();
    let number = |offset: usize| u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap());
    // The entry point; the first program header, which is that of the text; its offset in the file
    // and its address.
    let (entry, header) = (number(24), number(32) as usize);
    let place = (entry - number(header + 16) + number(header + 8)) as usize;
    bytes[place..place + code.len()].copy_from_slice(code);
    if let Some(flags) = flags {
        bytes[header + FLAGS..][..4].copy_from_slice(&flags.to_le_bytes());
    }
    let directory = common::directory();
    let path = directory.path().join("changed.hvt");
    fs::write(&path, bytes).unwrap();
    (directory, path)
}

/// Machine code that writes a return instruction to `place` + 0x80 and calls it.
fn call_a_return(place: u32) -> Vec<u8> {
    if cfg!(target_arch = "x86_64") {
        // mov eax, place; mov byte [rax + 0x80], ret; lea rcx, [rax + 0x80]; call rcx
        let place = place.to_le_bytes();
        return [
            &[0xb8],
            &place[..],
            &[
                0xc6, 0x80, 0x80, 0, 0, 0, 0xc3, 0x48, 0x8d, 0x88, 0x80, 0, 0, 0, 0xff, 0xd1,
            ],
        ]
        .concat();
    }
    let code = [
        0xd2a0_0000 | (place >> 16) << 5, // movz x0, #place >> 16, lsl #16
        0xf280_0000 | (place & 0xffff) << 5, // movk x0, #place & 0xffff
        0x5280_7803,                      // mov w3, #0x3c0
        0x72ba_cbe3,                      // movk w3, #0xd65f, lsl #16: ret
        0xb900_8003,                      // str w3, [x0, #0x80]
        0x9102_0004,                      // add x4, x0, #0x80
        0xd50b_7b24,                      // dc cvau, x4
        0xd503_3b9f,                      // dsb ish
        0xd50b_7524,                      // ic ivau, x4
        0xd503_3b9f,                      // dsb ish
        0xd503_3fdf,                      // isb
        0xd63f_0080,                      // blr x4
    ];
    code.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Machine code that puts 42 at `place` + 8 and halts with the status that it reads from there.
fn store_and_halt(place: u32, halt: u32) -> Vec<u8> {
    if cfg!(target_arch = "x86_64") {
        let [place, port] =
            [place, u32::from(guest_abi::hypercall::PIO_BASE) + halt].map(u32::to_le_bytes);
        // mov eax, place; mov dword [rax + 8], 42; mov edx, port; out dx, eax
        return [
            &[0xb8],
            &place[..],
            &[0xc7, 0x40, 8, 42, 0, 0, 0, 0xba],
            &port,
            &[0xef],
        ]
        .concat();
    }
    let code = [
        0xd2a0_0000 | (place >> 16) << 5, // movz x0, #place >> 16, lsl #16
        0xf280_0000 | (place & 0xffff) << 5, // movk x0, #place & 0xffff
        0x5280_0541,                      // mov w1, #42
        0xb900_0801,                      // str w1, [x0, #8]
        0xd2c0_0022,                      // movz x2, #1, lsl #32: where hypercalls are
        0xb900_0040 | (2 * halt) << 10,   // str w0, [x2, #8 * halt]
        0x1400_0000,                      // b .
    ];
    code.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Whether a unikernel of this era may write at `place`.
fn may_write(era: Era, place: u32, halt: u32) -> bool {
    let (_directory, path) = hello_beginning_with(era, &store_and_halt(place, halt), None);
    halts_with_42(&path)
}

/// Whether an E1 unikernel whose text has these permissions may execute what it has written at
/// `place`.
fn may_execute(place: u32, flags: Option<u32>) -> bool {
    let code = [call_a_return(place), store_and_halt(place, HALT_LEGACY)].concat();
    let (_directory, path) = hello_beginning_with(LEGACY, &code, flags);
    halts_with_42(&path)
}

/// Whether a unikernel halts with 42. If not, it has no handlers yet: on x86_64 it crashes, on
/// ARM64 it traps without end.
fn halts_with_42(path: &Path) -> bool {
    let mut guest = Guest::start(tender(["-q", "--mem=4", "--"]).arg(path));
    if cfg!(target_arch = "aarch64") {
        // Takes milliseconds on a machine that is not busy.
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(100));
            if !guest.is_running() {
                break;
            }
        }
        if guest.is_running() {
            guest.signal(libc::SIGTERM);
        }
    }
    let output = guest.end();
    match (output.status.code(), output.status.signal()) {
        (Some(42), _) => return true,
        (_, Some(signal)) => assert_eq!(signal, libc::SIGTERM, "{output:?}"),
        _ => _ = output.fails(&["fault", "pc 0x"]),
    }
    false
}

pub fn low_memory_is_writable_as_it_was() {
    assert!(may_write(LEGACY, LOW, HALT_LEGACY));
    assert!(!may_write(ABI1, LOW, HALT));
    assert!(!may_write(ABI2, LOW, HALT));
}

/// Where segments forbid it, in every era. The same code can write elsewhere, or this would prove
/// nothing.
pub fn code_is_not_writable() {
    for (era, halt) in [(LEGACY, HALT_LEGACY), (ABI1, HALT), (ABI2, HALT)] {
        assert!(may_write(era, 0x3f_0000, halt), "{}: the heap", era.name);
        assert!(!may_write(era, TEXT, halt), "{}: the text", era.name);
    }
}

/// In the oldest era too, unless the image itself has code and data in one segment.
pub fn heap_and_stack_are_not_executable() {
    const HEAP: u32 = 0x30_0000;
    const STACK: u32 = 0x3f_fc00;
    const ALL: u32 = 7;
    for place in [HEAP, STACK] {
        assert!(!may_execute(place, None), "{place:#x}");
        assert!(
            may_execute(place, Some(ALL)),
            "{place:#x}, of an image with writable code"
        );
    }
}
