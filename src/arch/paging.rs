//! The guest's page tables, built by the tender: 4 KiB granule, four levels, 2 MiB blocks where a
//! whole block has one access. Both architectures use the same tree; only the descriptors differ.
//!
//! The tables enforce W^X: each 4 KiB page has the access of its segment, independent of the host's
//! page size.

use zerocopy::IntoBytes;

use crate::memory::{Access, Mapping, PAGE_SIZE};

/// Entries per table.
const ENTRIES: usize = 512;

/// Bytes covered by an entry of the second-last level.
const BLOCK_SIZE: u64 = PAGE_SIZE * ENTRIES as u64;

/// Position in an address of the index into each level's table, root first.
const SHIFTS: [u32; 4] = [39, 30, 21, 12];

/// Encoding of an architecture's descriptors. Addresses are aligned to what the descriptor covers.
pub(super) trait Format {
    /// Encodes a reference to the next table.
    fn table(address: u64) -> u64;
    /// Encodes a mapping of 4 KiB. `access` is never [`Access::None`].
    fn page(address: u64, access: Access) -> u64;
    /// Encodes a mapping of 2 MiB. `access` is never [`Access::None`].
    fn block(address: u64, access: Access) -> u64;
}

/// [`Format::page`] or [`Format::block`].
type Describe = fn(u64, Access) -> u64;

/// The image's permissions are so scattered that its tables exceed the memory reserved for them.
#[derive(Debug, PartialEq, Eq, miette::Diagnostic, thiserror::Error)]
#[error("the image's segments need more page tables than the {0} that fit below 0x10000")]
#[diagnostic(help("link it with fewer segments"))]
pub struct TablesFull(usize);

/// Page tables under construction: consecutive pages from `base`, the root first.
pub(super) struct Tables {
    base: u64,
    most: usize,
    entries: Vec<u64>,
}

impl Tables {
    /// Builds tables for `mappings`, for placement at `base` and ending before `limit`.
    pub(super) fn build<F: Format>(
        base: u64,
        limit: u64,
        mappings: &[Mapping],
    ) -> Result<Tables, TablesFull> {
        let most = ((limit - base) / PAGE_SIZE) as usize;
        let mut tables = Tables {
            base,
            most,
            entries: Vec::with_capacity(most * ENTRIES),
        };
        tables.allocate()?;
        for mapping in coalesce(mappings) {
            tables.map::<F>(&mapping)?;
        }
        Ok(tables)
    }

    /// Adds an empty table and returns its address.
    fn allocate(&mut self) -> Result<u64, TablesFull> {
        let index = self.entries.len() / ENTRIES;
        if index == self.most {
            return Err(TablesFull(self.most));
        }
        self.entries.resize(self.entries.len() + ENTRIES, 0);
        Ok(self.base + index as u64 * PAGE_SIZE)
    }

    fn map<F: Format>(&mut self, mapping: &Mapping) -> Result<(), TablesFull> {
        if mapping.access == Access::None {
            return Ok(());
        }
        let (mut address, end) = (mapping.range.start, mapping.range.end);
        while address < end {
            // Fill one run of descriptors per table: a walk for each descriptor would dominate the
            // cost.
            let whole_block = address % BLOCK_SIZE == 0 && end - address >= BLOCK_SIZE;
            let (level, size, describe) = if whole_block {
                (2, BLOCK_SIZE, F::block as Describe)
            } else {
                (3, PAGE_SIZE, F::page as Describe)
            };
            let count = ((end - address) / size) as usize;
            for entry in self.entries::<F>(address, level)?.iter_mut().take(count) {
                *entry = describe(address, mapping.access);
                address += size;
            }
        }
        Ok(())
    }

    /// Returns the descriptors from that of `address` to the end of its table at `level` (0 is the
    /// root). Creates the parent tables as needed.
    pub(super) fn entries<F: Format>(
        &mut self,
        address: u64,
        level: usize,
    ) -> Result<&mut [u64], TablesFull> {
        let mut table = 0;
        for shift in &SHIFTS[..level] {
            let slot = table * ENTRIES + index(address, *shift);
            if self.entries[slot] == 0 {
                self.entries[slot] = F::table(self.allocate()?);
            }
            table = ((self.entries[slot] & ADDRESS_BITS) - self.base) as usize / PAGE_SIZE as usize;
        }
        Ok(&mut self.entries[table * ENTRIES..][index(address, SHIFTS[level])..ENTRIES])
    }

    /// Returns the tables as they go to `base`. Host and guest are the same processor, with the
    /// same byte order.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.entries.as_bytes()
    }
}

/// Bits of a table descriptor that hold the next table's address, on both architectures.
const ADDRESS_BITS: u64 = 0x0000_ffff_ffff_f000;

fn index(address: u64, shift: u32) -> usize {
    (address >> shift) as usize % ENTRIES
}

/// Joins neighbours with the same access, so that blocks are as large as possible.
fn coalesce(mappings: &[Mapping]) -> Vec<Mapping> {
    let mut joined: Vec<Mapping> = Vec::with_capacity(mappings.len());
    for mapping in mappings {
        match joined.last_mut() {
            Some(last)
                if last.access == mapping.access && last.range.end == mapping.range.start =>
            {
                last.range.end = mapping.range.end;
            }
            _ => joined.push(mapping.clone()),
        }
    }
    joined
}

#[cfg(test)]
mod tests;
