//! Suggestions for unknown options, keys and paths.

/// Returns the one of `names` that `word` is most likely a misspelling of, if any is near enough:
/// about one letter in three is added, dropped, changed, or swapped with the next.
pub fn nearest<'w>(word: &str, names: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let length = word.chars().count();
    let most = length.div_ceil(3);
    let near = names.into_iter().filter_map(|candidate| {
        let distance = match candidate.chars().count().abs_diff(length) {
            longer if longer > most => longer,
            _ => strsim::osa_distance(word, candidate),
        };
        (distance <= most).then_some((distance, candidate))
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
pub(crate) fn meant<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    let longer = || {
        let begins = names.iter().copied().filter(|name| word.starts_with(name));
        begins.max_by_key(|name| name.len())
    };
    let other = || SYNONYMS.iter().find(|(other, _)| *other == word);
    let known = |(_, name): &(_, &str)| names.iter().copied().find(|known| known == name);
    nearest(word, names.iter().copied())
        .or_else(longer)
        .or_else(|| other().and_then(known))
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
}
