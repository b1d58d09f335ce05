//! Suggestions for unknown options, keys and paths.

/// Returns the one of `names` that `word` is most likely a misspelling of, if any is near enough:
/// about one letter in three is added, dropped, changed, or swapped with the next.
pub fn nearest<'w>(word: &str, names: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let letters: Vec<char> = word.chars().collect();
    let most = letters.len().div_ceil(3);
    let near = names.into_iter().filter_map(|candidate| {
        let candidate_letters: Vec<char> = candidate.chars().collect();
        if candidate_letters.len().abs_diff(letters.len()) > most {
            return None;
        }
        Some((distance(&letters, &candidate_letters), candidate))
            .filter(|(distance, _)| *distance <= most)
    });
    near.min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Names that other programs use for these options and keys.
const SYNONYMS: [(&str, &str); 13] = [
    ("ram", "mem"),
    ("blk", "block"),
    ("nic", "net"),
    ("tap", "net"),
    ("kernel", "unikernel"),
    ("image", "unikernel"),
    ("cmdline", "args"),
    ("arguments", "args"),
    ("log", "log-format"),
    ("loglevel", "verbose"),
    ("log-level", "verbose"),
    ("log_level", "verbose"),
    ("prometheus", "metrics"),
];

/// Returns the one of `names`, those of options or keys, that `word` most likely means: a
/// misspelling, a prefix, or another program's name.
pub fn meant<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    let begins = |name: &&str| word.starts_with(name);
    let longer = || {
        names
            .iter()
            .copied()
            .filter(begins)
            .max_by_key(|name| name.len())
    };
    let other = || {
        SYNONYMS
            .iter()
            .find(|(other, _)| *other == word)
            .map(|(_, name)| *name)
    };
    let known = |name| names.iter().copied().find(|known| *known == name);
    nearest(word, names.iter().copied())
        .or_else(longer)
        .or_else(|| other().and_then(known))
}

/// Returns the edit distance: letters added, dropped, changed or swapped with the next.
fn distance(one: &[char], other: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let changed = above[j] + usize::from(a != b);
            let mut least = changed.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 6] = ["mem", "net", "net-mac", "net-ring", "block", "unikernel"];

    #[test]
    fn misspellings_have_a_suggestion() {
        let expected = [
            ("mme", "mem"),
            ("memm", "mem"),
            ("men", "mem"),
            ("net_mac", "net-mac"),
            ("netmac", "net-mac"),
            ("unikernal", "unikernel"),
            ("unkernel", "unikernel"),
            ("blcok", "block"),
        ];
        for (word, meant) in expected {
            assert_eq!(nearest(word, NAMES), Some(meant), "{word}");
        }
    }

    #[test]
    fn unrelated_names_have_no_suggestion() {
        for word in ["", "x", "frobnicate", "memory-size", &"n".repeat(5000)] {
            assert_eq!(nearest(word, NAMES), None, "{word}");
        }
    }

    #[test]
    fn distances() {
        let of = |one: &str, other: &str| {
            distance(
                &one.chars().collect::<Vec<_>>(),
                &other.chars().collect::<Vec<_>>(),
            )
        };
        for (one, other, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("ab", "ba", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(
                (of(one, other), of(other, one)),
                (expected, expected),
                "{one} {other}"
            );
        }
    }
}
