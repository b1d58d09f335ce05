//! The one timestamp in a package: that of the sources, not of the build.

use std::process::Command;

use crate::base::error::{Context, Result, fail};
use crate::base::process;
use crate::build::cargo;

/// Seconds since 1970: `SOURCE_DATE_EPOCH` if set, otherwise of the last commit, otherwise of the
/// newest release in the changelog.
pub fn epoch() -> Result<u64> {
    if let Some(set) = std::env::var_os("SOURCE_DATE_EPOCH") {
        let text = set.to_string_lossy();
        return text.parse().context(format_args!(
            "SOURCE_DATE_EPOCH={text} is no number of seconds"
        ));
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"])
        .current_dir(cargo::root());
    if let Ok(text) = process::output(&mut git) {
        return text
            .trim()
            .parse()
            .context("git printed no time of the last commit");
    }
    let changelog = std::fs::read_to_string(cargo::root().join("CHANGELOG.md"))
        .context("cannot read CHANGELOG.md")?;
    match newest_release(&changelog) {
        Some(date) => formatted(&["--date", date], "%s")?
            .parse()
            .context("date(1) printed no number"),
        None => {
            fail("neither git nor CHANGELOG.md has a time for the packages; set SOURCE_DATE_EPOCH")
        }
    }
}

/// `epoch` in UTC, as date(1) writes it in `format`.
pub fn date(epoch: u64, format: &str) -> Result<String> {
    formatted(&["--date", &format!("@{epoch}")], format)
}

fn formatted(arguments: &[&str], format: &str) -> Result<String> {
    let mut date = Command::new("date");
    date.arg("--utc")
        .args(arguments)
        .arg(format!("+{format}"))
        .env("LC_ALL", "C");
    Ok(process::output(&mut date)?.trim().to_string())
}

/// The date in the first heading such as `## [0.1.0] - 2026-01-31`.
fn newest_release(changelog: &str) -> Option<&str> {
    changelog
        .lines()
        .filter(|line| line.starts_with("## ["))
        .find_map(|line| line.split_once("] - "))?
        .1
        .get(..10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_has_the_time_without_git() {
        let text = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-02-01\n\n## [0.1.0] - 2026-01-31\n";
        assert_eq!(newest_release(text), Some("2026-02-01"));
        assert_eq!(newest_release("## [Unreleased]\n"), None);
    }

    #[test]
    fn times_are_in_utc() {
        assert_eq!(date(86400, "%F %T").unwrap(), "1970-01-02 00:00:00");
    }
}
