//! Every position of two adjacent mappings relative to the borders of blocks, of the tables above
//! them and of the address space. Tables have no other borders.

use super::*;

/// Pages at and around the boundaries of two blocks.
const EDGES: [u64; 8] = [0, 1, 511, 512, 513, 1023, 1024, 1025];

/// Addresses of those blocks: at the bottom, across a GiB, across the end of the largest memory, at
/// the end of the address space.
const BASES: [u64; 4] = [
    0,
    GIB - BLOCK_SIZE,
    4 * GIB - BLOCK_SIZE,
    (1 << 47) - 3 * BLOCK_SIZE,
];

const ACCESSES: [Access; 4] = [
    Access::None,
    Access::Read,
    Access::ReadWrite,
    Access::ReadExecute,
];

fn check(base: u64, pages: [u64; 3], accesses: [Access; 2]) {
    let [start, middle, end] = pages.map(|page| base + page * PAGE_SIZE);
    let mappings = [
        mapping(start, middle, accesses[0]),
        mapping(middle, end, accesses[1]),
    ];
    let tables =
        Tables::build::<Plain>(0x1000, 0x10000, &mappings).expect("at most three blocks are mixed");
    for page in 0..1026 {
        let address = base + page * PAGE_SIZE;
        assert_eq!(
            walk(&tables, address),
            wanted(&mappings, address),
            "{address:#x} in {mappings:x?}"
        );
    }
    if base > 0 {
        assert_eq!(walk(&tables, base - 1), None, "before {mappings:x?}");
    }
}

#[test]
fn mappings_end_exactly_at_every_border() {
    for base in BASES {
        for (first, &start) in EDGES.iter().enumerate() {
            for (second, &middle) in EDGES.iter().enumerate().skip(first + 1) {
                for &end in &EDGES[second + 1..] {
                    for (at, access) in ACCESSES.into_iter().enumerate() {
                        // Each with itself and its successor: only equality of the two matters.
                        check(base, [start, middle, end], [access, access]);
                        check(base, [start, middle, end], [access, ACCESSES[(at + 1) % 4]]);
                    }
                }
            }
        }
    }
}
