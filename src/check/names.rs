//! Splits messages into the finding and its fix. Both can contain names that others chose, such as
//! paths, and those can contain the separator.

use crate::config::{BlockSource, Config, StatsTarget};
use crate::guest::manifest::Manifest;

/// What separates a finding from its fix.
const SEPARATOR: &str = "; ";

/// Known names, with what encloses them in messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// At the beginning of a message.
    prefixes: Vec<String>,
    /// Anywhere in a message.
    phrases: Vec<String>,
}

impl Names {
    /// Collects the names in a configuration.
    pub(super) fn of(config: &Config) -> Names {
        let (output, debugging) = (&config.output, &config.debugging);
        let unikernel = config.unikernel.display().to_string();
        let disks = config
            .blocks
            .iter()
            .filter_map(|block| match &block.source {
                Some(BlockSource::Path(path)) => Some(path),
                _ => None,
            });
        let stats = output.stats.iter().filter_map(|target| match target {
            StatsTarget::File(path) => Some(path),
            StatsTarget::Stderr => None,
        });
        let files = disks.chain(stats).chain(&config.chroot);
        let files = files.chain(&debugging.dumpcore);
        let files = files.map(|path| path.display().to_string());
        let sockets = output.metrics.iter().chain(debugging.socket());
        let mut names: Vec<String> = files.chain(sockets.map(ToString::to_string)).collect();
        names.push(unikernel.clone());
        names.extend(config.user.iter().map(|user| user.user.clone()));
        names.extend(config.user.iter().filter_map(|user| user.group.clone()));
        Names {
            prefixes: std::iter::once(unikernel.as_str())
                .chain(config.places())
                .map(|name| format!("{name}: "))
                .collect(),
            phrases: names
                .iter()
                .flat_map(|name| {
                    [
                        format!("'{name}'"),
                        format!("={name}: "),
                        format!(":{name}: "),
                    ]
                })
                .collect(),
        }
    }

    /// Adds the names of devices.
    pub(super) fn add_devices(&mut self, manifest: &Manifest) {
        let devices = manifest.devices().iter();
        self.phrases.extend(devices.flat_map(|device| {
            let (name, kind) = (&device.name, device.kind);
            [format!("'{name}'"), format!("{name} ({kind})")]
        }));
    }

    /// Splits a message at the first separator that is not part of a name.
    pub(super) fn split<'m>(&self, message: &'m str) -> (&'m str, &'m str) {
        let prefixes = self.prefixes.iter();
        let prefix = prefixes.filter(|prefix| message.starts_with(prefix.as_str()));
        let mut rest = &message[prefix.map(String::len).max().unwrap_or_default()..];
        let mut last = ' ';
        while let Some(first) = rest.chars().next() {
            if let Some(fix) = rest.strip_prefix(SEPARATOR) {
                let found = message.len() - fix.len() - SEPARATOR.len();
                return (&message[..found], fix);
            }
            let phrases = self.phrases.iter();
            let phrase = phrases.filter(|phrase| rest.starts_with(phrase.as_str()));
            let skipped = match phrase.map(String::len).max() {
                Some(length) => length,
                // The quoted name of something else.
                None if first == '\'' && !last.is_alphanumeric() => {
                    rest[1..].find('\'').map_or(1, |end| end + 2)
                }
                None => first.len_utf8(),
            };
            last = first;
            rest = &rest[skipped..];
        }
        (message, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BlockOption;

    fn names(unikernel: &str, disk: &str) -> Names {
        Names::of(&Config {
            unikernel: unikernel.into(),
            blocks: vec![BlockOption {
                source: Some(BlockSource::Path(disk.into())),
                in_file: Some("a; b.toml:2:1".into()),
                ..BlockOption::default()
            }],
            chroot: Some("/c; d".into()),
            ..Config::default()
        })
    }

    #[test]
    fn a_separator_in_a_name_does_not_split() {
        let names = names("a; reboot now #.hvt", "/x'; mkfs");
        for (found, fix) in [
            ("a; reboot now #.hvt: cannot be opened: gone", "name it"),
            ("there is no file '/x'; mkfs'", "make '/x'; mkfs'"),
            ("user u may not write '/x'; mkfs'", "chown"),
            (
                "a; b.toml:2:1: the device's '/x'; mkfs' is empty",
                "fill it",
            ),
            ("--chroot=/c; d: gone", "make it"),
            ("'/other; name', passed as @3, is closed", "open it"),
            ("there is no interface 'tap0'", "'ip link'; or so"),
            ("it's off", "it's needed"),
            ("an unclosed 'quote", "x"),
            ("ü", "ä"),
        ] {
            assert_eq!(names.split(&format!("{found}; {fix}")), (found, fix));
            assert_eq!(names.split(found), (found, ""));
        }
    }

    #[test]
    fn a_name_does_not_hide_the_separator() {
        for name in ["; ", ";", " ", "", "'", "is down; ", "x; y"] {
            let message = "interface 'tap0' is down; 'ip link set tap0 up' brings it up";
            let (found, _) = names(name, name).split(message);
            assert_eq!(found, "interface 'tap0' is down", "{name}");
        }
    }
}
