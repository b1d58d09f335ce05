//! Copies of small values to and from guest memory in few instructions: every hypercall copies its
//! argument out and its result in. Bulk data uses vm-memory's slices.
//!
//! Accesses are volatile, because the guest may write concurrently: each word is read or written
//! exactly once.

use zerocopy::Unalign;

const WORD: usize = size_of::<u64>();

/// Copies `to.len()` bytes from `from`.
///
/// # Safety
/// That many bytes at `from` are readable, and no Rust reference points to them.
#[inline]
pub unsafe fn out(from: *const u8, to: &mut [u8]) {
    let mut chunks = to.chunks_exact_mut(WORD);
    let mut at = from;
    for word in &mut chunks {
        // SAFETY: within the range that the caller guarantees; `Unalign` needs no alignment.
        let value: Unalign<u64> = unsafe { at.cast::<Unalign<u64>>().read_volatile() };
        word.copy_from_slice(&value.into_inner().to_ne_bytes());
        at = at.wrapping_add(WORD);
    }
    for byte in chunks.into_remainder() {
        // SAFETY: as above.
        *byte = unsafe { at.read_volatile() };
        at = at.wrapping_add(1);
    }
}

/// Copies all of `from` to `to`.
///
/// # Safety
/// That many bytes at `to` are writable, and no Rust reference points to them.
#[inline]
pub unsafe fn into(to: *mut u8, from: &[u8]) {
    let mut chunks = from.chunks_exact(WORD);
    let mut at = to;
    for word in &mut chunks {
        let mut value = [0; WORD];
        value.copy_from_slice(word);
        // SAFETY: within the range that the caller guarantees; `Unalign` needs no alignment.
        unsafe {
            at.cast::<Unalign<u64>>()
                .write_volatile(Unalign::new(u64::from_ne_bytes(value)))
        };
        at = at.wrapping_add(WORD);
    }
    let mut rest = chunks.remainder();
    if let Some((half, after)) = rest.split_first_chunk() {
        // SAFETY: as above.
        unsafe {
            at.cast::<Unalign<u32>>()
                .write_volatile(Unalign::new(u32::from_ne_bytes(*half)))
        };
        at = at.wrapping_add(half.len());
        rest = after;
    }
    for byte in rest {
        // SAFETY: as above.
        unsafe { at.write_volatile(*byte) };
        at = at.wrapping_add(1);
    }
}
