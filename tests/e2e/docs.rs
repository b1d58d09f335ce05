//! The documents for operators are correct: their commands run, and their table of messages is
//! complete.

use libtest_mimic::Trial;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::Need::{Kvm, Net, Programs, Repository};
use crate::common::{self, fixture, tender_path, trial};

/// Documents to check, where they exist; the table of messages must exist.
const DOCUMENTS: [&str; 4] = [
    "debugging.md",
    "raspberry-pi.md",
    "operations.md",
    "troubleshooting.md",
];

/// A fenced block: the line of its fence, the text of the fence, whether its requirements precede
/// it, and its lines.
#[derive(Debug, PartialEq)]
struct Block {
    line: usize,
    language: String,
    needs: bool,
    lines: Vec<String>,
}

impl Block {
    /// Programs that it needs in addition to those of every Debian.
    fn programs(&self) -> &'static [&'static str] {
        let asks = |program: &str| {
            self.lines
                .iter()
                .any(|line| line.trim_start().starts_with(program))
        };
        match (asks("ip "), asks("curl "), asks("nft ")) {
            (_, _, true) => &["sh", "timeout", "ip", "sysctl", "nft"],
            (_, true, _) => &["sh", "timeout", "ip", "curl"],
            (true, ..) => &["sh", "timeout", "ip"],
            _ => &["sh", "timeout"],
        }
    }
}

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        trial!(blocks_are_found, Repository),
        trial!(options_are_checked, Repository),
        trial!(addresses_are_found, Repository),
        trial!(every_address_is_known_to_exist, Repository),
        trial!(every_message_is_listed, Repository),
        trial!(every_row_is_a_message, Repository),
    ];
    for document in DOCUMENTS {
        let Ok(text) = fs::read_to_string(repository().join("docs").join(document)) else {
            continue;
        };
        for block in blocks(&text) {
            let place = format!("docs/{document}:{}", block.line);
            let name = place.clone();
            tests.push(match (block.needs, block.language.as_str()) {
                (true, _) => trial(&name)
                    .needs(&[Repository])
                    .run(move || known_options(&place, &block)),
                (false, "sh") => trial(&name)
                    .needs(&[Repository, Kvm, Net, Programs(block.programs())])
                    .run(move || runs(&place, &block)),
                _ => trial(&name)
                    .needs(&[Repository])
                    .run(move || panic!("{place}: neither ```sh nor after a line *Needs …:*")),
            });
        }
    }
    tests
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut open, mut before) = (None::<Block>, "");
    for (number, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(language), None) => {
                let needs = before.trim().starts_with("*Needs ") && before.trim().ends_with(":*");
                open = Some(Block {
                    line: number + 1,
                    language: language.trim().into(),
                    needs,
                    lines: Vec::new(),
                });
            }
            (None, Some(mut block)) => {
                block.lines.push(line.to_owned());
                open = Some(block);
            }
            (None, None) => {}
        }
        before = line;
    }
    assert!(open.is_none(), "{open:?} is not closed");
    blocks
}

fn runs(place: &str, block: &Block) {
    let directory = common::directory();
    let mut shell = Command::new("timeout");
    shell
        .args([
            "--kill-after=5",
            "30",
            "sh",
            "-eu",
            "-c",
            &block.lines.join("\n"),
        ])
        .current_dir(directory.path());
    shell
        .env("TENDER", tender_path())
        .env("FIXTURES", fixture("hello").parent().unwrap());
    shell
        .env_remove("NOTIFY_SOCKET")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    // Output goes to a file, so that reading ends even if a failed command has left processes; the
    // kill below ends those.
    let path = directory.path().join("output");
    let output = File::create(&path).unwrap();
    shell.stdout(output.try_clone().unwrap()).stderr(output);
    let mut shell = common::children::spawn(&mut shell).unwrap();
    let status = shell.wait().unwrap();
    // SAFETY: it takes numbers. The group keeps its number from being reused.
    unsafe { libc::kill(-(shell.id() as libc::pid_t), libc::SIGKILL) };
    let output = fs::read(path).unwrap();
    assert!(
        status.success(),
        "{place}: {status}: {}",
        String::from_utf8_lossy(&output)
    );
}

/// Returns the options of `tender` in a line, if it is one of its command lines.
fn options(line: &str) -> Vec<&str> {
    let mut line = line.trim_start();
    for prefix in ["$ ", "ExecStart=", "sudo ", "/usr/bin/"] {
        line = line.strip_prefix(prefix).unwrap_or(line);
    }
    if !line.starts_with("tender ") && !line.starts_with("solo5-hvt ") {
        return Vec::new();
    }
    let arguments = line
        .split_whitespace()
        .take_while(|word| *word != "--")
        .filter(|word| word.starts_with("--"));
    arguments
        .map(|word| word.split(['=', ':']).next().unwrap_or(word))
        .collect()
}

fn known_options(place: &str, block: &Block) {
    let help = Command::new(tender_path())
        .arg("--help")
        .output()
        .unwrap()
        .stdout;
    let help = String::from_utf8(help).unwrap();
    let known: Vec<&str> = help
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .collect();
    for option in block.lines.iter().flat_map(|line| options(line)) {
        assert!(
            known.contains(&option),
            "{place}: {option} is no option of tender's"
        );
    }
}

fn blocks_are_found() {
    let text = "```sh\na\n```\n\n*Needs a Raspberry Pi:*\n```\ntender --mem=4 x\n```\n*Needs x:*\n\n```sh\n```\n";
    let found = blocks(text);
    let described: Vec<_> = found
        .iter()
        .map(|b| (b.line, b.language.as_str(), b.needs, b.lines.len()))
        .collect();
    assert_eq!(
        described,
        [(1, "sh", false, 1), (6, "", true, 1), (11, "sh", false, 0)]
    );
}

fn options_are_checked() {
    assert_eq!(
        options("$ sudo tender --mem=4 --net:a=tap0 -- x --y"),
        ["--mem", "--net"]
    );
    assert_eq!(options("ExecStart=/usr/bin/solo5-hvt --mem=4 x"), ["--mem"]);
    assert!(options("ip --json link").is_empty());
}

/// Returns the text of every Rust file below `directory`, with lines that `\` continues joined.
fn sources(directory: PathBuf) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if entry.is_dir() {
            text += &sources(entry);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let mut parts = fs::read_to_string(entry).unwrap();
            while let Some((start, rest)) = parts.split_once("\\\n") {
                parts = format!("{start}{}", rest.trim_start());
            }
            text += &parts;
        }
    }
    text
}

/// Returns a message as the table has it: `…` for the variable parts.
fn folded(message: &str) -> String {
    let mut folded = String::new();
    for (index, part) in message.split('{').enumerate() {
        let rest = if index == 0 {
            part
        } else {
            part.split_once('}').map_or(part, |(_, rest)| rest)
        };
        folded += if index == 0 { "" } else { "…" };
        folded += rest;
    }
    while folded.contains("……") {
        folded = folded.replace("……", "…");
    }
    folded
}

/// What precedes the text of an error or a warning in the sources.
const PREFIXES: [&str; 4] = [
    "#[error(",
    "log::warn!(",
    "fail(format_args!(",
    "Level::Warn, format_args!(",
];

/// The texts of `outcome::Error`, which cannot derive them.
fn outcomes() -> Vec<String> {
    let text = fs::read_to_string(repository().join("src/outcome.rs")).unwrap();
    let display = text.split_once("impl fmt::Display for Error").unwrap().1;
    let after = |before: &str| {
        let starts = display.split(before).skip(1);
        let literals = starts.map(|rest| folded(rest.split('"').next().unwrap()));
        literals.collect::<Vec<_>>()
    };
    [after("write!(f, \""), after("f.write_str(\"")].concat()
}

fn messages() -> Vec<String> {
    let text = sources(repository().join("src")).replace("\\\"", "\u{1}");
    assert!(
        !text.contains("log::error!("),
        "errors end the run, and are printed by `fail`"
    );
    let starts = PREFIXES
        .iter()
        .flat_map(|before| text.split(before).skip(1));
    let literals = starts.filter_map(|rest| rest.trim_start().strip_prefix('"'));
    let messages =
        literals.map(|rest| folded(rest.split('"').next().unwrap()).replace('\u{1}', "\""));
    let messages = messages.chain(outcomes());
    // A format that only prepends the device to another message has no row.
    messages
        .filter(|message| has_text(message) && message != "device '…': …")
        .collect()
}

/// Whether a message has fixed text: three letters in a row.
fn has_text(message: &str) -> bool {
    message
        .split(|c: char| !c.is_alphabetic())
        .any(|word| word.chars().count() >= 3)
}

/// Returns the first column of the tables.
fn rows() -> Vec<String> {
    let text = fs::read_to_string(repository().join("docs/troubleshooting.md"))
        .expect("the table of messages is here");
    let cells = text.lines().filter_map(|line| {
        line.strip_prefix("| `")?
            .split_once("` |")
            .map(|(cell, _)| cell)
    });
    cells.map(str::to_owned).collect()
}

/// A row omits the file or the interface that a message begins with.
fn is_row(message: &str, row: &str) -> bool {
    let about = message.strip_prefix("…: ");
    row == message || about == Some(row) || row.strip_prefix("device '…': ") == Some(message)
}

fn every_message_is_listed() {
    let (rows, messages) = (rows(), messages());
    assert!(!messages.is_empty());
    let missing: Vec<_> = messages
        .iter()
        .filter(|message| !rows.iter().any(|row| is_row(message, row)))
        .collect();
    assert!(
        missing.is_empty(),
        "not in docs/troubleshooting.md: {missing:#?}"
    );
}

fn every_row_is_a_message() {
    let (messages, text) = (
        messages(),
        sources(repository().join("src")).replace("\\\"", "\""),
    );
    let rows = rows();
    assert!(!rows.is_empty());
    let others = rows
        .iter()
        .filter(|row| !messages.iter().any(|message| is_row(message, row)));
    let unknown: Vec<_> = others
        .filter(|row| !row.split('…').all(|part| text.contains(part)))
        .collect();
    assert!(
        unknown.is_empty(),
        "no message in src/ matches: {unknown:#?}"
    );
}

/// Addresses that files may contain: known sites, and names that cannot be registered.
const KNOWN: [&str; 9] = [
    "github.com/Solo5/solo5",
    "github.com/rust-lang/crates.io-index",
    "json-schema.org/draft/",
    "keepachangelog.com/",
    "semver.org/",
    "toml.io",
    "www.apache.org/licenses/",
    "www.debian.org/doc/",
    "www.gnu.org/software/",
];

/// Returns hosts and paths of URLs, of repositories without a scheme, and of mail addresses in
/// angle brackets.
fn addresses(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-._~:/@{}[]%".contains(c);
    let up_to_the_end = |rest: &str| rest.find(|c| !is_part(c)).unwrap_or(rest.len());
    let urls = text
        .match_indices("://")
        .map(|(at, scheme)| at + scheme.len());
    let sites = ["github.com/", "gitlab.com/", "codeberg.org/", "git@"];
    let repositories = sites
        .into_iter()
        .flat_map(|site| text.match_indices(site))
        .map(|(at, _)| at);
    let found = urls
        .chain(repositories)
        .map(|at| &text[at..][..up_to_the_end(&text[at..])]);
    let brackets = text
        .split('<')
        .skip(1)
        .filter_map(|rest| rest.split_once('>'))
        .map(|(inside, _)| inside);
    let mails = brackets
        .filter(|inside| inside.contains('.') && !inside.contains([' ', '/']))
        .filter_map(|inside| inside.split_once('@'));
    found.chain(mails.map(|(_, host)| host)).collect()
}

/// Whether it is one of [`KNOWN`], this host, a number, made up at run time or reserved for
/// examples.
fn is_known(address: &str) -> bool {
    let host = address
        .split(['/', ':'])
        .next()
        .unwrap_or(address)
        .trim_end_matches('.');
    let reserved = [
        "example",
        "example.com",
        "example.net",
        "example.org",
        "localhost",
    ];
    let is_reserved = reserved
        .iter()
        .any(|name| host == *name || host.ends_with(&format!(".{name}")));
    let is_number = host.starts_with(|c: char| c.is_ascii_digit() || c == '{' || c == '[');
    host.is_empty()
        || is_reserved
        || is_number
        || KNOWN.iter().any(|known| address.starts_with(known))
}

fn addresses_are_found() {
    let text = "at https://a.net/b, (ssh://git@c.org:22/d) github.com/e/f; <g@h.io> unit@x.service <i> </dev/null> //";
    let found = addresses(text);
    assert_eq!(
        found,
        [
            "a.net/b",
            "git@c.org:22/d",
            "github.com/e/f",
            "git@c.org:22/d",
            "h.io"
        ]
    );
    assert!(found.into_iter().all(|address| !is_known(address)));
    for known in [
        "127.0.0.1:9111/metrics",
        "a.example/b",
        "www.example.org",
        "localhost",
        "{address}/",
        "toml.io",
    ] {
        assert!(is_known(known), "{known}");
    }
    assert!(!is_known("anexample.org") && !is_known("github.com/stranger/solo5"));
}

/// No document, message or package contains an address that a stranger could register.
fn every_address_is_known_to_exist() {
    let mut unknown = Vec::new();
    let mut directories = vec![repository().to_owned()];
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            let name = path.file_name().unwrap().to_str().unwrap();
            // Without build output, fuzzer input, and this file.
            if ["target", ".git", "bin", "corpus", "seeds", "docs.rs"].contains(&name) {
                continue;
            } else if path.is_dir() && !path.is_symlink() {
                directories.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let others = addresses(&text)
                    .into_iter()
                    .filter(|address| !is_known(address))
                    .map(str::to_owned);
                unknown.extend(others.map(|address| (path.clone(), address)));
            }
        }
    }
    assert!(unknown.is_empty(), "not known to exist: {unknown:#?}");
}
