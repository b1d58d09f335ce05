//! A host that misbehaves: its disks, networks, readers, memory and signals. The guest goes on where it can, and is told
//! what it can be told; the operator hears of each kind of fault once, and how often it happened when the run is over;
//! or the run ends with the cause named.

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

/// So that each subject lists its own tests.
trait ConcatTests {
    fn concat_tests(self) -> Vec<libtest_mimic::Trial>;
}

impl<const N: usize> ConcatTests for [Vec<libtest_mimic::Trial>; N] {
    fn concat_tests(self) -> Vec<libtest_mimic::Trial> {
        self.into_iter().flatten().collect()
    }
}

/// An image of a megabyte, all zero.
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

/// Checks that the tender said just these lines: each is a list of words in it.
#[track_caller]
fn says_only(output: &Output, lines: &[&[&str]]) {
    let said: Vec<_> = output.stderr.lines().collect();
    assert!(
        said.len() == lines.len(),
        "{} lines should have been said: {output:#?}",
        lines.len()
    );
    for (line, args) in said.iter().zip(lines) {
        for word in *args {
            assert!(
                line.contains(word),
                "{word:?} should be in {line:?}: {output:#?}"
            );
        }
    }
}
