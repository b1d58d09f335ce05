//! A host that misbehaves: its disks, networks, readers, memory and signals. The guest continues
//! where it can and gets an error where the interface has one. `tender` logs each kind of fault
//! once, and its count at the end; or the run ends with the cause.

mod disk;
mod kill;
mod net;
mod output;
mod process;

use libtest_mimic::Trial;

use crate::common::{self, Output, text, unikernel};

pub fn tests() -> Vec<Trial> {
    let subjects = [
        disk::tests,
        kill::tests,
        net::tests,
        output::tests,
        process::tests,
    ];
    subjects.into_iter().flat_map(|tests| tests()).collect()
}

/// An image of one megabyte, all zero.
struct Image {
    directory: tempfile::TempDir,
}

impl Image {
    const SIZE: u64 = 1 << 20;

    fn new() -> Image {
        let image = Image {
            directory: common::directory(),
        };
        std::fs::File::create(image.path())
            .unwrap()
            .set_len(Image::SIZE)
            .unwrap();
        image
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("disk.img")
    }

    /// The unikernel `block` with this disk.
    fn block(&self, arguments: &[&str]) -> std::process::Command {
        unikernel(
            "block",
            &["--mem=4", &format!("--disk={}", text(&self.path()))],
            arguments,
        )
    }
}

/// Checks that `tender` logged exactly these lines: each is a list of parts of it.
#[track_caller]
fn logs_only(output: &Output, lines: &[&[&str]]) {
    let logged: Vec<_> = output.stderr.lines().collect();
    assert!(
        logged.len() == lines.len(),
        "{} lines expected: {output:#?}",
        lines.len()
    );
    for (line, args) in logged.iter().zip(lines) {
        for part in *args {
            assert!(
                line.contains(part),
                "{part:?} should be in {line:?}: {output:#?}"
            );
        }
    }
}
