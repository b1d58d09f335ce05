//! Transfers between guest memory and files.

use super::*;

/// The read end and the write end of a pipe.
fn pipe() -> (File, File) {
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    (reader.into(), writer.into())
}

#[test]
fn bytes_go_through_a_pipe_and_back() {
    let memory = memory();
    memory
        .place(GuestAddress(0x1000), b"a frame")
        .expect("memory");
    let (mut reader, mut writer) = pipe();
    assert_eq!(
        memory
            .bytes(GuestAddress(0x1000), 7)
            .expect("memory")
            .write_to(writer.as_fd())
            .expect("room"),
        7
    );
    let mut got = [0; 7];
    reader.read_exact(&mut got).expect("7 bytes");
    assert_eq!(&got, b"a frame");

    writer.write_all(b"an answer").expect("room");
    let buffer = memory.buffer(GuestAddress(0x2000), 100).expect("memory");
    assert_eq!(buffer.read_from(reader.as_fd()).expect("bytes"), 9);
    assert_eq!(contents(&memory, 0x1fff, 11), b"\0an answer\0");
}

#[test]
fn a_read_stays_within_its_buffer() {
    let memory = memory();
    let (reader, mut writer) = pipe();
    writer.write_all(b"too long a frame").expect("room");
    let buffer = memory.buffer(GuestAddress(0x2000), 3).expect("memory");
    assert_eq!(buffer.read_from(reader.as_fd()).expect("bytes"), 3);
    assert_eq!(contents(&memory, 0x1ffe, 7), b"\0\0too\0\0");
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no such descriptors")]
fn errors_of_the_host_are_returned() {
    let memory = memory();
    let (reader, writer) = pipe();
    let bytes = memory.bytes(GuestAddress(0), 1).expect("memory");
    let buffer = memory.buffer(GuestAddress(0), 1).expect("memory");
    // Each end used in the wrong direction.
    assert_eq!(
        bytes
            .write_to(reader.as_fd())
            .expect_err("EBADF")
            .raw_os_error(),
        Some(libc::EBADF)
    );
    assert_eq!(
        buffer
            .read_from(writer.as_fd())
            .expect_err("EBADF")
            .raw_os_error(),
        Some(libc::EBADF)
    );
    assert_eq!(
        bytes
            .write_all_at(writer.as_fd(), 0)
            .expect_err("ESPIPE")
            .raw_os_error(),
        Some(libc::ESPIPE)
    );
    assert_eq!(
        buffer
            .read_exact_at(reader.as_fd(), 0)
            .expect_err("ESPIPE")
            .raw_os_error(),
        Some(libc::ESPIPE)
    );
}

#[test]
fn bytes_go_to_their_offset_in_a_file_and_back() {
    let memory = memory();
    let mut disk = file(b"................");
    memory
        .place(GuestAddress(SIZE - 4), b"data")
        .expect("memory");
    memory
        .bytes(GuestAddress(SIZE - 4), 4)
        .expect("memory")
        .write_all_at(disk.as_fd(), 6)
        .expect("room");
    let mut content = String::new();
    io::Seek::rewind(&mut disk).expect("a file");
    disk.read_to_string(&mut content).expect("text");
    assert_eq!(content, "......data......");

    memory
        .buffer(GuestAddress(0), 6)
        .expect("memory")
        .read_exact_at(disk.as_fd(), 5)
        .expect("bytes");
    assert_eq!(contents(&memory, 0, 7), b".data.\0");
    let beyond = memory
        .buffer(GuestAddress(0), 6)
        .expect("memory")
        .read_exact_at(disk.as_fd(), 11);
    assert_eq!(
        beyond.expect_err("the end").kind(),
        io::ErrorKind::UnexpectedEof
    );
}

#[test]
fn more_than_a_piece_is_moved_completely() {
    let size = 3 * PIECE as u64;
    let memory = GuestMemory::new(size).expect("memory");
    let pattern: Vec<u8> = (0..size as usize)
        .map(|i| (i * 7 + i / PIECE) as u8)
        .collect();
    memory.place(GuestAddress(0), &pattern).expect("memory");
    let len = size - 9;
    let disk = tempfile::tempfile().expect("a file");
    memory
        .bytes(GuestAddress(9), len)
        .expect("memory")
        .write_all_at(disk.as_fd(), 3)
        .expect("room");
    memory
        .buffer(GuestAddress(0), len)
        .expect("memory")
        .read_exact_at(disk.as_fd(), 3)
        .expect("bytes");
    assert!(contents(&memory, 0, len as usize) == pattern[9..]);
}

#[test]
fn the_first_bytes_are_no_more_than_there_are() {
    let memory = memory();
    let bytes = memory.bytes(GuestAddress(8), 8).expect("memory");
    assert_eq!(
        [0, 3, 8, 9, usize::MAX].map(|len| bytes.first(len).len()),
        [0, 3, 8, 8, 8]
    );
}

#[test]
fn skipping_stops_at_the_end() {
    let memory = memory();
    memory.place(GuestAddress(0), b"abcdef").expect("memory");
    let bytes = memory.bytes(GuestAddress(0), 4).expect("memory");
    let mut rest = [0; 8];
    assert_eq!(bytes.skip(1).copy_to(&mut rest), 3);
    assert_eq!(&rest, b"bcd\0\0\0\0\0");
    assert_eq!(
        (
            bytes.skip(0).len(),
            bytes.skip(4).len(),
            bytes.skip(5).len(),
            bytes.skip(usize::MAX).len()
        ),
        (4, 0, 0, 0)
    );
    assert!(bytes.skip(4).is_empty() && !bytes.skip(3).is_empty());
}

#[test]
fn a_copy_is_as_long_as_the_shorter_side() {
    let memory = memory();
    memory.place(GuestAddress(0), b"abcdef").expect("memory");
    let mut target = [0; 2];
    assert_eq!(
        memory
            .bytes(GuestAddress(0), 6)
            .expect("memory")
            .copy_to(&mut target),
        2
    );
    assert_eq!(&target, b"ab");
}
