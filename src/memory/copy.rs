//! Small values across the border to guest memory, in as few instructions as there are words: every hypercall copies its
//! argument out and its answer in. For bulk data there are vm-memory's slices.
//!
//! Volatile, as the guest may write at the same moment: each word is read or written just once, whatever the other side does.

use zerocopy::Unalign;

const WORD: usize = size_of::<u64>();

/// Copies what lies at `from` into all of `to`.
///
/// # Safety
/// So many bytes at `from` can be read, and no Rust reference points to them.
#[inline]
pub unsafe fn out(from: *const u8, to: &mut [u8]) {
    let mut args = to.chunks_exact_mut(WORD);
    let mut at = from;
    for word in &mut args {
        // SAFETY: within what the caller vouches for; `Unalign` asks for no alignment.
        let value: Unalign<u64> = unsafe { at.cast::<Unalign<u64>>().read_volatile() };
        word.copy_from_slice(&value.into_inner().to_ne_bytes());
        at = at.wrapping_add(WORD);
    }
    for byte in args.into_remainder() {
        // SAFETY: as above.
        *byte = unsafe { at.read_volatile() };
        at = at.wrapping_add(1);
    }
}

/// Copies all of `from` to where `to` points.
///
/// # Safety
/// So many bytes at `to` can be written, and no Rust reference points to them.
#[inline]
pub unsafe fn into(to: *mut u8, from: &[u8]) {
    let mut args = from.chunks_exact(WORD);
    let mut at = to;
    for word in &mut args {
        let mut value = [0; WORD];
        value.copy_from_slice(word);
        // SAFETY: within what the caller vouches for; `Unalign` asks for no alignment.
        unsafe {
            at.cast::<Unalign<u64>>()
                .write_volatile(Unalign::new(u64::from_ne_bytes(value)))
        };
        at = at.wrapping_add(WORD);
    }
    let mut rest = args.remainder();
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
