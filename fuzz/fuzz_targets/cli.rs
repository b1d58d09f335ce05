//! The command line: whatever the words (bytes between NULs), a command or an error of one line.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libfuzzer_sys::fuzz_target;
use tender::cli::{self, Command, Memory};

fuzz_target!(|bytes: &[u8]| {
    let words = bytes.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    match cli::parse(std::iter::once(OsString::from("tender")).chain(words)) {
        Ok(Command::Run(config)) => {
            let given = config.memory.given;
            assert!((Memory::STEP..=Memory::MAX).contains(&given) && given % Memory::STEP == 0);
            assert!(!config.unikernel.as_os_str().is_empty());
        }
        Ok(Command::Inspect(_) | Command::Help(_) | Command::Version) => {}
        Err(error) => {
            let message = error.to_string();
            assert!(!message.chars().any(char::is_control), "{message:?}");
        }
    }
});
