//! Core files as bytes: read by goblin, and compared with the layouts of those that Linux makes.

use std::io::Read;
use std::os::unix::fs::MetadataExt;

use goblin::elf::Elf;
use goblin::elf::header::ET_CORE;
use goblin::elf::program_header::{PT_LOAD, PT_NOTE};

use super::*;
use crate::report::message::Message;

const SIZE: u64 = 2 << 20;

fn headers(general: &[u64], floating: &[u8]) -> Vec<u8> {
    elf::headers(
        &elf::State {
            process: 4711,
            signal: libc::SIGABRT,
            general,
            floating,
        },
        SIZE,
    )
}

fn word(bytes: &[u8], offset: usize) -> i32 {
    i32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

/// The offsets are those of `struct elf_prstatus`.
#[test]
fn registers_are_where_linux_has_them() {
    let general: Vec<u64> = (1..=27).map(|number| number << 32 | 0xabcd).collect();
    let floating: Vec<u8> = (0..512).map(|number| number as u8).collect();
    let bytes = headers(&general, &floating);
    let elf = Elf::parse(&bytes).unwrap();
    assert_eq!(
        (
            elf.header.e_type,
            elf.header.e_shnum,
            elf.is_64,
            elf.little_endian
        ),
        (ET_CORE, 0, true, true)
    );
    let notes: Vec<_> = elf
        .iter_note_headers(&bytes)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        notes
            .iter()
            .map(|note| (note.name, note.n_type))
            .collect::<Vec<_>>(),
        [("CORE", 1), ("CORE", 2)]
    );
    let status = notes[0].desc;
    assert_eq!(status.len(), 336);
    assert_eq!(
        (word(status, 0), word(status, 12), word(status, 32)),
        (libc::SIGABRT, libc::SIGABRT, 4711)
    );
    let found: Vec<_> = status[112..328]
        .chunks(8)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    assert_eq!((found, word(status, 328)), (general, 1));
    assert_eq!(notes[1].desc, floating);
    // The size of the same note for ARM64.
    let bytes = headers(&[0; 34], &[0; 528]);
    let elf = Elf::parse(&bytes).unwrap();
    let sizes: Vec<_> = elf
        .iter_note_headers(&bytes)
        .unwrap()
        .map(|note| note.unwrap().desc.len())
        .collect();
    assert_eq!(sizes, [392, 528]);
}

#[test]
fn memory_is_one_segment_of_whole_pages() {
    let bytes = headers(&[0; 27], &[0; 512]);
    let elf = Elf::parse(&bytes).unwrap();
    let [notes, memory] = &elf.program_headers[..] else {
        panic!("{elf:?}")
    };
    assert_eq!((notes.p_type, memory.p_type), (PT_NOTE, PT_LOAD));
    assert_eq!(
        (
            memory.p_vaddr,
            memory.p_paddr,
            memory.p_filesz,
            memory.p_memsz
        ),
        (0, 0, SIZE, SIZE)
    );
    assert_eq!(
        (memory.p_offset, memory.p_offset % PAGE_SIZE),
        (bytes.len() as u64, 0)
    );
    assert!(notes.p_offset + notes.p_filesz <= memory.p_offset);
}

#[test]
fn pages_of_zeros_are_holes() {
    let memory = GuestMemory::new(SIZE).unwrap();
    // The last byte of a page, the first of the next but one, and the middle of a third.
    for (address, byte) in [(0x10fff, 1), (0x12000, 2), (0x100800, 3)] {
        memory.place(GuestAddress(address), &[byte]).unwrap();
    }
    let mut file = tempfile::tempfile().unwrap();
    write(&file, &[7; 4096], &memory).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, 4096 + SIZE);
    let others: Vec<_> = bytes
        .iter()
        .enumerate()
        .skip(4096)
        .filter(|(_, byte)| **byte != 0)
        .collect();
    assert_eq!(others, [(0x11fff, &1), (0x13000, &2), (0x101800, &3)]);
    assert!(
        file.metadata().unwrap().blocks() * 512 < SIZE / 2,
        "no holes"
    );
}

#[test]
fn only_a_page_of_zeros_is_one() {
    let mut page = [0; PAGE_SIZE as usize];
    assert!(is_zero(&page));
    for place in [0, 1, 2047, 4094, 4095] {
        page[place] = 0x80;
        assert!(!is_zero(&page), "{place}");
        page[place] = 0;
    }
    assert!(!is_zero(&[0xff; PAGE_SIZE as usize]));
}

#[test]
fn only_crashes_leave_a_core() {
    let registers = String::new;
    let broken = RunError::Violation {
        cause: Box::new(Message::problem("x")),
        registers: registers(),
    };
    let failed = RunError::Host {
        cause: Box::new(Message::problem("x")),
        registers: registers(),
    };
    let timeout = RunError::Timeout {
        seconds: 1,
        registers: registers(),
    };
    assert_eq!(signal_of(&Ok(Outcome::Halted(255))), Some(libc::SIGABRT));
    assert_eq!(signal_of(&Err(broken)), Some(libc::SIGSEGV));
    assert_eq!(signal_of(&Err(failed)), Some(libc::SIGSEGV));
    assert_eq!(signal_of(&Err(timeout)), Some(libc::SIGALRM));
    for status in [0, 1, 2, 254] {
        assert_eq!(signal_of(&Ok(Outcome::Halted(status))), None);
    }
    assert_eq!(signal_of(&Ok(Outcome::Signal(libc::SIGTERM))), None);
    assert_eq!(
        signal_of(&Err(RunError::Start {
            cause: Box::new(Message::problem("x")),
            device: None
        })),
        None
    );
}
