//! Devices of a fuzzed guest, real but without host resources: interfaces are socket pairs, disks
//! are unnamed files.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;

use tender::config::BlockSource;
use tender::config::NetSource;
use tender::config::{BlockOption, NetOption};

/// A network device and its peer.
pub fn wire(kind: libc::c_int) -> (NetOption, UnixDatagram) {
    let mut fds = [-1; 2];
    assert_eq!(
        // SAFETY: the array has room for the two descriptors.
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
    // SAFETY: it is new and has no other owner.
    let far = unsafe { UnixDatagram::from_raw_fd(fds[1]) };
    (
        NetOption {
            source: Some(NetSource::Fd(fds[0].into())),
            ..NetOption::default()
        },
        far,
    )
}

/// A disk of `size` bytes that count up, and its file.
pub fn disk(size: u64) -> (BlockOption, File) {
    // SAFETY: it takes a string that ends in NUL.
    let fd = unsafe { libc::memfd_create(c"disk".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: it is new and has no other owner.
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

/// Returns the descriptor that would be opened next: equal before and after code that leaks none.
pub fn next_descriptor() -> RawFd {
    // SAFETY: it takes only a number.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: it is new and has no other owner.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    fd
}
