//! Devices as a fuzzed guest has them, all real but none of the host's own: interfaces are socket pairs, disks are files
//! without a name.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;

use tender::config::BlockSource;
use tender::config::NetSource;
use tender::config::{BlockOption, NetOption};

/// A device that frames go through, and its other end.
pub fn wire(kind: libc::c_int) -> (NetOption, UnixDatagram) {
    let mut fds = [-1; 2];
    // SAFETY: the array has room for the two descriptors.
    assert_eq!(
        unsafe {
            libc::socketpair(
                libc::AF_UNIX,
                kind | libc::SOCK_NONBLOCK,
                0,
                fds.as_mut_ptr(),
            )
        },
        0
    );
    // SAFETY: it is new and nobody else's.
    let far = unsafe { UnixDatagram::from_raw_fd(fds[1]) };
    (
        NetOption {
            source: Some(NetSource::Fd(fds[0].into())),
            ..NetOption::default()
        },
        far,
    )
}

/// A disk of `size` bytes that count up, and the file behind it.
pub fn disk(size: u64) -> (BlockOption, File) {
    // SAFETY: it takes a string that ends in NUL.
    let fd = unsafe { libc::memfd_create(c"disk".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: it is new and nobody else's.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let content: Vec<u8> = (0..size).map(|at| at as u8).collect();
    file.write_all_at(&content, 0).expect("memory");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    (
        BlockOption {
            source: Some(BlockSource::Path(path)),
            ..BlockOption::default()
        },
        file,
    )
}

/// The descriptor that would be opened next: the same before and after something that leaks none.
pub fn next_descriptor() -> RawFd {
    // SAFETY: it takes nothing but a number.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: it is new and nobody else's.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    fd
}
