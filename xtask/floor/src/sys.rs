//! System calls, without a C library.

use core::arch::asm;

#[cfg(target_arch = "aarch64")]
mod number {
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const PREAD: usize = 67;
    pub const PWRITE: usize = 68;
    pub const PPOLL: usize = 73;
    pub const OPENAT: usize = 56;
    pub const LSEEK: usize = 62;
    pub const IOCTL: usize = 29;
    pub const MMAP: usize = 222;
    pub const MADVISE: usize = 233;
    pub const EXIT_GROUP: usize = 94;
}

#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const PREAD: usize = 17;
    pub const PWRITE: usize = 18;
    pub const PPOLL: usize = 271;
    pub const OPENAT: usize = 257;
    pub const LSEEK: usize = 8;
    pub const IOCTL: usize = 16;
    pub const MMAP: usize = 9;
    pub const MADVISE: usize = 28;
    pub const EXIT_GROUP: usize = 231;
}

pub use number::*;

pub const O_RDWR: usize = 2;
const O_NONBLOCK: usize = 0o4000;
const AT_FDCWD: usize = -100_isize as usize;

pub const SHARED: usize = 1;
pub const PRIVATE: usize = 2;
pub const FIXED: usize = 0x10;
const ANONYMOUS: usize = 0x20;
const NORESERVE: usize = 0x4000;
const READ_WRITE: usize = 3;
const MADV_NOHUGEPAGE: usize = 15;

const TUNSETIFF: usize = 0x4004_54ca;
const IFF_TAP_NO_PI: u16 = 0x1002;

/// Makes a system call; returns its result, or an error number below zero.
#[inline(always)]
pub unsafe fn call(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result;
    #[cfg(target_arch = "aarch64")]
    asm!("svc #0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
        in("x5") f, options(nostack));
    #[cfg(target_arch = "x86_64")]
    asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
        in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    result
}

/// Ends the process with the error number if a call has failed.
pub fn must(result: isize) -> usize {
    if result < 0 {
        exit(result.unsigned_abs());
    }
    result as usize
}

pub fn exit(status: usize) -> ! {
    loop {
        // SAFETY: ends the process.
        unsafe { call(EXIT_GROUP, [status, 0, 0, 0, 0, 0]) };
    }
}

pub unsafe fn open(path: *const u8, flags: usize) -> isize {
    call(OPENAT, [AT_FDCWD, path as usize, flags, 0, 0, 0])
}

pub unsafe fn ioctl(file: usize, request: usize, argument: usize) -> isize {
    call(IOCTL, [file, request, argument, 0, 0, 0])
}

pub unsafe fn map(at: *mut u8, size: usize, flags: usize, file: usize, offset: usize) -> *mut u8 {
    must(call(
        MMAP,
        [at as usize, size, READ_WRITE, flags, file, offset],
    )) as *mut u8
}

/// Reserves the guest's memory.
pub unsafe fn reserve(size: usize) -> *mut u8 {
    let flags = PRIVATE | ANONYMOUS | NORESERVE;
    let memory = map(core::ptr::null_mut(), size, flags, usize::MAX, 0);
    // A kernel without huge pages rejects it.
    call(MADVISE, [memory as usize, size, MADV_NOHUGEPAGE, 0, 0, 0]);
    memory
}

/// Attaches to a tap. Section 8.
pub unsafe fn open_tap(name: *const u8) -> usize {
    let tap = must(open(c"/dev/net/tun".as_ptr().cast(), O_RDWR | O_NONBLOCK));
    let mut request = [0_u64; 5];
    let bytes: *mut u8 = request.as_mut_ptr().cast();
    let mut length = 0;
    while *name.add(length) != 0 {
        *bytes.add(length) = *name.add(length);
        length += 1;
    }
    bytes.add(16).cast::<u16>().write(IFF_TAP_NO_PI);
    must(ioctl(tap, TUNSETIFF, bytes as usize));
    tap
}

/// The compiler calls these two.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, size: usize) -> *mut u8 {
    for i in 0..size {
        to.add(i).write_volatile(byte as u8);
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
    for i in 0..size {
        to.add(i).write_volatile(*from.add(i));
    }
    to
}
