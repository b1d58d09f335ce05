//! The manual pages: text from `pages/`, with title and options inserted.

use std::io::{Error, Result};

use clap::Command;
use clap_mangen::Man;

use crate::options::{keys, options};

const TENDER: &str = include_str!("../pages/tender.1.in");
const INSPECT: &str = include_str!("../pages/tender-inspect.1.in");
const ELFTOOL: &str = include_str!("../pages/tender-elftool.1.in");
const TOML: &str = include_str!("../pages/tender.toml.5.in");

/// Returns each page with its file name. `date` appears in the footer.
pub fn pages(date: &str) -> Result<[(&'static str, String); 4]> {
    let command = tender::cli::command();
    let tender = TENDER
        .replace("@TITLE@\n", &title("TENDER", "1", date)?)
        .replace("@OPTIONS@\n", &options(&command)?);
    let inspect = INSPECT.replace("@TITLE@\n", &title("TENDER-INSPECT", "1", date)?);
    let elftool = ELFTOOL.replace("@TITLE@\n", &title("SOLO5-ELFTOOL", "1", date)?);
    let toml = TOML
        .replace("@TITLE@\n", &title("TENDER.TOML", "5", date)?)
        .replace("@KEYS@\n", &keys()?);
    Ok([
        ("tender.1", tender),
        ("tender-inspect.1", inspect),
        ("tender.toml.5", toml),
        // Under the name of the alternative, Solo5's package can have a page as well.
        ("tender-elftool.1", elftool),
    ])
}

fn title(name: &str, section: &str, date: &str) -> Result<String> {
    let source = concat!("tender ", env!("CARGO_PKG_VERSION"));
    let page = Man::new(Command::new("tender"))
        .title(name)
        .section(section)
        .date(date)
        .source(source)
        .manual(if section == "5" {
            "File Formats"
        } else {
            "User Commands"
        });
    text(|out| page.render_title(out))
}

/// Returns the output of `render` as text.
fn text(render: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<String> {
    let mut bytes = Vec::new();
    render(&mut bytes)?;
    String::from_utf8(bytes).map_err(Error::other)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Returns the long options in `text`, without dashes and without the part after a colon.
    fn named(text: &str) -> BTreeSet<String> {
        let plain = text
            .replace(r"\-", "-")
            .replace(r"\fB", " ")
            .replace(r"\fI", " ")
            .replace(r"\fR", " ");
        let args = plain.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        args.filter_map(|word| word.strip_prefix("--"))
            .filter(|name| !name.is_empty())
            .map(String::from)
            .collect()
    }

    fn base(name: &str) -> &str {
        name.split(':').next().unwrap_or(name)
    }

    fn page(index: usize) -> String {
        pages("2026-01-31").unwrap()[index].1.clone()
    }

    #[test]
    fn the_page_documents_exactly_the_known_options() {
        let command = tender::cli::command();
        let known: BTreeSet<_> = command
            .get_arguments()
            .filter_map(|arg| arg.get_long())
            .map(|name| base(name).to_owned())
            .collect();
        // Options in the page of `inspect`, of a unikernel, of systemctl and of curl.
        let others = ["toml", "oci", "ipv4", "now", "unix-socket"].map(String::from);
        let documented: BTreeSet<_> = named(&page(0))
            .into_iter()
            .filter(|name| !others.contains(name))
            .collect();
        assert_eq!(documented, known);
    }

    #[test]
    fn the_page_of_inspect_has_the_options_of_its_help() {
        let args = ["tender", "inspect", "--help"].map(Into::into);
        let Ok(tender::cli::Command::Help(help)) = tender::cli::parse(args) else {
            panic!("no help")
        };
        assert_eq!(named(&page(1)), named(&help));
    }

    #[test]
    fn the_page_of_the_elftool_has_the_commands_of_its_help() {
        use tender::inspect::elftool;
        let usage = elftool::run(&[]).unwrap_err().to_string();
        let page = page(3).replace(r"\-", "-");
        let commands = usage.split([' ', ',']).filter(|word| word.contains('-'));
        let commands: Vec<_> = commands.filter(|word| *word != elftool::NAME).collect();
        assert!(commands.contains(&"query-abi"), "{usage}");
        for command in commands {
            let command = command.trim_matches(['(', '\'']);
            assert!(page.contains(&format!("\n.B {command}\n")), "{command}");
        }
    }

    #[test]
    fn no_placeholder_is_left() {
        for (name, text) in pages("2026-01-31").unwrap() {
            assert!(!text.contains('@') || !text.contains("@\n"), "{name}");
            assert!(text.contains("2026-01-31"), "{name}");
        }
    }

    #[test]
    fn the_page_of_files_has_exactly_their_keys() {
        let page = page(2);
        let keys = page.split(".SH KEYS\n").nth(1).unwrap();
        let keys = keys.split(".SH ").next().unwrap().replace(r"\-", "-");
        let tags = keys.split(".TP\n\\fB").skip(1);
        let tags: Vec<&str> = tags.filter_map(|tag| tag.split("\\fR").next()).collect();
        let known: Vec<&str> = tender::cli::keys().map(|key| key.name).collect();
        assert_eq!(tags, [&["unikernel", "args"], &known[..]].concat());
        assert!(known.contains(&"mem") && !known.contains(&"check"));
        assert!(
            keys.contains(r"\fBnet-mac\fR, or \fBmac\fR in \fB[net.NAME]\fR (string: \fIMAC\fR)")
        );
        assert!(keys.contains(r"\fBmem\fR (integer or string: \fISIZE\fR)"));
    }

    #[test]
    fn the_example_is_a_valid_file() {
        let page = page(2).replace(r"\-", "-");
        let example = page.rsplit(".EX\n").next().unwrap();
        let example = example.split(".EE\n").next().unwrap();
        let args = ["tender", "--config=app.toml"].map(Into::into);
        let Ok(tender::cli::Command::Configured(configured)) = tender::cli::parse(args) else {
            panic!("no file")
        };
        let Ok((tender::cli::Command::Run(config), _)) = configured.parse(example.as_bytes())
        else {
            panic!("{example}")
        };
        assert_eq!((config.nets.len(), config.name()), (2, "router".into()));
    }

    #[test]
    fn groups_are_subsections() {
        let options = options(&tender::cli::command()).unwrap();
        assert!(
            options.starts_with(".SS ") && !options.contains(".SH"),
            "{options}"
        );
        assert!(
            options.contains(".SS Memory\n") && options.contains(".SS Network\n"),
            "{options}"
        );
        assert!(
            options.contains(r"\fB\-\-block:NAME\fR=\fIPATH")
                && options.contains(r"\fB\-v\fR, \fB\-\-verbose\fR"),
            "{options}"
        );
    }
}
