//! A host that misbehaves: its disks, networks, readers, memory and signals. The guest continues
//! where it can and gets an error where the interface has one. `tender` logs each kind of fault
//! once, and its count at the end; or the run ends with the cause.

#[path = "../common/mod.rs"]
mod common;

mod disk;
mod kill;
mod net;
mod output;
mod process;

use std::process::ExitCode;

use common::{Output, text, unikernel};

fn main() -> ExitCode {
    common::main(
        [
            disk::tests(),
            kill::tests(),
            net::tests(),
            output::tests(),
            process::tests(),
        ]
        .concat_tests(),
    )
}

/// Joins the lists of tests of all subjects.
trait ConcatTests {
    fn concat_tests(self) -> Vec<libtest_mimic::Trial>;
}

impl<const N: usize> ConcatTests for [Vec<libtest_mimic::Trial>; N] {
    fn concat_tests(self) -> Vec<libtest_mimic::Trial> {
        self.into_iter().flatten().collect()
    }
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
