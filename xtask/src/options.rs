//! The words after the command: flags, `--name=value` or `--name value`, and everything after `--`.

use crate::error::{Result, fail};

/// Options as typed; each command takes those it knows and then calls [`Options::finish`].
#[derive(Debug, Default)]
pub struct Options {
    args: Vec<String>,
    /// What stood after `--`.
    pub rest: Vec<String>,
}

impl Options {
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Options::default();
        let mut after_dashes = false;
        for word in args {
            match word.as_str() {
                "--" if !after_dashes => after_dashes = true,
                _ if after_dashes => options.rest.push(word),
                _ => options.args.push(word),
            }
        }
        Ok(options)
    }

    /// Takes `--name`; true where it was given.
    pub fn flag(&mut self, name: &str) -> bool {
        let before = self.args.len();
        self.args.retain(|word| word != name);
        self.args.len() != before
    }

    /// Takes `--name value` or `--name=value`.
    pub fn value(&mut self, name: &str) -> Result<Option<String>> {
        let with_equals = format!("{name}=");
        let Some(at) = self
            .args
            .iter()
            .position(|word| word == name || word.starts_with(&with_equals))
        else {
            return Ok(None);
        };
        let word = self.args.remove(at);
        if let Some(value) = word.strip_prefix(&with_equals) {
            return Ok(Some(value.into()));
        }
        if at == self.args.len() {
            return fail(format!("{name} needs a value; see 'cargo xtask help'"));
        }
        Ok(Some(self.args.remove(at)))
    }

    /// Takes the first word that is no option. To be asked for after the values of options have been taken.
    pub fn word(&mut self) -> Option<String> {
        let at = self.args.iter().position(|word| !word.starts_with('-'))?;
        Some(self.args.remove(at))
    }

    /// Refuses what no one took.
    pub fn finish(&self) -> Result<()> {
        match self.args.first() {
            None => Ok(()),
            Some(word) => fail(format!(
                "'{word}' is not known to this command; see 'cargo xtask help'"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Options {
        Options::parse(line.split_whitespace().map(String::from)).unwrap()
    }

    #[test]
    fn values_stand_apart_or_after_an_equals_sign() {
        assert_eq!(
            parse("--machine pi3")
                .value("--machine")
                .unwrap()
                .as_deref(),
            Some("pi3")
        );
        assert_eq!(
            parse("--machine=virt")
                .value("--machine")
                .unwrap()
                .as_deref(),
            Some("virt")
        );
        assert_eq!(parse("--once").value("--machine").unwrap(), None);
        assert!(parse("--machine").value("--machine").is_err());
    }

    #[test]
    fn words_after_the_dashes_are_not_ours() {
        let mut options = parse("--once -- --once filter --");
        assert!(options.flag("--once"));
        assert!(!options.flag("--once"));
        assert_eq!(options.rest, ["--once", "filter", "--"]);
        options.finish().unwrap();
    }

    #[test]
    fn a_plain_word_is_taken_once() {
        let mut options = parse("--once image");
        assert_eq!(options.word().as_deref(), Some("image"));
        assert_eq!(options.word(), None);
        assert!(options.flag("--once"));
        options.finish().unwrap();
    }

    #[test]
    fn unknown_words_are_refused() {
        assert!(parse("--onec").finish().is_err());
    }
}
