//! Every byte of the ranges is seen, and patterns shorter than the overlap are seen whole.
#![allow(
    clippy::single_range_in_vec_init,
    reason = "a file is searched in as many ranges as it has, one at times"
)]

use std::cell::Cell;

use proptest::prelude::*;

use super::super::search::{OVERLAP, PIECE};
use super::*;

/// Returns the pieces that are seen of a file of so many bytes, each of which encodes its offset.
fn seen(size: usize, ranges: Vec<Range<u64>>) -> Vec<(u64, usize)> {
    let file: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    let mut pieces = Vec::new();
    search(file.as_slice(), ranges, |offset, piece| {
        assert_eq!(piece, &file[offset as usize..][..piece.len()]);
        pieces.push((offset, piece.len()));
    })
    .expect("bytes in memory can be read");
    pieces
}

#[test]
fn a_range_is_seen_in_pieces_that_overlap() {
    let step = (PIECE - OVERLAP) as u64;
    assert_eq!(seen(3 * PIECE, vec![10..20]), [(10, 10)]);
    assert_eq!(
        seen(3 * PIECE, vec![0..PIECE as u64 + 1]),
        [(0, PIECE), (step, OVERLAP + 1)]
    );
    assert_eq!(seen(3 * PIECE, vec![5..6, 0..0, 1..3]), [(5, 1), (1, 2)]);
    #[allow(clippy::reversed_empty_ranges, reason = "a hostile file has those")]
    let reversed = vec![9..3];
    assert_eq!(seen(100, reversed), []);
}

#[test]
fn a_file_that_ends_early_is_seen_as_far_as_it_goes() {
    assert_eq!(seen(100, vec![90..u64::MAX]), [(90, 10)]);
    assert_eq!(seen(100, vec![100..200]), [(100, 0)]);
}

/// Endless zeros, and the number of reads.
struct Endless(Cell<u64>);

impl Source for Endless {
    fn size(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn read_at(&self, _offset: u64, target: &mut [u8]) -> io::Result<usize> {
        self.0.set(self.0.get() + target.len() as u64);
        Ok(target.len())
    }
}

#[test]
fn the_search_has_a_limit() {
    let endless = Endless(Cell::new(0));
    search(&endless, [0..u64::MAX / 2, 0..u64::MAX], |_, _| {}).expect("zeros");
    assert!(
        (256 << 20..260 << 20).contains(&endless.0.get()),
        "{}",
        endless.0.get()
    );
}

#[test]
fn a_read_error_is_returned() {
    struct Broken;
    impl Source for Broken {
        fn size(&self) -> io::Result<u64> {
            Ok(1)
        }
        fn read_at(&self, _offset: u64, _target: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    }
    assert!(matches!(
        search(&Broken, [0..1], |_, _| {}),
        Err(Error::Io(_))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn patterns_shorter_than_the_overlap_are_seen_whole(start in 0u64..100, size in 1usize..3 * PIECE, len in 1usize..=OVERLAP) {
        let pieces = seen(3 * PIECE + 100, vec![start..start + size as u64]);
        for at in (start..(start + size as u64).saturating_sub(len as u64)).step_by(7) {
            let whole = |&(offset, count): &(u64, usize)| offset <= at && at + len as u64 <= offset + count as u64;
            prop_assert!(pieces.iter().any(whole), "{len} bytes at {at}");
        }
    }
}
