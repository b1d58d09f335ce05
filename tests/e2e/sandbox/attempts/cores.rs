//! A core file: the calls that make one, and those that are refused even then.

use crate::sandbox::attempts::{Attempt, CORE_FILE, CORES, NEW, NEW_ELSEWHERE, PAGE, PATH, VCPU};

/// A core file: how it is made and written.
pub const CORE: &[Attempt] = &[
    (
        "a file there",
        libc::SYS_openat,
        [CORES, NEW, CORE_FLAGS, 0o600, 0, 0],
    ),
    (
        "a file elsewhere",
        libc::SYS_openat,
        [CORES, NEW_ELSEWHERE, CORE_FLAGS, 0o600, 0, 0],
    ),
    (
        "a file in place of another",
        libc::SYS_dup3,
        [0, CORE_FILE, libc::O_CLOEXEC as i64, 0, 0, 0],
    ),
    (
        "a file written",
        libc::SYS_pwrite64,
        [CORE_FILE, PAGE, 1, 0, 0, 0],
    ),
];

const CORE_FLAGS: i64 =
    (libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC) as i64;
const NOT_NEW: i64 = CORE_FLAGS & !libc::O_EXCL as i64;
const TO_READ: i64 = CORE_FLAGS | libc::O_RDWR as i64;
const HERE: i64 = libc::AT_FDCWD as i64;

/// Forbidden for the guest's thread even with `--dumpcore`.
pub const FORBIDDEN_WITH_CORES: &[Attempt] = &[
    (
        "openat of what is there",
        libc::SYS_openat,
        [CORES, PATH, NOT_NEW, 0o600, 0, 0],
    ),
    (
        "openat to read",
        libc::SYS_openat,
        [CORES, PATH, TO_READ, 0o600, 0, 0],
    ),
    (
        "openat for everybody",
        libc::SYS_openat,
        [CORES, PATH, CORE_FLAGS, 0o666, 0, 0],
    ),
    (
        "openat from here",
        libc::SYS_openat,
        [HERE, PATH, CORE_FLAGS, 0o600, 0, 0],
    ),
    (
        "openat from another descriptor",
        libc::SYS_openat,
        [0, PATH, CORE_FLAGS, 0o600, 0, 0],
    ),
    (
        "dup3 to another descriptor",
        libc::SYS_dup3,
        [CORES, VCPU, libc::O_CLOEXEC as i64, 0, 0, 0],
    ),
    (
        "dup3 beyond exec",
        libc::SYS_dup3,
        [0, CORE_FILE, 0, 0, 0, 0],
    ),
    (
        "write to the core file",
        libc::SYS_write,
        [CORE_FILE, PAGE, 1, 0, 0, 0],
    ),
    (
        "pread64 from the core file",
        libc::SYS_pread64,
        [CORE_FILE, PAGE, 1, 0, 0, 0],
    ),
    (
        "unlinkat of the core file",
        libc::SYS_unlinkat,
        [CORES, PATH, 0, 0, 0, 0],
    ),
];
