//! The manual pages: text from `pages/`, with title and options inserted.

use std::io::{Error, Result};

use clap::Command;
use clap_mangen::Man;

const TENDER: &str = include_str!("../pages/tender.1.in");
const INSPECT: &str = include_str!("../pages/tender-inspect.1.in");

/// Returns each page with its file name. `date` appears in the footer.
pub fn pages(date: &str) -> Result<[(&'static str, String); 2]> {
    let command = tender::cli::command();
    let tender = TENDER
        .replace("@TITLE@\n", &title("TENDER", date)?)
        .replace("@OPTIONS@\n", &options(&command)?);
    let inspect = INSPECT.replace("@TITLE@\n", &title("TENDER-INSPECT", date)?);
    Ok([("tender.1", tender), ("tender-inspect.1", inspect)])
}

fn title(name: &str, date: &str) -> Result<String> {
    let source = concat!("tender ", env!("CARGO_PKG_VERSION"));
    let page = Man::new(Command::new("tender"))
        .title(name)
        .date(date)
        .source(source)
        .manual("User Commands");
    text(|out| page.render_title(out))
}

/// Renders the options with one heading per group, in the order of `tender --help`.
fn options(command: &Command) -> Result<String> {
    let rendered = text(|out| Man::new(command.clone()).render_options_section(out))?;
    let mut lines = String::new();
    // The lines before the first section repeat the title.
    for line in rendered.lines().skip_while(|line| !line.starts_with(".SH")) {
        match line.strip_prefix(".SH ") {
            // Each group becomes a subsection; only its first letter is a capital.
            Some(group) => {
                let (first, rest) = group.trim_matches('"').split_at(1);
                lines += &format!(".SS {first}{}", rest.to_lowercase());
            }
            // Italics already mark a placeholder.
            None => lines += &line.replace(r"\fI<", r"\fI").replace(r">\fR", r"\fR"),
        }
        lines.push('\n');
    }
    Ok(lines)
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
        // Options in the page of `inspect`, of a unikernel and of systemctl.
        let others = ["json", "ipv4", "now"].map(String::from);
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
    fn no_placeholder_is_left() {
        for (name, text) in pages("2026-01-31").unwrap() {
            assert!(!text.contains('@') || !text.contains("@\n"), "{name}");
            assert!(text.contains("2026-01-31"), "{name}");
        }
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
            options.contains(r"\fB\-\-block:NAME\fR=\fIPATH"),
            "{options}"
        );
    }
}
