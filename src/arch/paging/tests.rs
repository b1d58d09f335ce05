use proptest::prelude::*;

use super::*;

mod boundaries;

/// Readable descriptors: the address, the kind in bits 0-1, the access in bits 2-3.
struct Plain;

impl Format for Plain {
    fn table(address: u64) -> u64 {
        address | 1
    }
    fn page(address: u64, access: Access) -> u64 {
        address | 2 | (access as u64) << 2
    }
    fn block(address: u64, access: Access) -> u64 {
        address | 3 | (access as u64) << 2
    }
}

/// Returns the access that the tables give to `address`.
fn walk(tables: &Tables, address: u64) -> Option<Access> {
    let mut table = 0;
    for shift in SHIFTS {
        let word = tables.entries[table * ENTRIES + index(address, shift)];
        match word & 3 {
            0 => return None,
            1 => table = ((word & ADDRESS_BITS) - tables.base) as usize / PAGE_SIZE as usize,
            _ => {
                assert_eq!(
                    word & ADDRESS_BITS,
                    address & !((1 << shift) - 1),
                    "identity at {address:#x}"
                );
                let all = [
                    Access::None,
                    Access::Read,
                    Access::ReadWrite,
                    Access::ReadExecute,
                ];
                return all
                    .into_iter()
                    .find(|access| *access as u64 == (word >> 2) & 3);
            }
        }
    }
    None
}

fn mapping(start: u64, end: u64, access: Access) -> Mapping {
    Mapping {
        range: start..end,
        access,
    }
}

#[test]
fn every_page_gets_the_access_of_its_mapping() {
    let mappings = [
        mapping(0, 0x10000, Access::None),
        mapping(0x10000, 0x100000, Access::Read),
        mapping(0x100000, 0x345000, Access::ReadExecute),
        mapping(0x345000, 0x346000, Access::Read),
        mapping(0x346000, 0x4000000, Access::ReadWrite),
    ];
    let tables = Tables::build::<Plain>(0x1000, 0x10000, &mappings).unwrap();
    for page in (0..0x4200000).step_by(PAGE_SIZE as usize) {
        let expected = mappings
            .iter()
            .find(|mapping| mapping.range.contains(&page))
            .map(|mapping| mapping.access);
        assert_eq!(
            walk(&tables, page),
            expected.filter(|access| *access != Access::None),
            "at {page:#x}"
        );
    }
    // Root, 1 GiB, 2 MiB, and page tables for the two blocks whose access is mixed.
    assert_eq!(tables.entries.len(), 5 * ENTRIES);
}

#[test]
fn four_gib_of_one_access_take_blocks_only() {
    let tables =
        Tables::build::<Plain>(0x1000, 0x10000, &[mapping(0, 1 << 32, Access::ReadWrite)]).unwrap();
    assert_eq!(tables.entries.len(), 6 * ENTRIES);
    assert_eq!(walk(&tables, (1 << 32) - 1), Some(Access::ReadWrite));
    assert_eq!(walk(&tables, 1 << 32), None);
}

#[test]
fn neighbours_of_one_access_share_a_block() {
    let mappings = [
        mapping(0, 0x200000 - 0x1000, Access::ReadWrite),
        mapping(0x1ff000, 0x200000, Access::ReadWrite),
    ];
    let tables = Tables::build::<Plain>(0x1000, 0x10000, &mappings).unwrap();
    assert_eq!(tables.entries.len(), 3 * ENTRIES);
}

#[test]
fn too_many_mixed_blocks_are_refused() {
    let mappings: Vec<Mapping> = (0..20)
        .map(|i| mapping(i * BLOCK_SIZE, i * BLOCK_SIZE + PAGE_SIZE, Access::Read))
        .collect();
    assert_eq!(
        Tables::build::<Plain>(0x1000, 0x10000, &mappings).err(),
        Some(TablesFull(15))
    );
}

const GIB: u64 = 1 << 30;

/// Any access; most map something.
fn access() -> impl Strategy<Value = Access> {
    let all = [
        Access::None,
        Access::Read,
        Access::ReadWrite,
        Access::ReadExecute,
    ];
    proptest::sample::select(all.to_vec())
}

/// Ascending mappings from any address: gaps and lengths of a few pages, or of almost some blocks.
fn mappings() -> impl Strategy<Value = Vec<Mapping>> {
    let near_blocks =
        (0u64..3, -3i64..4).prop_map(|(blocks, by)| (blocks * 512).saturating_add_signed(by));
    let pages = || prop_oneof![2 => 0u64..6, 2 => near_blocks.clone(), 1 => 0u64..1200];
    let start = prop_oneof![
        Just(0),
        Just(GIB - 3 * PAGE_SIZE),
        Just(GIB - BLOCK_SIZE),
        (0u64..2000).prop_map(|page| page * PAGE_SIZE),
        (0u64..8).prop_map(|page| 4 * GIB - (page + 500) * PAGE_SIZE),
    ];
    let gap = prop_oneof![3 => Just(0), 1 => pages()];
    (
        start,
        proptest::collection::vec((gap, pages(), access()), 0..10),
    )
        .prop_map(|(start, pieces)| {
            let mut end = start;
            let mut mappings = Vec::new();
            for (gap, pages, access) in pieces {
                let start = end + gap * PAGE_SIZE;
                end = start + pages * PAGE_SIZE;
                mappings.push(Mapping {
                    range: start..end,
                    access,
                });
            }
            mappings.retain(|mapping| !mapping.range.is_empty());
            mappings
        })
}

/// Returns the access that `mappings` give to the page at `address`.
fn wanted(mappings: &[Mapping], address: u64) -> Option<Access> {
    let mapping = mappings
        .iter()
        .find(|mapping| mapping.range.contains(&address))?;
    Some(mapping.access).filter(|access| *access != Access::None)
}

/// From the page before the first mapping, if there is one, to the end of the block after the last.
fn around(mappings: &[Mapping]) -> std::ops::Range<u64> {
    let start = mappings.first().map_or(0, |mapping| mapping.range.start);
    let end = mappings.last().map_or(0, |mapping| mapping.range.end);
    start.saturating_sub(PAGE_SIZE)..end.next_multiple_of(BLOCK_SIZE) + BLOCK_SIZE
}

/// Returns how many tables are needed: one for the root and, where anything is mapped, one for
/// every 512 GiB, every GiB, and every 2 MiB of more than one access.
fn least_tables(mappings: &[Mapping]) -> usize {
    let range = around(mappings);
    let (mut directories, mut mixed) = (std::collections::BTreeSet::new(), 0);
    for block in (range.start / BLOCK_SIZE..range.end / BLOCK_SIZE).map(|block| block * BLOCK_SIZE)
    {
        let mut pages = (block..block + BLOCK_SIZE)
            .step_by(PAGE_SIZE as usize)
            .map(|page| wanted(mappings, page));
        let first = pages.next().flatten();
        let uniform = pages.clone().all(|page| page == first);
        if first.is_some() || !uniform {
            directories.insert((1, block / GIB));
            directories.insert((0, block / (512 * GIB)));
        }
        mixed += usize::from(!uniform);
    }
    1 + directories.len() + mixed
}

proptest! {
    #[test]
    fn tables_agree_with_any_mappings_page_by_page(mappings in mappings()) {
        let tables = Tables::build::<Plain>(0x1000, 0x100000, &mappings).expect("room for 255 tables");
        for page in around(&mappings).step_by(PAGE_SIZE as usize) {
            prop_assert_eq!(walk(&tables, page), wanted(&mappings, page), "at {:#x}", page);
            prop_assert_eq!(walk(&tables, page + PAGE_SIZE - 1), wanted(&mappings, page), "at the end of {:#x}", page);
        }
    }

    #[test]
    fn tables_use_the_minimal_number_of_pages(mappings in mappings()) {
        let least = least_tables(&mappings);
        let build = |tables: usize| Tables::build::<Plain>(0x1000, 0x1000 + tables as u64 * PAGE_SIZE, &mappings);
        prop_assert_eq!(build(least).map(|tables| tables.entries.len()).ok(), Some(least * ENTRIES));
        prop_assert_eq!(build(least - 1).err(), Some(TablesFull(least - 1)));
    }

    /// Written to memory and read back from their addresses.
    #[test]
    fn tables_refer_to_each_other_by_address(mappings in mappings(), base in (0u64..1000).prop_map(|page| page * PAGE_SIZE)) {
        let tables = Tables::build::<Plain>(base, base + 0x100000, &mappings).expect("room");
        let bytes = tables.as_bytes();
        prop_assert_eq!(bytes.len(), tables.entries.len() * 8);
        let tables_referred_to = tables.entries.iter().filter(|word| **word & 3 == 1).map(|word| word & ADDRESS_BITS);
        let expected: Vec<u64> = (1..tables.entries.len() / ENTRIES).map(|index| base + index as u64 * PAGE_SIZE).collect();
        let mut found: Vec<u64> = tables_referred_to.collect();
        found.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}
