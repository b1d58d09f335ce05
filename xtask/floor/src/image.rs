//! The unikernel's file. Section 6.

use core::mem::MaybeUninit;

use crate::sys::{self, FIXED, PREAD, PRIVATE, call, must};

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const MFT1: u32 = 0x3154_464d;
const PAGE: usize = 0x1000;

/// What the guest's start needs of it.
pub struct Image {
    pub entry: usize,
    /// End of the last segment.
    pub end: usize,
    /// The manifest, in guest memory.
    pub manifest: *const u8,
}

/// An ELF program header.
#[repr(C)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: usize,
    address: usize,
    physical: usize,
    file_size: usize,
    memory_size: usize,
    align: usize,
}

impl Image {
    /// Maps the segments of the file `path` into guest memory.
    pub unsafe fn map(path: *const u8, memory: *mut u8) -> Image {
        let file = must(sys::open(path, 0));
        // The header and up to seventeen program headers.
        let mut head = MaybeUninit::<[usize; 128]>::uninit();
        let head = head.as_mut_ptr().cast::<u8>();
        must(call(PREAD, [file, head as usize, 1024, 0, 0, 0]));
        let segments: *const Segment = head.add(head.add(32).cast::<usize>().read()).cast();
        let count = usize::from(head.add(56).cast::<u16>().read());
        let mut image = Image {
            entry: head.add(24).cast::<usize>().read(),
            end: 0,
            manifest: core::ptr::null(),
        };
        for i in 0..count {
            let segment = &*segments.add(i);
            if segment.kind == PT_LOAD && segment.memory_size > 0 {
                image.end = (segment.address + segment.memory_size).next_multiple_of(PAGE);
            }
            if segment.kind == PT_LOAD && segment.file_size > 0 {
                segment.map(file, memory);
            }
            let note = memory.add(segment.address);
            if segment.kind == PT_NOTE && note.add(8).cast::<u32>().read() == MFT1 {
                image.manifest = note.add(24);
            }
        }
        image
    }
}

impl Segment {
    unsafe fn map(&self, file: usize, memory: *mut u8) {
        let before = self.address % PAGE;
        let at = memory.add(self.address);
        let (size, offset) = (before + self.file_size, self.offset - before);
        sys::map(at.sub(before), size, PRIVATE | FIXED, file, offset);
        // The rest of the last page belongs to the file's next segment.
        if self.memory_size > self.file_size {
            at.add(self.file_size)
                .write_bytes(0, size.next_multiple_of(PAGE) - size);
        }
    }
}
