//! The documents for operators are correct: their commands run, and their table of messages is
//! complete.

mod addresses;
mod links;
mod messages;
mod quick_start;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::common::Need::{KvmEngine, Net, ProcessEngine, Programs, Repository};
use crate::common::{self, fixture, tender_path, trial};

/// Documents to check, where they exist; the table of messages must exist.
const DOCUMENTS: [&str; 8] = [
    "install.md",
    "releasing.md",
    "debugging.md",
    "service.md",
    "raspberry-pi.md",
    "operations.md",
    "troubleshooting.md",
    WITHOUT_KVM,
];

const WITHOUT_KVM: &str = "without-kvm.md";

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
    /// Whether it can make a tap for group kvm, if it does.
    fn groups_are_there(&self) -> Result<(), String> {
        if !self.lines.iter().any(|line| line.ends_with("group kvm")) {
            return Ok(());
        }
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        match groups.lines().any(|line| line.starts_with("kvm:")) {
            true if common::net::is_superuser() => Ok(()),
            true => Err("not run by the superuser".into()),
            false => Err("no group kvm here".into()),
        }
    }

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
    ];
    for document in DOCUMENTS {
        let Ok(text) = fs::read_to_string(repository().join("docs").join(document)) else {
            continue;
        };
        let engine = match document {
            WITHOUT_KVM => ProcessEngine,
            _ => KvmEngine,
        };
        for block in blocks(&text) {
            let place = format!("docs/{document}:{}", block.line);
            let name = place.clone();
            tests.push(match (block.needs, block.language.as_str()) {
                (true, _) => trial(&name)
                    .needs(&[Repository])
                    .run(move || known_options(&place, &block)),
                (false, "sh") => trial(&name)
                    .needs(&[Repository, engine, Net, Programs(block.programs())])
                    .try_run(move || {
                        block.groups_are_there()?;
                        runs(&place, &block);
                        Ok(())
                    }),
                _ => trial(&name)
                    .needs(&[Repository])
                    .run(move || panic!("{place}: neither ```sh nor after a line *Needs …:*")),
            });
        }
    }
    tests.extend(messages::tests());
    tests.extend(addresses::tests());
    tests.extend(links::tests());
    tests.extend(quick_start::tests());
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
