//! Suggestions for unknown names and paths.

use std::fs;
use std::path::{Path, PathBuf};

/// Most entries of a directory that [`similar_path`] reads.
const MOST_ENTRIES: usize = 1000;

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

/// Returns the path in the same directory with the most similar other name, among its first
/// [`MOST_ENTRIES`] entries. A link that leads nowhere has the name itself.
pub fn similar_path(path: &Path) -> Option<PathBuf> {
    let directory = path.parent()?;
    let entries = fs::read_dir(directory.join(".")).ok()?.take(MOST_ENTRIES);
    let name = path.file_name()?.to_str()?;
    let names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|other| other != name)
        .collect();
    Some(directory.join(nearest(name, names.iter().map(String::as_str))?))
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
    fn a_path_is_similar_to_another_name_only() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("app.hvt"), "").unwrap();
        assert_eq!(similar_path(&at("ap.hvt")), Some(at("app.hvt")));
        assert_eq!(similar_path(&at("app.hvt")), None);
    }

    #[test]
    fn only_the_first_entries_of_a_directory_are_read() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..2 * MOST_ENTRIES {
            fs::write(directory.path().join(format!("{number:04}.img")), "").unwrap();
        }
        // Their order is that of the file system.
        let entries = fs::read_dir(directory.path()).unwrap().flatten();
        let paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        let is_found = |path: &Path| {
            let mistyped = path.with_extension("imgx");
            similar_path(&mistyped).as_deref() == Some(path)
        };
        assert!(is_found(&paths[0]));
        assert!(!is_found(&paths[2 * MOST_ENTRIES - 1]));
    }
}
