//! A large image that touches little, made from a small one at run time: committed images of some
//! MiB would also be seeds of the fuzz targets, and in the memory of every emulated machine.
//!
//! The last segment of the test unikernels, their zeroed data, has no bytes in the file. It gets
//! [`SIZE`] bytes there, as in a unikernel with that much initialised data: zeros where the program
//! has its own data, and a constant after that, which it never reads.

use std::fs;
use std::path::Path;

use crate::base::error::{Context, Result, fail};

/// Bytes of data: as many as the image of a small MirageOS unikernel has.
const SIZE: u64 = 4 << 20;

const CONSTANT: u8 = 0x5a;
const PAGE: usize = 4096;

const PT_LOAD: u64 = 1;

/// Offsets in an ELF file and in a program header.
const SEGMENTS: usize = 32;
const SEGMENT_SIZE: usize = 56;
const COUNT: usize = 56;
const OFFSET: usize = 8;
const FILE_SIZE: usize = 32;
const MEMORY_SIZE: usize = 40;

/// Writes a copy of the unikernel `from` with [`SIZE`] bytes of data to `to`.
pub fn make(from: &Path, to: &Path) -> Result<()> {
    let small = fs::read(from).context(format_args!("cannot read {}", from.display()))?;
    match enlarge(small) {
        Some(large) => fs::write(to, large).context(format_args!("cannot write {}", to.display())),
        None => fail(format!(
            "{} does not end with a segment without bytes in the file",
            from.display()
        )),
    }
}

fn enlarge(mut file: Vec<u8>) -> Option<Vec<u8>> {
    let first = number::<8>(&file, SEGMENTS)? as usize;
    let count = number::<2>(&file, COUNT)? as usize;
    let mut last = None;
    for header in (0..count).map(|index| first + index * SEGMENT_SIZE) {
        if number::<4>(&file, header)? == PT_LOAD {
            last = Some(header);
        }
    }
    let segment = last?;
    let zeroed = number::<8>(&file, segment + MEMORY_SIZE)?;
    if number::<8>(&file, segment + FILE_SIZE)? != 0 || zeroed > SIZE {
        return None;
    }
    let offset = file.len().next_multiple_of(PAGE);
    for (field, value) in [
        (OFFSET, offset as u64),
        (FILE_SIZE, SIZE),
        (MEMORY_SIZE, SIZE),
    ] {
        let at = segment + field;
        file.get_mut(at..at + 8)?
            .copy_from_slice(&value.to_le_bytes());
    }
    // The program's last page of data may hold a part of its heap, which is zero too.
    file.resize(offset + (zeroed as usize).next_multiple_of(PAGE), 0);
    file.resize(offset + SIZE as usize, CONSTANT);
    Some(file)
}

/// Reads a little-endian number of `N` bytes.
fn number<const N: usize>(file: &[u8], at: usize) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(file.get(at..at + N)?);
    Some(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of two segments, the last with `in_file` of 0x200 bytes in the file.
    fn small(in_file: u64) -> Vec<u8> {
        let mut file = vec![0; 64 + 2 * SEGMENT_SIZE];
        file[SEGMENTS] = 64;
        file[COUNT] = 2;
        for (index, [file_size, memory_size]) in [[3, 3], [in_file, 0x200]].iter().enumerate() {
            let header = 64 + index * SEGMENT_SIZE;
            file[header] = 1;
            file[header + FILE_SIZE..][..8].copy_from_slice(&file_size.to_le_bytes());
            file[header + MEMORY_SIZE..][..8].copy_from_slice(&memory_size.to_le_bytes());
        }
        file
    }

    #[test]
    fn the_last_segment_gets_its_bytes_at_the_end_of_the_file() {
        let large = enlarge(small(0)).unwrap();
        let last = 64 + SEGMENT_SIZE;
        assert_eq!(number::<8>(&large, last + OFFSET), Some(4096));
        assert_eq!(number::<8>(&large, last + FILE_SIZE), Some(SIZE));
        assert_eq!(number::<8>(&large, last + MEMORY_SIZE), Some(SIZE));
        assert_eq!(number::<8>(&large, 64 + FILE_SIZE), Some(3));
        assert_eq!(large.len() as u64, 4096 + SIZE);
        assert_eq!((large[4096 + 0xfff], large[4096 + 0x1000]), (0, CONSTANT));
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(enlarge(small(0x200)), None);
        assert_eq!(enlarge(small(0)[..100].to_vec()), None);
        assert_eq!(enlarge(vec![0; 64]), None);
    }
}
