//! Checks that precede any access to the host.

use std::ffi::OsString;
use std::path::Path;

use super::*;
use crate::cli::{self, Command};
use crate::guest::image::tests::elf::{Elf, LEGACY_STRINGS};

/// Returns the error for a unikernel of Solo5 0.3 or 0.4 with these options.
fn refused(options: &[&str]) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("app.ukvm");
    let machine = if cfg!(target_arch = "x86_64") {
        62
    } else {
        183
    };
    std::fs::write(
        &path,
        Elf {
            machine,
            ..Elf::legacy(LEGACY_STRINGS)
        }
        .build(),
    )
    .expect("room for it");
    let args = ["tender"]
        .iter()
        .chain(options)
        .map(OsString::from)
        .chain([path.into()]);
    let Ok(Command::Run(config)) = cli::parse(args) else {
        panic!("{options:?}")
    };
    setup(&config, &mut Files::default())
        .err()
        .expect("no such devices")
        .to_string()
}

#[test]
fn named_options_are_refused_for_unnamed_devices() {
    let named = [
        ("--net:service=tap0", "service"),
        ("--net-mac:service=02:00:00:00:00:01", "service"),
        ("--block:data=/x", "data"),
        ("--block-sector-size:data=512", "data"),
    ];
    for (option, device) in named {
        let error = refused(&["--net=tap1", option]);
        let rule = format!("'{device}': this unikernel's devices have no names");
        assert!(error.starts_with(&rule), "{error}");
    }
    assert_eq!(
        refused(&["--net:service=tap0"]),
        "'service': this unikernel's devices have no names (no ABI version (Solo5 0.3 to 0.4)); \
         use --net=IFACE or --disk=PATH"
    );
}

#[test]
fn short_options_are_accepted_for_unnamed_devices() {
    let error = refused(&["--disk=/nonexistent/disk.img"]);
    assert!(
        error.contains("there is no file '/nonexistent/disk.img'"),
        "{error}"
    );
}

#[test]
fn memory_below_the_least_is_refused() {
    let image = Image::parse(Elf::legacy(LEGACY_STRINGS).build().as_slice()).expect("a unikernel");
    let of = |given| Memory {
        asked: given,
        given,
    };
    assert_eq!(memory_size(of(2 << 20), &image).expect("enough"), 2 << 20);
    assert!(matches!(
        memory_size(of(0), &image),
        Err(Error::TooLittleMemory {
            given: 0,
            needed: 2
        })
    ));
}

#[test]
fn paths_that_are_no_file_are_named() {
    for (path, kind) in [("/dev/null", "device"), ("/", "directory")] {
        assert!(
            matches!(open(Files::default().take(Path::new(path), Need::Read)), Err(Error::NotAFile(found)) if found == kind),
            "{path}"
        );
    }
}
