use std::fs::{File, OpenOptions};
use std::io::Read;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};

use super::*;

const TEXT: &[u8] = b"Hello\0\xff\n";

fn memory() -> GuestMemory {
    let memory = GuestMemory::new(0x4000).unwrap();
    memory.place(GuestAddress(0x1000), TEXT).unwrap();
    memory
}

fn pipe() -> (File, File) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    (reader.into(), writer.into())
}

fn puts(console: &mut Console, addr: u64, len: u64) -> Result<u64, memory::RangeError> {
    console.puts(&memory(), GuestAddress(addr), len)
}

#[test]
fn bytes_arrive_unchanged() {
    let (mut reader, writer) = pipe();
    let mut console = Console::new(writer);
    puts(&mut console, 0x1000, TEXT.len() as u64).unwrap();
    puts(&mut console, 0x1001, 2).unwrap();
    assert_eq!(
        console.stats(),
        Stats {
            written_bytes: TEXT.len() as u64 + 2,
            ..Stats::default()
        }
    );
    drop(console);
    let mut seen = Vec::new();
    reader.read_to_end(&mut seen).unwrap();
    assert_eq!(seen, [TEXT, b"el"].concat());
}

#[test]
fn nothing_is_written_for_nothing() {
    // A descriptor that cannot be written would count an error.
    let mut console = Console::new(File::open("/dev/null").unwrap());
    puts(&mut console, 0x1000, 0).unwrap();
    assert_eq!(console.stats(), Stats::default());
}

#[test]
fn the_last_byte_of_memory_can_be_printed_and_no_further() {
    let mut console = Console::new(OpenOptions::new().write(true).open("/dev/null").unwrap());
    puts(&mut console, 0x3fff, 1).unwrap();
    assert!(matches!(
        puts(&mut console, 0x3fff, 2),
        Err(memory::RangeError::OutOfRange { .. })
    ));
    assert!(matches!(
        puts(&mut console, u64::MAX, 2),
        Err(memory::RangeError::OutOfRange { .. })
    ));
    assert_eq!(console.stats().written_bytes, 1);
}

#[test]
fn a_closed_reader_costs_the_guest_nothing() {
    let (reader, writer) = pipe();
    drop(reader);
    let mut console = Console::new(writer);
    puts(&mut console, 0x1000, 4).unwrap();
    puts(&mut console, 0x1000, 4).unwrap();
    assert_eq!(
        console.stats(),
        Stats {
            dropped_bytes: 8,
            closed: 2,
            ..Stats::default()
        }
    );
}

#[test]
fn a_full_disk_costs_the_guest_nothing() {
    let mut console = Console::new(OpenOptions::new().write(true).open("/dev/full").unwrap());
    puts(&mut console, 0x1000, 4).unwrap();
    assert_eq!(
        console.stats(),
        Stats {
            dropped_bytes: 4,
            full: 1,
            ..Stats::default()
        }
    );
}

#[test]
fn output_above_the_rate_is_dropped_and_counted() {
    let (mut reader, writer) = pipe();
    let mut console = Console::new(writer).limited(NonZeroU64::new(5));
    for _ in 0..3 {
        puts(&mut console, 0x1000, 4).unwrap();
    }
    let stats = console.stats();
    // A second allows five bytes; a slow machine may have taken longer.
    assert!((5..12).contains(&stats.written_bytes), "{stats:?}");
    assert_eq!(
        (stats.dropped_bytes, stats.excess_bytes),
        (12 - stats.written_bytes, 12 - stats.written_bytes)
    );
    drop(console);
    let mut seen = Vec::new();
    reader.read_to_end(&mut seen).unwrap();
    assert_eq!(seen.len() as u64, stats.written_bytes);
    assert_eq!(seen[..5], *b"HellH");
}

#[test]
fn output_longer_than_a_piece_arrives_whole() {
    let file = tempfile::tempfile().unwrap();
    let len = 2 * PIECE as u64 + 5;
    let memory = GuestMemory::new(4 << 20).unwrap();
    memory
        .place(GuestAddress(len - TEXT.len() as u64), TEXT)
        .unwrap();
    let mut console = Console::new(file.try_clone().unwrap());
    console.puts(&memory, GuestAddress(0), len).unwrap();
    assert_eq!(
        console.stats(),
        Stats {
            written_bytes: len,
            ..Stats::default()
        }
    );
    let mut end = [0; TEXT.len()];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut end, len - TEXT.len() as u64).unwrap();
    assert_eq!(
        (file.metadata().unwrap().len(), end.as_slice()),
        (len, TEXT)
    );
}

/// Returns the lines without their timestamps, each of which must be there, and nowhere else.
fn unstamped(seen: &[u8]) -> String {
    let lines = std::str::from_utf8(seen).unwrap().split_inclusive('\n');
    let text = |line: &str| {
        let (stamp, text) = line.split_at(lines::STAMP);
        assert!(stamp.starts_with("20") && stamp.ends_with("Z "), "{line:?}");
        text.to_owned()
    };
    lines.map(text).collect()
}

#[test]
fn lines_are_stamped_however_the_guest_splits_them() {
    let (mut reader, writer) = pipe();
    let mut console = Console::new(writer).stamped(true);
    let long = "x".repeat(3000);
    let text = format!("one\n\ntwo {long}\nthree");
    let memory = memory();
    memory.place(GuestAddress(0), text.as_bytes()).unwrap();
    for (start, end) in [
        (0, 2),
        (2, 4),
        (4, 7),
        (7, 7),
        (7, 3005),
        (3005, text.len() as u64),
    ] {
        console
            .puts(&memory, GuestAddress(start), end - start)
            .unwrap();
    }
    assert_eq!(
        console.stats(),
        Stats {
            written_bytes: text.len() as u64,
            ..Stats::default()
        }
    );
    drop(console);
    let mut seen = Vec::new();
    reader.read_to_end(&mut seen).unwrap();
    assert_eq!(unstamped(&seen), text);
}

#[test]
fn stamps_are_not_the_guests_output() {
    let mut console =
        Console::new(OpenOptions::new().write(true).open("/dev/full").unwrap()).stamped(true);
    puts(&mut console, 0x1000, 4).unwrap();
    assert_eq!(
        console.stats(),
        Stats {
            dropped_bytes: 4,
            full: 1,
            ..Stats::default()
        }
    );
}

/// Other processes may set O_NONBLOCK on a file that they share with `tender`.
#[test]
fn a_slow_reader_gets_every_byte_of_a_non_blocking_descriptor() {
    let (mut reader, writer) = pipe();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    let mut console = Console::new(writer);
    let len = 1 << 20;
    let reader = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        reader.read_to_end(&mut Vec::new()).unwrap() as u64
    });
    console
        .puts(&GuestMemory::new(len).unwrap(), GuestAddress(0), len)
        .unwrap();
    assert_eq!(
        console.stats(),
        Stats {
            written_bytes: len,
            ..Stats::default()
        }
    );
    drop(console);
    assert_eq!(reader.join().unwrap(), len);
}
