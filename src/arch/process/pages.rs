//! The guest's memory in the child: which host pages it has, with which permissions.

use std::ops::Range;

use crate::memory::{Access, Mapping};

/// Permissions of a piece of the child's memory, by guest-physical address. Both ends are multiples of
/// the host's page size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    /// Guest-physical addresses.
    pub range: Range<u64>,
    /// `PROT_…`.
    pub protection: i32,
}

/// Returns the permissions of each host page for a guest with these `mappings`, which are in
/// ascending order. A host page that is larger than the guest's gets the permissions of all its
/// pieces.
pub(super) fn pages(mappings: &[Mapping], page_size: u64) -> Vec<Pages> {
    let mut pages: Vec<Pages> = Vec::with_capacity(2 * mappings.len());
    for Mapping { range, access } in mappings {
        let protection = protection(*access);
        let mut start = range.start / page_size * page_size;
        let end = range.end.next_multiple_of(page_size);
        // The page that an earlier mapping shares with this one.
        if let Some(last) = pages.last_mut().filter(|last| start < last.range.end) {
            let shared = start..last.range.end.min(end);
            let both = last.protection | protection;
            last.range.end = start;
            start = shared.end;
            add(&mut pages, shared, both);
        }
        add(&mut pages, start..end, protection);
    }
    pages
}

/// Adds a piece; joins it with an equal neighbour.
fn add(pages: &mut Vec<Pages>, range: Range<u64>, protection: i32) {
    if pages.last().is_some_and(|last| last.range.is_empty()) {
        pages.pop();
    }
    match pages.last_mut() {
        _ if range.is_empty() => {}
        Some(last) if last.protection == protection && last.range.end == range.start => {
            last.range.end = range.end;
        }
        _ => pages.push(Pages { range, protection }),
    }
}

fn protection(access: Access) -> i32 {
    match access {
        Access::None => libc::PROT_NONE,
        Access::Read => libc::PROT_READ,
        Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        Access::ReadExecute => libc::PROT_READ | libc::PROT_EXEC,
        Access::All => libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
    }
}

/// Returns the first page that is writable and executable only because host pages are larger than
/// the guest's.
pub fn writable_code(mappings: &[Mapping], page_size: u64) -> Option<Range<u64>> {
    const BOTH: i32 = libc::PROT_WRITE | libc::PROT_EXEC;
    let is_both = |protection| protection & BOTH == BOTH;
    if mappings
        .iter()
        .any(|mapping| is_both(protection(mapping.access)))
    {
        return None;
    }
    let pages = pages(mappings, page_size);
    let page = pages.into_iter().find(|page| is_both(page.protection))?;
    Some(page.range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(range: Range<u64>, access: Access) -> Mapping {
        Mapping { range, access }
    }

    /// Text that ends, and data that begins, within a page of 16 KiB.
    fn image() -> [Mapping; 5] {
        [
            mapping(0..0x10000, Access::None),
            mapping(0x10000..0x10_0000, Access::Read),
            mapping(0x10_0000..0x10_9000, Access::ReadExecute),
            mapping(0x10_9000..0x10_b000, Access::Read),
            mapping(0x10_b000..0x20_0000, Access::ReadWrite),
        ]
    }

    #[test]
    fn pages_of_4_kib_have_the_rights_of_their_mappings() {
        let pages = pages(&image(), 0x1000);
        let rights: Vec<_> = pages
            .iter()
            .map(|page| (page.range.start, page.protection))
            .collect();
        assert_eq!(
            rights,
            [
                (0, 0),
                (0x10000, 1),
                (0x10_0000, 5),
                (0x10_9000, 1),
                (0x10_b000, 3)
            ]
        );
        assert!(
            pages
                .windows(2)
                .all(|two| two[0].range.end == two[1].range.start)
        );
        assert_eq!(writable_code(&image(), 0x1000), None);
    }

    #[test]
    fn larger_pages_have_the_rights_of_all_their_pieces() {
        let of = |size| {
            let pages = pages(&image(), size);
            let rights = pages.into_iter().map(|page| (page.range, page.protection));
            rights.collect::<Vec<_>>()
        };
        assert_eq!(
            of(0x4000),
            [
                (0..0x1_0000, 0),
                (0x1_0000..0x10_0000, 1),
                (0x10_0000..0x10_8000, 5),
                (0x10_8000..0x10_c000, 7),
                (0x10_c000..0x20_0000, 3),
            ]
        );
        assert_eq!(
            of(0x1_0000),
            [
                (0..0x1_0000, 0),
                (0x1_0000..0x10_0000, 1),
                (0x10_0000..0x11_0000, 7),
                (0x11_0000..0x20_0000, 3),
            ]
        );
        assert_eq!(writable_code(&image(), 0x4000), Some(0x10_8000..0x10_c000));
    }

    #[test]
    fn images_that_ask_for_it_cause_no_warning() {
        let mapped = [mapping(0..0x20_0000, Access::All)];
        assert_eq!(writable_code(&mapped, 0x1_0000), None);
    }
}
