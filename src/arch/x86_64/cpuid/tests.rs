mod features;

use super::*;
use features::{Feature, HIDDEN, Place, SHOWN};

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

fn has((name, place, register, bit): Feature) -> (&'static str, bool) {
    (
        name,
        of_everything(place).is_some_and(|values| values[register] >> bit & 1 == 1),
    )
}

#[test]
fn forbidden_features_are_hidden() {
    assert_eq!(HIDDEN.map(has), HIDDEN.map(|(name, ..)| (name, false)));
}

#[test]
fn features_that_guests_use_are_kept() {
    assert_eq!(SHOWN.map(has), SHOWN.map(|(name, ..)| (name, true)));
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
