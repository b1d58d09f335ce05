//! The quick start of the README works as it is printed, with the unikernels where the packages put
//! them.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, Mounts, Net, Programs, Repository};
use crate::common::{Root, children, fixture, tender_path};
use crate::docs::{blocks, repository};

const EXAMPLES: &str = "usr/share/tender/examples";

pub fn tests() -> Vec<Trial> {
    vec![trial!(
        the_quick_start_works,
        Repository,
        Kvm,
        Net,
        Mounts,
        Programs(&["sh", "ip", "curl"])
    )]
}

/// Directories of this machine that the commands need. Without /usr/share, which has the examples.
const SHOWN: [&str; 10] = [
    "bin", "sbin", "lib", "lib64", "usr/bin", "usr/sbin", "usr/lib", "etc", "dev", "sys",
];

/// Returns a root directory with the examples, `tender`, and a `sudo` that runs its arguments.
fn installed() -> Root {
    let root = Root::new();
    for name in SHOWN {
        let directory = Path::new("/").join(name);
        if directory.is_dir() {
            root.show(&directory, name);
        }
    }
    fs::create_dir_all(root.path(EXAMPLES)).unwrap();
    for name in ["hello", "web"] {
        let example = format!("{EXAMPLES}/{name}.hvt");
        fs::copy(fixture(name), root.path(&example)).unwrap();
    }
    fs::create_dir(root.path("local")).unwrap();
    root.show(&tender_path(), "local/tender");
    fs::write(root.path("local/sudo"), "#!/bin/sh\nexec \"$@\"\n").unwrap();
    fs::set_permissions(root.path("local/sudo"), Permissions::from_mode(0o755)).unwrap();
    root
}

/// Returns a shell that runs `text` in `root`.
fn shell(root: &Root, text: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-eu", "-c", text]).stdin(Stdio::null());
    shell.env("PATH", "/local:/usr/sbin:/usr/bin:/sbin:/bin");
    root.enter(&mut shell);
    shell
}

/// Returns what it printed. A failure is a failure of the test.
fn run(root: &Root, text: &str) -> String {
    let mut shell = shell(root, text);
    let child = children::spawn(shell.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let output = child.unwrap().wait_with_output().unwrap();
    assert!(output.status.success(), "{text}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn the_quick_start_works() {
    let text = fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, section) = text.split_once("\n## Quick start\n").unwrap();
    let blocks = blocks(section.split("\n## ").next().unwrap());
    let blocks: Vec<_> = blocks.iter().map(|block| block.lines.join("\n")).collect();
    let [hello, tap, web, page] = &blocks[..] else {
        panic!("four blocks are expected: {blocks:#?}");
    };
    let root = installed();
    assert!(run(&root, hello).starts_with("hello: Hello\n"));
    run(&root, tap);
    let mut server = shell(&root, &format!("exec {web}"));
    let mut server = children::spawn(server.stdout(Stdio::piped())).unwrap();
    let log = BufReader::new(server.stdout.take().unwrap());
    let listens = |line: &io::Result<String>| line.as_ref().unwrap().contains("listening on");
    let mut log = log.lines();
    assert!(log.any(|line| listens(&line)), "the server ended");
    assert!(run(&root, page).contains("<title>"));
    server.kill().unwrap();
    server.wait().unwrap();
}
