use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl};
use tempfile::TempDir;

use super::lock::owner_in;
use super::*;
use crate::host::ids::{group_name, user, user_name};
use crate::report::message::Message;

mod owners;

const MEMORY_SIZE: u64 = 0x10000;

/// Returns a directory with an image of `size` bytes, each of which encodes its offset.
fn image(size: usize) -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("an image,a=b");
    fs::write(&path, pattern(0, size)).unwrap();
    (directory, path)
}

fn pattern(start: usize, len: usize) -> Vec<u8> {
    (start..start + len).map(|at| (at % 251) as u8).collect()
}

fn memory() -> GuestMemory {
    GuestMemory::new(MEMORY_SIZE).unwrap()
}

fn contents(memory: &GuestMemory, addr: u64, len: u64) -> Vec<u8> {
    let mut copy = vec![0; len as usize];
    assert_eq!(
        memory
            .bytes(GuestAddress(addr), len)
            .unwrap()
            .copy_to(&mut copy),
        copy.len()
    );
    copy
}

fn refused(path: &Path, sector_size: Option<u16>) -> String {
    open(path, sector_size, DiskTail::Refused)
        .map_err(Message::from)
        .unwrap_err()
        .to_string()
}

/// Opens it as a run does.
fn open(path: &Path, sector_size: Option<u16>, tail: DiskTail) -> Result<Disk, Error> {
    let source = BlockSource::Path(path.to_owned());
    Disk::attach(&source, &mut Files::default(), sector_size, tail)
}

#[test]
fn an_image_has_its_size_in_sectors() {
    let (_directory, path) = image(8192);
    let disk = open(&path, None, DiskTail::Refused).unwrap();
    assert_eq!((disk.capacity(), disk.sector_size()), (8192, 512));
    drop(disk);
    let disk = open(&path, Some(4096), DiskTail::Refused).unwrap();
    assert_eq!((disk.capacity(), disk.sector_size()), (8192, 4096));
}

/// The same sums in 128 bits, where nothing overflows, for every pair of numbers at and around a
/// limit; in bytes, and in the sectors of old eras.
#[test]
fn requests_are_checked_for_every_offset_and_length() {
    let (_directory, path) = image(1536);
    let disk = open(&path, None, DiskTail::Refused).unwrap();
    let limits = [
        0,
        512,
        1024,
        1536,
        1 << 32,
        u64::MAX / 512,
        1 << 63,
        u64::MAX,
    ];
    let numbers = || {
        limits
            .into_iter()
            .flat_map(|limit: u64| (-2..=2).map(move |by| limit.wrapping_add_signed(by)))
    };
    for (offset, len) in numbers().flat_map(|offset| numbers().map(move |len| (offset, len))) {
        let within = |start: u128| start < 1536 && start + u128::from(len) <= 1536;
        assert_eq!(
            disk.holds(offset, len),
            within(offset.into()),
            "{offset} {len}"
        );
        let from_sector = disk.holds(offset.saturating_mul(512), len);
        assert_eq!(
            from_sector,
            within(u128::from(offset) * 512),
            "sector {offset} {len}"
        );
    }
}

#[test]
fn reads_fill_guest_memory() {
    let (_directory, path) = image(4096);
    let mut disk = open(&path, None, DiskTail::Refused).unwrap();
    let memory = memory();
    assert_eq!(
        disk.read(&memory, 512, GuestAddress(0x1001), 1024).unwrap(),
        Status::Ok
    );
    assert_eq!(contents(&memory, 0x1001, 1024), pattern(512, 1024));
    assert_eq!(contents(&memory, 0x1000, 1), [0]);
    assert_eq!(contents(&memory, 0x1401, 1), [0]);
    assert_eq!(
        disk.stats(),
        Stats {
            reads: 1,
            read_bytes: 1024,
            ..Stats::default()
        }
    );
}

#[test]
fn reads_leave_no_trace_on_the_host() {
    let (_directory, path) = image(4096);
    let disk = open(&path, None, DiskTail::Refused).unwrap();
    let flags = fcntl_getfl(&disk).unwrap();
    assert_eq!(
        flags & (OFlags::NOATIME | OFlags::ACCMODE),
        OFlags::NOATIME | OFlags::RDWR
    );
}

#[test]
fn writes_reach_the_file() {
    let (_directory, path) = image(4096);
    let mut disk = open(&path, None, DiskTail::Refused).unwrap();
    let memory = memory();
    memory
        .place(GuestAddress(0x2000), b"written by the guest")
        .unwrap();
    assert_eq!(
        disk.write(&memory, 1024, GuestAddress(0x2000), 20).unwrap(),
        Status::Ok
    );
    disk.sync().unwrap();
    let file = fs::read(&path).unwrap();
    assert_eq!(&file[1024..1044], b"written by the guest");
    assert_eq!(file[..1024], pattern(0, 1024));
    assert_eq!(file[1044..], pattern(1044, 4096 - 1044));
    assert_eq!(
        disk.stats(),
        Stats {
            writes: 1,
            written_bytes: 20,
            ..Stats::default()
        }
    );
}

#[test]
fn requests_past_the_end_are_invalid_with_any_buffer() {
    let (_directory, path) = image(4096);
    let mut disk = open(&path, None, DiskTail::Refused).unwrap();
    let memory = memory();
    let beyond = [
        (4096, 0),
        (4096, 512),
        (3584, 513),
        (0, 4097),
        (u64::MAX, 1),
        (512, u64::MAX),
        (u64::MAX, u64::MAX),
        (0, u64::MAX),
        (1 << 63, 512),
    ];
    for (offset, len) in beyond {
        for addr in [0, MEMORY_SIZE, u64::MAX] {
            assert_eq!(
                disk.read(&memory, offset, GuestAddress(addr), len).unwrap(),
                Status::Invalid
            );
            assert_eq!(
                disk.write(&memory, offset, GuestAddress(addr), len)
                    .unwrap(),
                Status::Invalid
            );
        }
    }
    assert_eq!(
        disk.stats(),
        Stats {
            invalid: beyond.len() as u64 * 6,
            ..Stats::default()
        }
    );
    assert_eq!(fs::read(&path).unwrap(), pattern(0, 4096));
}

#[test]
fn the_last_byte_and_any_length_can_be_used() {
    let (_directory, path) = image(4096);
    let mut disk = open(&path, Some(512), DiskTail::Refused).unwrap();
    let memory = memory();
    for (offset, len) in [(4095, 1), (0, 4096), (3, 1000), (4095, 0), (0, 0)] {
        assert_eq!(
            disk.read(&memory, offset, GuestAddress(MEMORY_SIZE - len), len)
                .unwrap(),
            Status::Ok
        );
        assert_eq!(
            disk.write(&memory, offset, GuestAddress(MEMORY_SIZE - len), len)
                .unwrap(),
            Status::Ok
        );
    }
    assert_eq!(fs::read(&path).unwrap(), pattern(0, 4096));
}

#[test]
fn a_bad_buffer_ends_the_guest() {
    let (_directory, path) = image(4096);
    let mut disk = open(&path, None, DiskTail::Refused).unwrap();
    let memory = memory();
    for addr in [MEMORY_SIZE - 511, MEMORY_SIZE, u64::MAX - 511, u64::MAX] {
        let addr = GuestAddress(addr);
        assert!(matches!(
            disk.read(&memory, 0, addr, 512),
            Err(memory::RangeError::OutOfRange { .. })
        ));
        assert!(matches!(
            disk.write(&memory, 0, addr, 512),
            Err(memory::RangeError::OutOfRange { .. })
        ));
    }
    assert_eq!(disk.stats(), Stats::default());
}

#[test]
fn a_truncated_image_is_an_error_for_the_guest() {
    let (_directory, path) = image(4096);
    let mut disk = open(&path, None, DiskTail::Refused).unwrap();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1000)
        .unwrap();
    let memory = memory();
    assert_eq!(
        disk.read(&memory, 512, GuestAddress(0), 512).unwrap(),
        Status::Unspecified
    );
    assert_eq!(
        disk.read(&memory, 2048, GuestAddress(0), 512).unwrap(),
        Status::Unspecified
    );
    assert_eq!(
        disk.stats(),
        Stats {
            truncated: 2,
            ..Stats::default()
        }
    );
}

#[test]
fn an_error_of_the_hosts_disk_is_returned() {
    let (_directory, path) = image(4096);
    let mut disk = open(&path, None, DiskTail::Refused).unwrap();
    let memory = memory();
    // A read-only descriptor stands for a failing disk, /dev/full for a full one.
    disk.file = File::open(&path).unwrap();
    assert_eq!(
        disk.write(&memory, 0, GuestAddress(0), 512).unwrap(),
        Status::Unspecified
    );
    disk.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_eq!(
        disk.write(&memory, 0, GuestAddress(0), 512).unwrap(),
        Status::Unspecified
    );
    assert_eq!(
        disk.stats(),
        Stats {
            full: 1,
            write_errors: 1,
            ..Stats::default()
        }
    );
}

#[test]
fn sizes_of_no_whole_sectors_are_reported_with_a_fix() {
    let (_directory, path) = image(1000);
    let shown = path.display();
    assert_eq!(
        refused(&path, None),
        format!(
            "'{shown}' has 1000 bytes, not a multiple of its sectors of 512; 'truncate -s 1024 {shown}' fills the last \
             one"
        )
    );
    assert!(refused(&path, Some(4096)).contains("truncate -s 4096"));
    fs::write(&path, "").unwrap();
    assert!(refused(&path, None).contains("is empty; 'truncate -s 64M"));
    for sector_size in [0, 1, 256, 513, 65535] {
        assert!(refused(&path, Some(sector_size)).contains("is not a sector size"));
    }
}

#[test]
fn a_partial_last_sector_depends_on_the_era() {
    let (_directory, path) = image(1300);
    let capacity = |sector_size, tail| {
        open(&path, sector_size, tail)
            .map(|disk| disk.capacity())
            .ok()
    };
    assert_eq!(capacity(None, DiskTail::Refused), None);
    assert_eq!(capacity(None, DiskTail::Ignored), Some(1024));
    assert_eq!(capacity(None, DiskTail::Kept), Some(1300));
    assert_eq!(capacity(Some(1024), DiskTail::Ignored), Some(1024));
    for tail in [DiskTail::Refused, DiskTail::Ignored, DiskTail::Kept] {
        // Less than a sector is no disk in any era.
        assert_eq!(capacity(Some(2048), tail), None, "{tail:?}");
        fs::write(&path, [0; 1024]).unwrap();
        assert_eq!(capacity(None, tail), Some(1024), "{tail:?}");
        fs::write(&path, [0; 1300]).unwrap();
    }
}

#[test]
fn a_kept_tail_can_be_used_and_an_ignored_one_cannot() {
    let (_directory, path) = image(1300);
    let memory = memory();
    for (tail, last, beyond) in [
        (DiskTail::Kept, 1299, 1300),
        (DiskTail::Ignored, 1023, 1024),
    ] {
        let mut disk = open(&path, None, tail).unwrap();
        assert_eq!(
            disk.read(&memory, last, GuestAddress(0x1000), 1).unwrap(),
            Status::Ok,
            "{tail:?}"
        );
        assert_eq!(contents(&memory, 0x1000, 1), pattern(last as usize, 1));
        for (offset, len) in [(beyond, 1), (last, 2), (beyond, 0)] {
            assert_eq!(
                disk.read(&memory, offset, GuestAddress(0x1000), len)
                    .unwrap(),
                Status::Invalid,
                "{tail:?}"
            );
            assert_eq!(
                disk.write(&memory, offset, GuestAddress(0x1000), len)
                    .unwrap(),
                Status::Invalid,
                "{tail:?}"
            );
        }
    }
    assert_eq!(fs::read(&path).unwrap(), pattern(0, 1300));
}

#[test]
fn paths_that_are_no_image_are_named() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    assert!(refused(&path.join("none"), None).contains("there is no file '"));
    assert!(refused(path, None).contains("is a directory; give an image file or a disk"));
    assert!(refused(Path::new("/dev/null"), None).contains("is a character device"));
    assert!(refused(Path::new("/dev/null/x"), None).contains("cannot open '/dev/null/x'"));
    let _socket = std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();
    assert!(refused(&path.join("socket"), None).contains("is a socket"));
    symlink("loop", path.join("loop")).unwrap();
    assert!(refused(&path.join("loop"), None).contains("cannot open"));
}
