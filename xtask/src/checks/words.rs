//! Counts the phrases of `xtask/words.txt` in the sources and documents, and compares the sum with
//! the budget there.

use std::fs;
use std::path::{Path, PathBuf};

use crate::base::error::{Context, Result, fail};
use crate::base::options::Options;
use crate::build::cargo::root;

/// The files and directories to read.
const PLACES: [&str; 12] = [
    "src",
    "examples",
    "guest-abi/src",
    "manual/src",
    "xtask/src",
    "xtask/floor/src",
    "tests",
    "fixtures",
    "fuzz/src",
    "docs",
    "packaging",
    "README.md",
];

/// The file extensions to read.
const KINDS: [&str; 4] = ["rs", "md", "toml", "service"];

/// Prints how often each phrase occurs.
pub fn run(options: &mut Options) -> Result<()> {
    options.finish()?;
    let list = fs::read_to_string(root().join("xtask/words.txt")).context("xtask/words.txt")?;
    let (budget, phrases) = parse(&list)?;
    let mut texts = Vec::new();
    for place in PLACES {
        read(&root().join(place), &mut texts)?;
    }
    let mut sum = 0;
    for phrase in phrases {
        let places: Vec<_> = texts
            .iter()
            .map(|(path, text)| (count(text, phrase), path))
            .collect();
        let total: usize = places.iter().map(|(count, _)| count).sum();
        if let Some((_, path)) = places
            .iter()
            .max_by_key(|(count, _)| count)
            .filter(|_| total > 0)
        {
            let path = path.strip_prefix(root()).unwrap_or(path);
            println!("{total:5}  {phrase:16} most in {}", path.display());
        }
        sum += total;
    }
    println!("{sum:5}  in all; the budget is {budget}");
    if sum > budget {
        return fail(format!(
            "{} phrases more than xtask/words.txt allows; see docs/style.md",
            sum - budget
        ));
    }
    Ok(())
}

/// Parses the budget and the phrases.
fn parse(list: &str) -> Result<(usize, Vec<&str>)> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let mut lines = lines.filter(|line| !line.is_empty());
    let budget = lines.next().and_then(|line| line.strip_prefix("budget "));
    match budget.and_then(|number| number.parse().ok()) {
        Some(budget) => Ok((budget, lines.collect())),
        None => fail("xtask/words.txt: the first line must be 'budget NUMBER'"),
    }
}

fn read(path: &Path, texts: &mut Vec<(PathBuf, String)>) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path).context(path.display())? {
            let path = entry.context(path.display())?.path();
            let is_built = path.ends_with("target")
                || path.ends_with("bin")
                    && path
                        .parent()
                        .is_some_and(|parent| parent.ends_with("fixtures"));
            if !is_built {
                read(&path, texts)?;
            }
        }
    } else if path
        .extension()
        .is_some_and(|kind| KINDS.iter().any(|known| kind == *known))
    {
        let text = fs::read_to_string(path).context(path.display())?;
        texts.push((path.to_owned(), text));
    }
    Ok(())
}

/// Counts `phrase` in `text` as whole words, ignoring case; a line break or a `_` in a name is a
/// space.
fn count(text: &str, phrase: &str) -> usize {
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let phrase: Vec<&str> = phrase.split(' ').collect();
    words
        .windows(phrase.len())
        .filter(|window| *window == phrase)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_counted_as_words() {
        let text = "Told at\n/// once, at_once; untold. AT ONCE";
        assert_eq!((count(text, "told"), count(text, "at once")), (1, 3));
    }

    #[test]
    fn the_budget_comes_first() {
        assert_eq!(parse("# x\nbudget 3\na b\n").unwrap(), (3, vec!["a b"]));
        assert!(parse("told\n").is_err());
    }
}
