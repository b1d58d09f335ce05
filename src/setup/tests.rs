//! Checks that precede any access to the host.

use std::ffi::OsString;
use std::path::Path;

use super::*;
use crate::cli::{self, Command};
use crate::config::Memory;
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
            matches!(look_at(Path::new(path)), Err(Error::NotAFile(found)) if found == kind),
            "{path}"
        );
    }
}

fn look_at(path: &Path) -> Result<File, Error> {
    open(path, Files::default().take(path, Need::Read), true)
}

#[test]
fn a_mistyped_path_has_a_hint() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("hello.hvt"), "").expect("a file");
    let hint = |path: &Path| match look_at(path) {
        Err(Error::Open { hint, .. }) => hint,
        other => panic!("{other:?}"),
    };
    let meant = format!("did you mean '{}'?", at("hello.hvt").display());
    for name in ["helo.hvt", "hello.hvtt", "hello.htv"] {
        assert_eq!(hint(&at(name)), meant);
    }
    assert_eq!(hint(&at("hello")), meant);
    let plain = "give the path of an hvt unikernel";
    assert_eq!(hint(&at("web.hvt")), plain);
    assert_eq!(hint(&at("hello.hvt/web.hvt")), plain);
    assert_eq!(
        hint(&at("none/of/hello.hvt")),
        format!("there is no directory '{}'", at("none").display())
    );
    assert_eq!(
        hint(Path::new("UNIKERNEL")),
        "UNIKERNEL is a placeholder; write the path of an hvt unikernel"
    );
    for (word, written) in [
        ("run", "tender UNIKERNEL"),
        ("check", "tender --check UNIKERNEL"),
        ("help", "tender --help"),
        ("version", "tender --version"),
        ("inspec", "tender inspect UNIKERNEL"),
    ] {
        let expected = format!("there is no command '{word}'; write '{written}'");
        assert_eq!(hint(Path::new(word)), expected);
    }
    for path in ["./inspec", "inspect."] {
        assert_eq!(hint(Path::new(path)), plain, "{path}");
    }
    // Any name of the current directory, which is empty in the emulated machines.
    let names = std::fs::read_dir(".").expect("a directory").flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    if let Some(name) = names.max_by_key(String::len) {
        let meant = format!("did you mean '{name}'?");
        assert_eq!(hint(Path::new(&format!("-{name}"))), meant);
    }
    for word in ["run", "inspec"] {
        let opened = open(
            Path::new(word),
            Files::default().take(Path::new(word), Need::Read),
            false,
        );
        assert!(
            matches!(opened, Err(Error::Open { hint, .. }) if hint == plain),
            "{word}"
        );
    }
    assert_eq!(
        hint(Path::new("--ipv4=10.0.0.2/24")),
        "options of the guest follow the unikernel"
    );
}

#[test]
fn a_configuration_file_in_place_of_the_unikernel_is_recognised() {
    let directory = tempfile::tempdir().expect("a directory");
    let message = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        let look = Files::default().take(&path, Need::Read);
        let message = examine(&path, look).expect_err("no unikernel");
        message
            .to_string()
            .replace(&path.display().to_string(), name)
    };
    let toml = |name| {
        format!(
            "is a TOML file, not a unikernel; to run the unikernel that it names: tender --config={name}"
        )
    };
    assert_eq!(
        message("web.toml", "unikernel = web.hvt\n"),
        toml("web.toml")
    );
    assert_eq!(
        message("web.conf", "unikernel = \"web.hvt\"\n"),
        toml("web.conf")
    );
    for text in ["Hello, world\n", "# nothing\n", "#!/bin/sh\nexec true\n"] {
        let message = message("web", text);
        assert!(message.contains("not an ELF file"), "{message}");
    }
}
