//! Suggestions for unknown options and keys.

use crate::host::similar::nearest;

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
