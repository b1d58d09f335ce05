//! The arguments after the command: flags, `--name=value` or `--name value`, and everything after
//! `--`.

use std::path::PathBuf;

use crate::base::error::{Result, fail};

/// Options as typed; each command takes its options and then calls [`Options::finish`].
#[derive(Debug, Default)]
pub struct Options {
    args: Vec<String>,
    /// The arguments after `--`.
    pub rest: Vec<String>,
}

impl Options {
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Options::default();
        let mut after_dashes = false;
        for arg in args {
            match arg.as_str() {
                "--" if !after_dashes => after_dashes = true,
                _ if after_dashes => options.rest.push(arg),
                _ => options.args.push(arg),
            }
        }
        Ok(options)
    }

    /// Takes `--name`; returns whether it was given.
    pub fn flag(&mut self, name: &str) -> bool {
        let before = self.args.len();
        self.args.retain(|arg| arg != name);
        self.args.len() != before
    }

    /// Takes `--name value` or `--name=value`.
    pub fn value(&mut self, name: &str) -> Result<Option<String>> {
        let with_equals = format!("{name}=");
        let Some(at) = self
            .args
            .iter()
            .position(|arg| arg == name || arg.starts_with(&with_equals))
        else {
            return Ok(None);
        };
        let arg = self.args.remove(at);
        if let Some(value) = arg.strip_prefix(&with_equals) {
            return Ok(Some(value.into()));
        }
        if at == self.args.len() {
            return fail(format!("{name} needs a value; see 'cargo xtask help'"));
        }
        Ok(Some(self.args.remove(at)))
    }

    /// Takes `--name value`, which must be there.
    pub fn required(&mut self, name: &str) -> Result<PathBuf> {
        match self.value(name)? {
            Some(value) => Ok(value.into()),
            None => fail(format!("{name} is needed")),
        }
    }

    /// Takes the first argument that is no option. Call it after taking the values of options.
    pub fn positional(&mut self) -> Option<String> {
        let at = self.args.iter().position(|arg| !arg.starts_with('-'))?;
        Some(self.args.remove(at))
    }

    /// Rejects arguments that were not taken.
    pub fn finish(&self) -> Result<()> {
        match self.args.first() {
            None => Ok(()),
            Some(arg) => fail(format!(
                "unexpected argument '{arg}'; see 'cargo xtask help'"
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
    fn values_are_separate_or_after_an_equals_sign() {
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
    fn arguments_after_the_dashes_are_kept() {
        let mut options = parse("--once -- --once filter --");
        assert!(options.flag("--once"));
        assert!(!options.flag("--once"));
        assert_eq!(options.rest, ["--once", "filter", "--"]);
        options.finish().unwrap();
    }

    #[test]
    fn a_positional_argument_is_taken_once() {
        let mut options = parse("--once image");
        assert_eq!(options.positional().as_deref(), Some("image"));
        assert_eq!(options.positional(), None);
        assert!(options.flag("--once"));
        options.finish().unwrap();
    }

    #[test]
    fn unknown_arguments_are_refused() {
        assert!(parse("--onec").finish().is_err());
    }
}
