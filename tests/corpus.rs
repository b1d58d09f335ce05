//! Inputs from fuzzing, tested again: an input that once violated a property must not do so again.
//! The properties are written down once, in the fuzz workspace, and included here.

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

fn main() -> ExitCode {
    // One after the other: the check for leaked descriptors fails while another test opens some.
    let arguments = Arguments {
        test_threads: Some(1),
        ..Arguments::from_args()
    };
    let tests = vec![
        trial("cli", "fuzz/seeds/cli", fuzz::cli::check),
        trial("config", "fuzz/seeds/config", fuzz::config::check),
        trial("hypercall", "fuzz/seeds/hypercall", fuzz::hypercall::check),
        trial("image", "fuzz/seeds/image", fuzz::image::check),
        trial(
            "image_fixtures_aarch64",
            "fixtures/bin/aarch64",
            fuzz::image::check,
        ),
        trial(
            "image_fixtures_x86_64",
            "fixtures/bin/x86_64",
            fuzz::image::check,
        ),
        trial("ring", "fuzz/seeds/ring", fuzz::ring::check),
    ];
    libtest_mimic::run(&arguments, tests).exit_code()
}

/// A test that tries every file of a directory of the repository.
fn trial(name: &str, directory: &'static str, check: fn(&[u8])) -> Trial {
    Trial::ignorable_test(name, move || {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
        if !directory.exists() {
            return Ok(Completion::ignored_with(
                "the repository is not on this machine",
            ));
        }
        try_all(&directory, check).map(|()| Completion::Completed)
    })
}

fn try_all(directory: &Path, check: fn(&[u8])) -> Result<(), Failed> {
    let entries =
        fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    if files.is_empty() {
        return Err(format!("{} is empty", directory.display()).into());
    }
    for file in files {
        let bytes = fs::read(&file)?;
        // The panic's own message is above.
        catch_unwind(|| check(&bytes))
            .map_err(|_| format!("{} violates a property", file.display()))?;
    }
    Ok(())
}
