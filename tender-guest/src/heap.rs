//! The heap: all free memory, as the global allocator.

use core::mem::MaybeUninit;
use core::slice;

use linked_list_allocator::LockedHeap;

use crate::Boot;

/// Not the host's, where this crate is compiled for `build.rs` and for its examples.
#[cfg_attr(target_os = "none", global_allocator)]
static HEAP: LockedHeap = LockedHeap::empty();

/// Passes the free memory to the allocator; until then every allocation fails.
#[cfg_attr(
    not(target_os = "none"),
    expect(dead_code, reason = "only a guest starts")
)]
pub fn init(boot: &Boot) {
    let memory = boot.free_memory();
    let (start, length) = (memory.as_mut_ptr().cast::<MaybeUninit<u8>>(), memory.len());
    // SAFETY: it is the same memory, of which nothing else has a reference.
    HEAP.lock()
        .init_from_slice(unsafe { slice::from_raw_parts_mut(start, length) });
}
