use super::*;

/// A leaf and a subleaf.
type Place = (u32, u32);

/// A hidden feature: its name or the reason, its leaf, its register (0 is eax) and its bit.
const FORBIDDEN: [(&str, Place, usize, u32); 62] = [
    ("dtes64", (1, 0), 2, 2),
    ("monitor", (1, 0), 2, 3),
    ("ds-cpl", (1, 0), 2, 4),
    ("vmx", (1, 0), 2, 5),
    ("smx", (1, 0), 2, 6),
    ("est", (1, 0), 2, 7),
    ("tm2", (1, 0), 2, 8),
    ("sdbg", (1, 0), 2, 11),
    ("pdcm", (1, 0), 2, 15),
    ("pcid", (1, 0), 2, 17),
    ("x2apic", (1, 0), 2, 21),
    ("tsc-deadline", (1, 0), 2, 24),
    ("hypervisor", (1, 0), 2, 31),
    ("mce", (1, 0), 3, 7),
    ("apic", (1, 0), 3, 9),
    ("sep", (1, 0), 3, 11),
    ("mtrr", (1, 0), 3, 12),
    ("mca", (1, 0), 3, 14),
    ("pat", (1, 0), 3, 16),
    ("ds", (1, 0), 3, 21),
    ("acpi", (1, 0), 3, 22),
    ("htt", (1, 0), 3, 28),
    ("tm", (1, 0), 3, 29),
    ("pbe", (1, 0), 3, 31),
    ("tsc-adjust", (7, 0), 1, 1),
    ("sgx", (7, 0), 1, 2),
    ("hle", (7, 0), 1, 4),
    ("invpcid", (7, 0), 1, 10),
    ("rtm", (7, 0), 1, 11),
    ("rdt-m", (7, 0), 1, 12),
    ("mpx", (7, 0), 1, 14),
    ("rdt-a", (7, 0), 1, 15),
    ("intel-pt", (7, 0), 1, 25),
    ("pku", (7, 0), 2, 3),
    ("waitpkg", (7, 0), 2, 5),
    ("cet-ss", (7, 0), 2, 7),
    ("tme", (7, 0), 2, 13),
    ("la57", (7, 0), 2, 16),
    ("key-locker", (7, 0), 2, 23),
    ("bus-lock-detect", (7, 0), 2, 24),
    ("enqcmd", (7, 0), 2, 29),
    ("sgx-lc", (7, 0), 2, 30),
    ("pks", (7, 0), 2, 31),
    ("cet-ibt", (7, 0), 3, 20),
    ("amx-tile", (7, 0), 3, 24),
    ("spec-ctrl", (7, 0), 3, 26),
    ("arch-capabilities", (7, 0), 3, 29),
    ("fred", (7, 1), 0, 17),
    ("lam", (7, 1), 0, 26),
    ("xsaves", (0xd, 1), 0, 3),
    ("xfd", (0xd, 1), 0, 4),
    ("svm", (0x8000_0001, 0), 2, 2),
    ("extapic", (0x8000_0001, 0), 2, 3),
    ("ibs", (0x8000_0001, 0), 2, 10),
    ("skinit", (0x8000_0001, 0), 2, 12),
    ("lwp", (0x8000_0001, 0), 2, 15),
    ("perfctr-core", (0x8000_0001, 0), 2, 23),
    ("mwaitx", (0x8000_0001, 0), 2, 29),
    ("syscall", (0x8000_0001, 0), 3, 11),
    ("fxsr-opt", (0x8000_0001, 0), 3, 25),
    ("rdpru", (0x8000_0008, 0), 1, 4),
    ("ibpb", (0x8000_0008, 0), 1, 12),
];

/// A feature that must stay, likewise.
const NEEDED: [(&str, Place, usize, u32); 24] = [
    ("sse3", (1, 0), 2, 0),
    ("pclmulqdq", (1, 0), 2, 1),
    ("ssse3", (1, 0), 2, 9),
    ("fma", (1, 0), 2, 12),
    ("cx16", (1, 0), 2, 13),
    ("sse4.2", (1, 0), 2, 20),
    ("popcnt", (1, 0), 2, 23),
    ("aes", (1, 0), 2, 25),
    ("xsave", (1, 0), 2, 26),
    ("avx", (1, 0), 2, 28),
    ("rdrand", (1, 0), 2, 30),
    ("fpu", (1, 0), 3, 0),
    ("tsc", (1, 0), 3, 4),
    ("msr", (1, 0), 3, 5),
    ("sse2", (1, 0), 3, 26),
    ("fsgsbase", (7, 0), 1, 0),
    ("avx2", (7, 0), 1, 5),
    ("avx512f", (7, 0), 1, 16),
    ("rdseed", (7, 0), 1, 18),
    ("sha", (7, 0), 1, 29),
    ("nx", (0x8000_0001, 0), 3, 20),
    ("rdtscp", (0x8000_0001, 0), 3, 27),
    ("lm", (0x8000_0001, 0), 3, 29),
    ("invariant-tsc", (0x8000_0007, 0), 3, 8),
];

fn entry((function, index): Place, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function,
        index,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    }
}

/// Returns the entries that `limit` keeps.
fn limited(entries: &[kvm_cpuid_entry2]) -> Vec<kvm_cpuid_entry2> {
    let mut cpuid = CpuId::from_entries(entries).unwrap();
    limit(&mut cpuid);
    cpuid.as_slice().to_vec()
}

/// Returns what is kept of a leaf of a processor with all features.
fn of_everything(place: Place) -> Option<[u32; 4]> {
    match limited(&[entry(place, [ALL; 4])])[..] {
        [] => None,
        [left] => {
            assert_eq!((left.function, left.index), place);
            Some([left.eax, left.ebx, left.ecx, left.edx])
        }
        _ => panic!("one entry has become several"),
    }
}

fn has((name, place, register, bit): (&str, Place, usize, u32)) -> (String, bool) {
    (
        name.to_string(),
        of_everything(place).is_some_and(|values| values[register] >> bit & 1 == 1),
    )
}

#[test]
fn forbidden_features_are_hidden() {
    assert_eq!(
        FORBIDDEN.map(has),
        FORBIDDEN.map(|(name, ..)| (name.to_string(), false))
    );
}

#[test]
fn features_that_guests_use_are_kept() {
    assert_eq!(
        NEEDED.map(has),
        NEEDED.map(|(name, ..)| (name.to_string(), true))
    );
}

#[test]
fn only_known_leaves_are_kept() {
    let classes = [
        0,
        0x2000_0000,
        0x4000_0000,
        0x4000_0100,
        0x8000_0000,
        0x8086_0000,
        0xc000_0000,
    ];
    let places = classes
        .into_iter()
        .flat_map(|class| (class..class + 0x40).flat_map(|leaf| (0..32).map(move |i| (leaf, i))));
    let passed: Vec<Place> = places
        .filter(|place| of_everything(*place).is_some())
        .collect();
    let with_subleaves = |leaf| move |subleaf| (leaf, subleaf);
    let mut expected = vec![
        (0, 0),
        (1, 0),
        (2, 0),
        (4, 0),
        (4, 1),
        (4, 2),
        (4, 3),
        (7, 0),
        (7, 1),
    ];
    expected.extend([0, 1, 2, 5, 6, 7].map(with_subleaves(0xd)));
    expected.extend([0x8000_0000, 0x8000_0001].map(|leaf| (leaf, 0)));
    // Leaves that are kept whole have no subleaves: KVM gives them number 0.
    expected.extend((0x8000_0002..=0x8000_0006).flat_map(|leaf| (0..32).map(with_subleaves(leaf))));
    expected.extend([0x8000_0007, 0x8000_0008].map(|leaf| (leaf, 0)));
    assert_eq!(passed, expected);
}

#[test]
fn there_is_one_processor_with_number_0() {
    assert_eq!(
        of_everything((1, 0)).map(|values| values[1]),
        Some(0xff00),
        "leaf 1 has a number or a count"
    );
    assert_eq!(
        of_everything((4, 0)).map(|values| values[0] & !0x3fff),
        Some(0),
        "others share a cache"
    );
    assert_eq!(
        of_everything((0x8000_0008, 0)).map(|values| values[2]),
        Some(0),
        "there are more cores"
    );
    assert_eq!(
        (
            of_everything((0xb, 0)),
            of_everything((0x1f, 0)),
            of_everything((0x8000_001e, 0))
        ),
        (None, None, None)
    );
}

#[test]
fn the_last_leaf_is_lowered_and_never_raised() {
    let last = |place, value| limited(&[entry(place, [value, 1, 0, 0])])[0].eax;
    assert_eq!(
        (last((0, 0), 0x24), last((0, 0), 0xd), last((0, 0), 7)),
        (0xd, 0xd, 7)
    );
    assert_eq!(
        (last((7, 0), 2), last((7, 0), 1), last((7, 0), 0)),
        (1, 1, 0)
    );
    let extended = (0x8000_0000, 0);
    assert_eq!(
        (last(extended, 0x8000_0028), last(extended, 0x8000_0004)),
        (0x8000_0008, 0x8000_0004)
    );
}

#[test]
fn only_vector_states_can_be_enabled() {
    assert_eq!(of_everything((0xd, 0)), Some([0xe7, ALL, ALL, 0]));
    assert_eq!(of_everything((0xd, 1)), Some([7, ALL, 0, 0]));
    assert_eq!(of_everything((0xd, 9)), None, "PKRU");
}

/// Kept entries have no additional bit, and their order and flags are unchanged.
#[test]
fn nothing_is_added() {
    let entries = [
        ((1, 0), [0xa0671, 0x0102_0800, 0x8120_2000, 0x0f8b_fbff]),
        ((3, 0), [0; 4]),
        ((7, 0), [2, 0x0180_2852, 0, 0]),
    ];
    let mut entries = entries.map(|(place, values)| entry(place, values));
    entries[2].flags = 1;
    let left = limited(&entries);
    assert_eq!(left.len(), 2, "a leaf without a bit needs no entry");
    assert_eq!(
        (left[0].eax, left[0].ebx, left[0].ecx, left[0].edx),
        (0xa0671, 0x0800, 0x2000, 0x078a_a17d)
    );
    assert_eq!(
        (left[1].function, left[1].flags, left[1].eax, left[1].ebx),
        (7, 1, 1, 0x0180_2040)
    );
}
