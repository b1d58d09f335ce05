//! Guest memory as a whole.

use tender::memory::{GuestAddress, GuestMemory};

/// Returns a copy of all of it.
pub fn contents(memory: &GuestMemory) -> Vec<u8> {
    let mut bytes = vec![0; memory.size() as usize];
    memory
        .bytes(GuestAddress(0), memory.size())
        .expect("all of it")
        .copy_to(&mut bytes);
    bytes
}
