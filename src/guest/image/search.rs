//! Searches a file for byte patterns without loading it whole.

use std::ops::Range;

use super::{Error, Source, fill};

/// Files are searched in pieces of this size, each beginning with the end of the previous one.
pub(super) const PIECE: usize = 64 * 1024;

/// Overlap between pieces; patterns must be shorter than this.
pub(super) const OVERLAP: usize = 64;

/// Most bytes of a file that are searched; unikernels are smaller.
const MOST: u64 = 256 << 20;

/// Calls `examine` with the bytes of these ranges of the file, piece by piece, each with its offset
/// in the file. Every pattern shorter than [`OVERLAP`] bytes is whole in at least one piece.
///
/// # Errors
/// The file cannot be read. An early end of the file is not an error.
pub fn search(
    source: &(impl Source + ?Sized),
    ranges: impl IntoIterator<Item = Range<u64>>,
    mut examine: impl FnMut(u64, &[u8]),
) -> Result<(), Error> {
    let mut piece = vec![0; PIECE];
    let mut budget = MOST;
    for range in ranges {
        let size = range.end.saturating_sub(range.start).min(budget);
        budget -= size;
        let mut offset = range.start;
        let end = range.start.saturating_add(size);
        while offset < end {
            let wanted = usize::try_from(end - offset).unwrap_or(PIECE).min(PIECE);
            let count = fill(source, offset, &mut piece[..wanted])?;
            examine(offset, &piece[..count]);
            if count < PIECE {
                break;
            }
            offset += (PIECE - OVERLAP) as u64;
        }
    }
    Ok(())
}
