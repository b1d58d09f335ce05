//! Sources of bytes: files, and read errors.

use std::cell::Cell;
use std::io::Write;

use super::*;
use crate::report::message::Message;

/// Returns a byte at a time, is sometimes interrupted, and fails permanently from `broken_at` on.
struct Slow {
    bytes: Vec<u8>,
    calls: Cell<u32>,
    broken_at: u64,
}

impl Slow {
    fn new(broken_at: u64) -> Slow {
        Slow {
            bytes: Elf::hvt().build(),
            calls: Cell::new(0),
            broken_at,
        }
    }
}

impl Source for Slow {
    fn size(&self) -> io::Result<u64> {
        self.bytes.as_slice().size()
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> io::Result<usize> {
        self.calls.set(self.calls.get() + 1);
        if self.calls.get() % 3 == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if offset >= self.broken_at {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.bytes.as_slice().read_at(offset, &mut target[..1])
    }
}

#[test]
fn a_file_that_comes_in_pieces_is_the_same() {
    let image = Image::parse(&Slow::new(u64::MAX)).expect("a good image");
    assert_eq!(summary(&image), summary(&accepted(|_| {})));
}

#[test]
fn a_read_error_is_returned() {
    for broken_at in [0, 63, 64, 64 + 600, 0x2040, 0x2080, 0x2080 + 100] {
        let error = Image::parse(&Slow::new(broken_at)).expect_err("a bad disk");
        assert!(
            matches!(&error, Error::Io(error) if error.raw_os_error() == Some(libc::EIO)),
            "{broken_at:#x}"
        );
        assert_eq!(
            Message::of(&error).to_string(),
            "cannot be read: Input/output error (os error 5); see dmesg for its disk"
        );
    }
}

/// Returns a real file with these bytes.
fn file(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    file
}

#[test]
fn files_and_bytes_in_memory_are_read_alike() {
    let mut distant_table = Elf::hvt();
    distant_table.phoff = 1 << 63;
    let mut distant_note = Elf::hvt();
    (
        distant_note.programs[ABI].offset,
        distant_note.programs[ABI].content,
    ) = (u64::MAX - 5, Vec::new());
    let whole = Elf::hvt().build();
    let files = [
        whole.clone(),
        distant_table.build(),
        distant_note.build(),
        whole[..0x2100].to_vec(),
        Vec::new(),
    ];
    for bytes in files {
        let from_memory = Image::parse(bytes.as_slice())
            .map(|image| summary(&image))
            .map_err(|error| Message::of(&error).to_string());
        let from_file = Image::parse(&file(&bytes))
            .map(|image| summary(&image))
            .map_err(|error| Message::of(&error).to_string());
        assert_eq!(from_file, from_memory);
    }
}
