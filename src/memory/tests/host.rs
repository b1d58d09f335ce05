//! Huge pages and locked memory.

use super::*;

/// Returns the advice about huge pages (`nh`: none, `hg`: huge pages) for the page at `addr`.
fn advice(memory: &GuestMemory, addr: u64) -> String {
    let smaps = fs::read_to_string("/proc/self/smaps").expect("this process has mappings");
    let address = memory.host_address() + addr;
    let contains = |line: &&str| {
        let range = line.split(' ').next().and_then(|word| word.split_once('-'));
        let number = |text| u64::from_str_radix(text, 16).ok();
        let range = range.and_then(|(start, end)| Some(number(start)?..number(end)?));
        range.is_some_and(|range| range.contains(&address))
    };
    let mut lines = smaps.lines().skip_while(|line| !contains(line));
    let flags = lines.find_map(|line| line.strip_prefix("VmFlags:"));
    let mut flags = flags.expect("its flags").split_whitespace();
    let advice = flags.find(|flag| ["nh", "hg"].contains(flag));
    advice.unwrap_or_default().to_owned()
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not support madvise")]
fn huge_pages_are_advised_by_choice_size_and_place() {
    const MIB: u64 = 1 << 20;
    let has_huge_pages = Path::new("/sys/kernel/mm/transparent_hugepage").exists();
    for (choice, size, [image, heap, stack]) in [
        (HugePages::Auto, 2 * MIB, ["nh"; 3]),
        (HugePages::Auto, SMALL, ["nh"; 3]),
        (HugePages::Auto, SMALL + 2 * MIB, ["nh", "", "nh"]),
        (HugePages::On, 2 * MIB, ["hg"; 3]),
        (HugePages::On, SMALL + 2 * MIB, ["hg"; 3]),
        (HugePages::Off, SMALL + 2 * MIB, ["nh"; 3]),
    ] {
        let memory = GuestMemory::new(size).expect("memory");
        memory.huge_pages(choice, 5 * MIB);
        for (addr, expected) in [
            (0, image),
            (6 * MIB - 1, image),
            (6 * MIB, heap),
            ((size - 2 * MIB).wrapping_sub(1), heap),
            (size - 2 * MIB, stack),
            (size - 1, stack),
        ] {
            // The smallest guest has no heap of whole huge pages.
            let expected = if has_huge_pages { expected } else { "" };
            if addr < size {
                let found = advice(&memory, addr);
                assert_eq!(found, expected, "{choice:?}, {size:#x}, {addr:#x}");
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not support madvise")]
fn an_image_may_end_anywhere() {
    let size = SMALL + (2 << 20);
    for image_end in [1, size - 1, size, u64::MAX] {
        let memory = GuestMemory::new(size).expect("memory");
        memory.huge_pages(HugePages::Auto, image_end);
        let (last, stack) = (image_end.min(size) - 1, size - 1);
        assert_eq!(
            advice(&memory, last),
            advice(&memory, stack),
            "{image_end:#x}"
        );
    }
}

#[test]
fn locked_memory_is_resident() {
    let memory = GuestMemory::new(SIZE).expect("memory");
    match memory.lock() {
        Ok(()) => assert_eq!(contents(&memory, SIZE - 4, 4), [0; 4]),
        Err(error) => assert!(
            Message::of(&error)
                .to_string()
                .contains("RLIMIT_MEMLOCK is "),
            "{error}"
        ),
    }
}
